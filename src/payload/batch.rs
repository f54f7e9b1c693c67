//! A batch on its way in: checked once, its texts in one buffer, its facets beside them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::culprit::{NUL_REFUSED, find_culprit, reason};
use super::facet::{Facet, collect_facets, event_type_facet, stored_facets};
use super::{MAX_DEPTH, MAX_EVENT_TYPE_BYTES, MAX_PAYLOAD_BYTES, refuse_arbitrary_precision};
use crate::contract::{EventStoreError, NewEvent};

/// Events that keep every limit of the contract, at least one.
#[derive(Debug)]
pub(crate) struct PreparedBatch {
    /// Type and payload of each event, one after the other.
    text: String,
    events: Vec<Extent>,
    facets: Vec<Facet>,
}

/// Where one event's parts end; each starts where the one before ends.
#[derive(Debug, Clone, Copy)]
struct Extent {
    event_type: usize,
    payload: usize,
    facets: usize,
}

/// One event of a [`PreparedBatch`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct PreparedEvent<'b> {
    pub(crate) event_type: &'b str,
    /// JSON text.
    pub(crate) payload: &'b str,
    /// Sorted and distinct.
    pub(crate) facets: &'b [Facet],
}

impl PreparedBatch {
    /// Checks events of the Rust API.
    pub(crate) fn from_events(new_events: &[NewEvent]) -> Result<Self, EventStoreError> {
        refuse_arbitrary_precision()?;
        let mut batch = BatchBuilder::default();
        for event in new_events {
            let payload = serde_json::to_string(&event.payload)
                .map_err(|error| batch.refuse("payload", &error.to_string()))?;
            batch.push(&event.event_type, &payload)?;
        }
        batch.finish()
    }

    /// Checks a JSON text: an array of `{"event_type": …, "payload": …}`.
    pub(crate) fn from_json(text: &str) -> Result<Self, EventStoreError> {
        let mut batch = BatchBuilder::default();
        batch.text.reserve(text.len());
        let mut refusal = None;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let visitor = Batch {
            batch: &mut batch,
            refusal: &mut refusal,
        };
        let result = deserializer
            .deserialize_any(visitor)
            .and_then(|()| deserializer.end());
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if result.is_err() {
            // The text around the payloads is broken, or a payload's strings are, or an event is none.
            let message = find_culprit(text, "events", 2).unwrap_or_else(|| {
                let index = batch.events.len();
                format!("events[{index}]: must be an object with event_type and payload")
            });
            return Err(EventStoreError::InvalidEvent(message));
        }
        batch.finish()
    }

    /// Makes a batch of stored events, which were checked when they were appended.
    pub(crate) fn stored<'e>(events: impl Iterator<Item = (&'e str, &'e str)>) -> Self {
        let mut batch = BatchBuilder::default();
        let mut facets = Vec::new();
        for (event_type, payload) in events {
            stored_facets(event_type, payload, &mut facets);
            batch.facets.extend_from_slice(&facets);
            batch.push_text(event_type, payload);
        }
        batch.build()
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// The event at a place below [`len`](Self::len).
    pub(crate) fn event(&self, place: usize) -> PreparedEvent<'_> {
        let start = place.checked_sub(1).map(|before| self.events[before]);
        let (text, facets) = start.map_or((0, 0), |start| (start.payload, start.facets));
        let extent = self.events[place];
        PreparedEvent {
            event_type: &self.text[text..extent.event_type],
            payload: &self.text[extent.event_type..extent.payload],
            facets: &self.facets[facets..extent.facets],
        }
    }

    /// The bytes that the batch holds in memory, roughly.
    pub(crate) fn weight(&self) -> usize {
        self.text.len() + self.facets.len() * size_of::<Facet>()
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = PreparedEvent<'_>> {
        (0..self.len()).map(|place| self.event(place))
    }
}

/// Collects checked events.
#[derive(Debug, Default)]
pub(crate) struct BatchBuilder {
    text: String,
    events: Vec<Extent>,
    facets: Vec<Facet>,
}

impl BatchBuilder {
    /// Checks one event and adds it. An error leaves the builder unusable.
    fn push(&mut self, event_type: &str, payload: &str) -> Result<(), EventStoreError> {
        if event_type.is_empty() || event_type.len() > MAX_EVENT_TYPE_BYTES {
            let length = event_type.len();
            return Err(self.refuse(
                "event_type",
                &format!("must have 1 to {MAX_EVENT_TYPE_BYTES} bytes of UTF-8, not {length}"),
            ));
        }
        if event_type.contains('\0') {
            return Err(self.refuse("event_type", NUL_REFUSED));
        }
        if payload.len() > MAX_PAYLOAD_BYTES {
            let length = payload.len();
            return Err(self.refuse(
                "payload",
                &format!("has {length} bytes of JSON, the most is {MAX_PAYLOAD_BYTES}"),
            ));
        }
        let facets = self.facets.len();
        self.facets.push(event_type_facet(event_type));
        let parsed = collect_facets(payload, MAX_DEPTH, &mut self.facets);
        // U+0000 only stands in JSON text as an escape, and that rarely.
        if parsed.is_err() || payload.contains("\\u0000") {
            let root = format!("events[{}].payload", self.events.len());
            if let Some(message) = find_culprit(payload, &root, 0) {
                return Err(EventStoreError::InvalidEvent(message));
            }
        }
        distinct(&mut self.facets, facets..);
        self.push_text(event_type, payload);
        Ok(())
    }

    /// Adds an event whose facets are the last ones.
    fn push_text(&mut self, event_type: &str, payload: &str) {
        self.text.push_str(event_type);
        let event_type = self.text.len();
        self.text.push_str(payload);
        let payload = self.text.len();
        self.events.push(Extent {
            event_type,
            payload,
            facets: self.facets.len(),
        });
    }

    fn refuse(&self, member: &str, reason: &str) -> EventStoreError {
        EventStoreError::InvalidEvent(format!("events[{}].{member}: {reason}", self.events.len()))
    }

    fn finish(self) -> Result<PreparedBatch, EventStoreError> {
        if self.events.is_empty() {
            return Err(EventStoreError::EmptyAppend);
        }
        Ok(self.build())
    }

    fn build(self) -> PreparedBatch {
        let Self {
            text,
            events,
            facets,
        } = self;
        PreparedBatch {
            text,
            events,
            facets,
        }
    }
}

/// Sorts the facets from `range.start` on and drops repetitions.
fn distinct(facets: &mut Vec<Facet>, range: std::ops::RangeFrom<usize>) {
    facets[range.clone()].sort_unstable();
    let mut kept = range.start;
    for index in range.start..facets.len() {
        if index == range.start || facets[index] != facets[kept - 1] {
            facets[kept] = facets[index];
            kept += 1;
        }
    }
    facets.truncate(kept);
}

struct Batch<'b> {
    batch: &'b mut BatchBuilder,
    refusal: &'b mut Option<EventStoreError>,
}

impl<'de> Visitor<'de> for Batch<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence
            .next_element_seed(Event {
                batch: &mut *self.batch,
                refusal: &mut *self.refusal,
            })?
            .is_some()
        {}
        Ok(())
    }
}

/// Takes one event apart and adds it to the batch.
struct Event<'b> {
    batch: &'b mut BatchBuilder,
    refusal: &'b mut Option<EventStoreError>,
}

impl Event<'_> {
    fn refuse<E: Error>(self, refusal: EventStoreError) -> E {
        *self.refusal = Some(refusal);
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for Event<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Event<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut event_type = None;
        let mut payload = None;
        while let Some(key) = map.next_key::<JsonString>()? {
            match &*key.0 {
                "event_type" => event_type = Some(map.next_value::<&RawValue>()?),
                "payload" => payload = Some(map.next_value::<&RawValue>()?),
                unknown => {
                    let shown: String = unknown.chars().take(64).collect();
                    let refusal = self.batch.refuse(
                        &shown,
                        "unknown member, it would be lost (an event has event_type and payload)",
                    );
                    return Err(self.refuse(refusal));
                }
            }
        }
        let Some(event_type) = event_type.filter(|text| text.get().starts_with('"')) else {
            let refusal = self.batch.refuse("event_type", "must be a string");
            return Err(self.refuse(refusal));
        };
        let event_type = match serde_json::from_str::<JsonString>(event_type.get()) {
            Ok(event_type) => event_type.0,
            Err(error) => {
                let refusal = self.batch.refuse("event_type", &reason(&error));
                return Err(self.refuse(refusal));
            }
        };
        let Some(payload) = payload else {
            let refusal = self
                .batch
                .refuse("payload", "is missing, or a value that JSON can't hold");
            return Err(self.refuse(refusal));
        };
        match self.batch.push(&event_type, payload.get()) {
            Ok(()) => Ok(()),
            Err(refusal) => Err(self.refuse(refusal)),
        }
    }
}

/// A string, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct JsonString<'a>(#[serde(borrow)] Cow<'a, str>);
