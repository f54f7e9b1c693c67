use time::OffsetDateTime;

use super::Row;
use crate::contract::{EventRecord, EventStoreError};
use crate::payload::parse_value;

/// A page of a read is cut once it holds this much JSON text, so that neither side of a boundary is
/// busy with it for long. From 128 KiB on V8 maps a string's memory anew each time, which takes longer
/// than all copying.
pub(crate) const PAGE_BYTES: usize = 120 * 1024;

/// Takes the rows of a result in their order.
pub(crate) trait RowSink {
    fn push(&mut self, row: Row);

    /// How much JSON text it took.
    fn bytes(&self) -> usize;
}

/// Collects rows for the Rust API.
#[derive(Debug, Default)]
pub(crate) struct RecordSink {
    records: Vec<EventRecord>,
    bytes: usize,
    failure: Option<EventStoreError>,
}

impl RecordSink {
    pub(crate) fn into_records(self) -> Result<Vec<EventRecord>, EventStoreError> {
        self.failure.map_or(Ok(self.records), Err)
    }
}

impl RowSink for RecordSink {
    fn push(&mut self, row: Row) {
        self.bytes += row.payload.len();
        match parse_value(row.payload) {
            Ok(payload) => self.records.push(EventRecord {
                sequence_number: row.sequence_number,
                occurred_at: occurred_at_from_micros(row.occurred_at),
                event_type: row.event_type.to_owned(),
                payload,
            }),
            Err(error) => {
                let at = row.sequence_number;
                self.failure
                    .get_or_insert(EventStoreError::BackendFailure(format!(
                        "event {at}: its stored payload is no JSON: {error}"
                    )));
            }
        }
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The stored form of a time: microseconds since 1970, UTC.
pub(crate) fn occurred_at_from_micros(micros: i64) -> OffsetDateTime {
    // Every time that the stores write is in range; a damaged one must not panic.
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Now, in the stored form.
pub(crate) fn now_in_micros() -> i64 {
    (OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000) as i64
}
