use std::ops::Range;

use crate::payload::{CompiledQuery, PreparedBatch};
use crate::selection::Row;

/// A batch as it was committed.
#[derive(Debug)]
pub(crate) struct CommittedBatch {
    pub(crate) first: u64,
    /// Microseconds since 1970, UTC.
    pub(crate) occurred_at: i64,
    pub(crate) batch: PreparedBatch,
}

/// Which events of a batch a stream gets; at least one.
#[derive(Debug)]
pub(super) enum Matching {
    All,
    /// By their place in the batch, ascending.
    Some(Box<[u32]>),
}

impl CommittedBatch {
    pub(crate) fn last(&self) -> u64 {
        self.first + self.batch.len() as u64 - 1
    }

    pub(super) fn weight(&self) -> usize {
        self.batch.weight()
    }

    /// `None`: no event matches.
    pub(super) fn matching(&self, query: &CompiledQuery) -> Option<Matching> {
        if query.filters().is_none() {
            return Some(Matching::All);
        }
        let places: Box<[u32]> = (0..)
            .zip(self.batch.events())
            .filter(|(_, event)| query.matches_prepared(event))
            .map(|(place, _)| place)
            .collect();
        if places.len() == self.batch.len() {
            return Some(Matching::All);
        }
        (!places.is_empty()).then_some(Matching::Some(places))
    }

    pub(super) fn rows<'b>(&'b self, matching: &'b Matching) -> impl Iterator<Item = Row<'b>> {
        let (all, some): (Range<usize>, &[u32]) = match matching {
            Matching::All => (0..self.batch.len(), &[]),
            Matching::Some(places) => (0..0, places),
        };
        all.chain(some.iter().map(|&place| place as usize))
            .map(|place| {
                let event = self.batch.event(place);
                Row {
                    sequence_number: self.first + place as u64,
                    occurred_at: self.occurred_at,
                    event_type: event.event_type,
                    payload: event.payload,
                }
            })
    }
}

impl Matching {
    pub(super) fn len(&self, batch: &CommittedBatch) -> usize {
        match self {
            Self::All => batch.batch.len(),
            Self::Some(places) => places.len(),
        }
    }
}
