//! Whole batches, read back from a store.

use std::ops::{ControlFlow, Range};

use super::batch::CommittedBatch;
use super::source::BatchRequest;
use crate::contract::EventStoreError;
use crate::payload::PreparedBatch;
use crate::selection::{Row, Snapshot, Span};

/// The matching events of consecutive batches.
#[derive(Debug, Default)]
pub(crate) struct BatchPage {
    pub(super) rows: StoredRows,
    /// Ascending; each has a match.
    pub(super) batches: Vec<StoredBatch>,
    /// The end of a batch; up to here nothing else matches.
    pub(super) scanned_through: u64,
}

/// A batch of a page.
#[derive(Debug)]
pub(super) struct StoredBatch {
    rows: Range<usize>,
    /// The last event of the whole batch.
    pub(super) last: u64,
}

impl StoredBatch {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Rows in one buffer.
#[derive(Debug, Default)]
pub(super) struct StoredRows {
    /// Type and payload of each row, one after the other.
    text: String,
    rows: Vec<StoredRow>,
}

#[derive(Debug)]
struct StoredRow {
    sequence_number: u64,
    occurred_at: i64,
    event_type_end: usize,
    payload_end: usize,
}

impl StoredRows {
    fn push(&mut self, row: Row) {
        self.text.push_str(row.event_type);
        let event_type_end = self.text.len();
        self.text.push_str(row.payload);
        self.rows.push(StoredRow {
            sequence_number: row.sequence_number,
            occurred_at: row.occurred_at,
            event_type_end,
            payload_end: self.text.len(),
        });
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn rows(&self, batch: &StoredBatch) -> impl Iterator<Item = Row<'_>> {
        batch.rows.clone().map(|index| {
            let start = index
                .checked_sub(1)
                .map_or(0, |before| self.rows[before].payload_end);
            let row = &self.rows[index];
            Row {
                sequence_number: row.sequence_number,
                occurred_at: row.occurred_at,
                event_type: &self.text[start..row.event_type_end],
                payload: &self.text[row.event_type_end..row.payload_end],
            }
        })
    }
}

/// Tells where batches begin and end.
pub(crate) trait Borders {
    /// The first and the last event of the batch that an event belongs to.
    fn batch_of(&mut self, sequence_number: u64) -> Result<(u64, u64), EventStoreError>;
}

/// Reads one page from a snapshot that reaches at least to `request.through`.
pub(crate) fn read_page(
    snapshot: &mut impl Snapshot,
    borders: &mut impl Borders,
    request: &BatchRequest,
) -> Result<BatchPage, EventStoreError> {
    let mut page = BatchPage {
        scanned_through: request.through,
        ..BatchPage::default()
    };
    let span = Span {
        after: request.after,
        through: request.through,
        backwards: false,
    };
    let mut failure = None;
    snapshot.visit(&request.query, span, &mut |row| {
        if page
            .batches
            .last()
            .is_none_or(|batch| row.sequence_number > batch.last)
        {
            let (first, last) = match borders.batch_of(row.sequence_number) {
                Ok(borders) => borders,
                Err(error) => {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            };
            if page.rows.bytes() >= request.max_bytes || page.batches.len() >= request.max_batches {
                page.scanned_through = first - 1;
                return ControlFlow::Break(());
            }
            let start = page.rows.rows.len();
            page.batches.push(StoredBatch {
                rows: start..start,
                last,
            });
        }
        page.rows.push(row);
        if let Some(batch) = page.batches.last_mut() {
            batch.rows.end += 1;
        }
        ControlFlow::Continue(())
    })?;
    failure.map_or(Ok(page), Err)
}

impl BatchPage {
    /// The batches as they were committed; the page must have been read without filters.
    pub(super) fn into_committed(self) -> impl Iterator<Item = CommittedBatch> {
        let Self { rows, batches, .. } = self;
        batches.into_iter().filter_map(move |batch| {
            let (first, occurred_at) = rows
                .rows(&batch)
                .next()
                .map(|row| (row.sequence_number, row.occurred_at))?;
            let events = rows.rows(&batch).map(|row| (row.event_type, row.payload));
            Some(CommittedBatch {
                first,
                occurred_at,
                batch: PreparedBatch::stored(events),
            })
        })
    }
}
