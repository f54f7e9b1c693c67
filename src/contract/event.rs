use serde_json::Value;
use time::OffsetDateTime;

/// A fact to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// What kind of fact it is: 1 to 512 bytes of UTF-8.
    pub event_type: String,
    /// Any JSON value of at most 16 MiB of JSON text, nested at most 100 levels deep.
    pub payload: Value,
}

impl NewEvent {
    /// Makes an event of the given type and payload. Limits are checked when it is appended.
    pub fn new(event_type: impl Into<String>, payload: Value) -> Self {
        Self {
            event_type: event_type.into(),
            payload,
        }
    }
}

/// A stored fact.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRecord {
    /// The position in the store's one log: starts at 1, has no gaps, is never reused.
    pub sequence_number: u64,
    /// When the batch was committed, in UTC with microseconds, by the clock of the machine that
    /// wrote it. It never orders anything.
    pub occurred_at: OffsetDateTime,
    /// What kind of fact it is.
    pub event_type: String,
    /// The payload as it was appended.
    pub payload: Value,
}

/// What a query found, rows and context version from one snapshot.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueryResult {
    /// The matching events after the query's cursor, in ascending order.
    pub event_records: Vec<EventRecord>,
    /// The last returned row's sequence number.
    pub last_returned_sequence_number: Option<u64>,
    /// The newest match of the whole context, whatever the cursor and the limit: what
    /// [`append_if`](crate::EventStore::append_if) expects.
    pub current_context_version: Option<u64>,
}

/// The consecutive range that one append committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendResult {
    /// The first event's sequence number.
    pub first_sequence_number: u64,
    /// The last event's sequence number.
    pub last_sequence_number: u64,
    /// How many events were committed.
    pub committed_count: u64,
}
