//! `UmaDB` and tephra, stores of the DCB community, behind the trait that this program measures by. Each event has as
//! tags what the workloads ask for, and each question is one of tags and types.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use factstr::{
    AppendResult, DurableStream, EventFilter, EventQuery, EventRecord, EventStore, EventStoreError,
    EventStream, HandleStream, NewEvent, QueryResult,
};
use serde_json::Value;
use tephra::{
    AppendCondition, AppendError, Event, EventType, Position, Query, QueryItem, SegmentConfig,
    SegmentSet, Tag, Tags, WriteCoordinator, WriteHandle, WriterConfig,
};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use umadb_core::db::UmaDb;
use umadb_core::mvcc::{Mvcc, StorageOptions};
use umadb_core::writer_thread_blocking::writer_thread_blocking;
use umadb_core::writer_thread_request::WriterThreadRequest;
use umadb_dcb::{
    DcbAppendCondition, DcbError, DcbEvent, DcbEventStoreSync, DcbQuery, DcbQueryItem,
};

use crate::{Outcome, Store};

type Done<T> = Result<T, EventStoreError>;

/// A context, and what its version has to be.
type Condition<'c> = Option<(&'c EventQuery, Option<u64>)>;

/// A store of the DCB community, as far as it is measured.
trait Dcb {
    fn read(&self, query: &EventQuery) -> Done<QueryResult>;
    fn write(&self, events: &[NewEvent], condition: Condition) -> Done<AppendResult>;
}

/// The fields of payloads that are asked for, and so have to be tags.
const ASKED_FOR: [&str; 3] = ["item_id", "course_id", "student_id"];

/// Of `UmaDB`'s server (umadb-server 0.7.8, `APPEND_BATCH_MAX_EVENTS`).
const UMADB_BATCH: usize = 2048;
/// Of tephra's own example.
const TEPHRA_SEGMENT: usize = 256 * 1024 * 1024;

pub(crate) fn umadb(path: &str) -> Outcome<Store> {
    let options = StorageOptions::default().db_path(Path::new(path));
    let mvcc = Mvcc::new(false, options).map_err(|error| error.to_string())?;
    let mvcc = Arc::new(mvcc);
    let (requests, received) = mpsc::channel(UMADB_BATCH);
    let (heads, _) = watch::channel(None);
    let of_writer = Arc::clone(&mvcc);
    thread::spawn(move || writer_thread_blocking(of_writer, received, heads, UMADB_BATCH));
    let reader = UmaDb::from_arc(mvcc);
    Ok(Box::new(Measured(UmaStore { reader, requests })))
}

pub(crate) fn tephra(path: &str) -> Outcome<Store> {
    let set = SegmentSet::open(path, SegmentConfig::new(TEPHRA_SEGMENT))
        .map_err(|error| error.to_string())?;
    let (owner, handle) =
        WriteCoordinator::start(set, WriterConfig::default()).map_err(|error| error.to_string())?;
    Ok(Box::new(Measured(Tephra {
        _owner: owner,
        handle,
    })))
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes it so")]
fn failed(error: impl ToString) -> EventStoreError {
    let message = error.to_string();
    EventStoreError::BackendFailure { message }
}

/// The text, and the tags: `item_id:item-1`.
fn told(event: &NewEvent) -> (Vec<u8>, Vec<String>) {
    (
        event.payload.to_string().into_bytes(),
        tags_of(&event.payload),
    )
}

fn tags_of(payload: &Value) -> Vec<String> {
    let tag = |&key: &&str| Some(format!("{key}:{}", payload.get(key)?.as_str()?));
    ASKED_FOR.iter().filter_map(tag).collect()
}

/// Types and tags of a filter, which has one predicate.
fn parts(filter: &EventFilter) -> (Vec<String>, Vec<String>) {
    let types = filter.event_types.clone().unwrap_or_default();
    let predicates = filter.payload_predicates.iter().flatten();
    (types, predicates.flat_map(tags_of).collect())
}

fn filters(query: &EventQuery) -> impl Iterator<Item = (Vec<String>, Vec<String>)> {
    query.filters.iter().flatten().map(parts)
}

fn record(position: u64, event_type: &str, data: &[u8]) -> Done<EventRecord> {
    Ok(EventRecord {
        sequence_number: position,
        // Neither keeps one.
        occurred_at: OffsetDateTime::UNIX_EPOCH,
        event_type: event_type.to_owned(),
        payload: serde_json::from_slice(data).map_err(failed)?,
    })
}

/// `head` is what the condition is checked after: as of then the context is known.
fn result(event_records: Vec<EventRecord>, head: Option<u64>) -> QueryResult {
    QueryResult {
        last_returned_sequence_number: event_records.last().map(|last| last.sequence_number),
        event_records,
        current_context_version: head,
    }
}

fn appended(last: u64, count: usize) -> AppendResult {
    AppendResult {
        first_sequence_number: last + 1 - count as u64,
        last_sequence_number: last,
        committed_count: count as u64,
    }
}

fn conflict(expected: Option<u64>) -> EventStoreError {
    let actual = None;
    EventStoreError::ConditionalAppendConflict { expected, actual }
}

/// Its engine and the thread that writes for its server, without the server.
struct UmaStore {
    reader: UmaDb,
    requests: mpsc::Sender<WriterThreadRequest>,
}

fn uma_event(event: &NewEvent) -> DcbEvent {
    let (data, tags) = told(event);
    DcbEvent {
        event_type: event.event_type.clone(),
        tags,
        data,
        uuid: None,
        metadata: Vec::new(),
    }
}

fn uma_query(query: &EventQuery) -> DcbQuery {
    let items = filters(query).map(|(types, tags)| DcbQueryItem { types, tags });
    DcbQuery {
        items: items.collect(),
    }
}

impl Dcb for UmaStore {
    fn read(&self, query: &EventQuery) -> Done<QueryResult> {
        let (events, head) = self
            .reader
            .read_with_head(Some(uma_query(query)), None, false, None)
            .map_err(failed)?;
        let records = events
            .iter()
            .map(|found| record(found.position, &found.event.event_type, &found.event.data));
        Ok(result(records.collect::<Done<_>>()?, head))
    }

    fn write(&self, events: &[NewEvent], condition: Condition) -> Done<AppendResult> {
        let after = condition.and_then(|(_, after)| after);
        let condition = condition.map(|(query, after)| DcbAppendCondition {
            fail_if_events_match: uma_query(query),
            after,
        });
        let (response_tx, response) = oneshot::channel();
        let request = WriterThreadRequest::Append {
            events: events.iter().map(uma_event).collect(),
            condition,
            tracking_info: None,
            response_tx,
            cancel: None,
        };
        self.requests.blocking_send(request).map_err(failed)?;
        match response.blocking_recv().map_err(failed)? {
            Ok(last) => Ok(appended(last, events.len())),
            Err(DcbError::IntegrityError(_)) => Err(conflict(after)),
            Err(error) => Err(failed(error)),
        }
    }
}

struct Tephra {
    _owner: WriteCoordinator,
    handle: WriteHandle,
}

fn tephra_tags(tags: Vec<String>) -> Done<Tags> {
    let tags: Result<Vec<_>, _> = tags.into_iter().map(Tag::new).collect();
    Tags::new(tags.map_err(failed)?).map_err(failed)
}

fn tephra_event(event: &NewEvent) -> Done<Event> {
    let (data, tags) = told(event);
    let event_type = EventType::new(event.event_type.as_str()).map_err(failed)?;
    Event::new(&event_type, &tephra_tags(tags)?, &data).map_err(failed)
}

fn tephra_query(query: &EventQuery) -> Done<Query> {
    let items = filters(query).map(|(types, tags)| {
        let types: Result<Vec<_>, _> = types.into_iter().map(EventType::new).collect();
        Ok(QueryItem::new(types.map_err(failed)?, tephra_tags(tags)?))
    });
    Ok(Query::items(items.collect::<Done<Vec<_>>>()?))
}

impl Dcb for Tephra {
    fn read(&self, query: &EventQuery) -> Done<QueryResult> {
        let mut found = self
            .handle
            .read(&tephra_query(query)?, Position::ZERO, None);
        let head = found.watermark().get();
        let mut records = Vec::new();
        while let Some(next) = found.next() {
            let next = next.map_err(failed)?;
            let position = next.position.get();
            records.push(record(
                position,
                next.event.event_type(),
                next.event.data(),
            )?);
        }
        Ok(result(records, Some(head)))
    }

    fn write(&self, events: &[NewEvent], condition: Condition) -> Done<AppendResult> {
        let encoded: Done<Vec<_>> = events.iter().map(tephra_event).collect();
        let after = condition.and_then(|(_, after)| after);
        let condition = match condition {
            None => None,
            Some((query, after)) => Some(
                AppendCondition::new(tephra_query(query)?).after(Position::new(after.unwrap_or(0))),
            ),
        };
        match self.handle.append(encoded?, condition) {
            Ok(range) => Ok(appended(range.last.get(), events.len())),
            Err(AppendError::Conflict { .. }) => Err(conflict(after)),
            Err(error) => Err(failed(error)),
        }
    }
}

/// As this program measures it.
struct Measured<D>(D);

impl<D: Dcb> EventStore for Measured<D> {
    fn query(&self, event_query: &EventQuery) -> Done<QueryResult> {
        self.0.read(event_query)
    }

    fn append(&self, new_events: Vec<NewEvent>) -> Done<AppendResult> {
        self.0.write(&new_events, None)
    }

    fn append_if(
        &self,
        new_events: Vec<NewEvent>,
        context_query: &EventQuery,
        expected_context_version: Option<u64>,
    ) -> Done<AppendResult> {
        self.0
            .write(&new_events, Some((context_query, expected_context_version)))
    }

    fn stream_all(&self, _: HandleStream) -> Done<EventStream> {
        Err(not_measured())
    }

    fn stream_to(&self, _: &EventQuery, _: HandleStream) -> Done<EventStream> {
        Err(not_measured())
    }

    fn stream_all_durable(&self, _: &DurableStream, _: HandleStream) -> Done<EventStream> {
        Err(not_measured())
    }

    fn stream_to_durable(
        &self,
        _: &DurableStream,
        _: &EventQuery,
        _: HandleStream,
    ) -> Done<EventStream> {
        Err(not_measured())
    }
}

fn not_measured() -> EventStoreError {
    failed("streams are not measured")
}
