use std::sync::Arc;

use super::batch::{CommittedBatch, Matching};
use super::page::{BatchPage, StoredBatch, StoredRows};
use crate::payload::CompiledQuery;
use crate::selection::Row;

/// Consecutive batches for one stream, at least one, the events in them that match.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    batches: Vec<Content>,
    /// What the batches that were read back consist of.
    stored: StoredRows,
    bytes: usize,
    /// Up to here nothing else matches.
    through: u64,
}

#[derive(Debug)]
enum Content {
    /// Shared with the ring and with other streams.
    Committed(Arc<CommittedBatch>, Matching),
    Stored(StoredBatch),
}

/// One batch of a [`Chunk`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeliveredBatch<'c> {
    chunk: &'c Chunk,
    index: usize,
}

impl Chunk {
    /// Takes what matches from consecutive committed batches, until `budget` bytes are reached;
    /// `None` if nothing matches. Either way tells how far it looked.
    pub(super) fn select(
        query: &CompiledQuery,
        batches: Vec<Arc<CommittedBatch>>,
        budget: usize,
    ) -> (Option<Self>, u64) {
        let mut chunk = Self::default();
        for batch in batches {
            if chunk.bytes >= budget {
                break;
            }
            let last = batch.last();
            if let Some(matching) = batch.matching(query) {
                chunk.bytes += batch
                    .rows(&matching)
                    .map(|row| row.event_type.len() + row.payload.len())
                    .sum::<usize>();
                chunk.batches.push(Content::Committed(batch, matching));
            }
            chunk.through = last;
        }
        let through = chunk.through;
        (
            Some(chunk).filter(|chunk| !chunk.batches.is_empty()),
            through,
        )
    }

    /// One batch of which something matches.
    pub(super) fn of(batch: Arc<CommittedBatch>, matching: Matching) -> Self {
        Self {
            through: batch.last(),
            bytes: batch.weight(),
            batches: vec![Content::Committed(batch, matching)],
            stored: StoredRows::default(),
        }
    }

    /// The batches of a page, `None` if it has none.
    pub(super) fn of_page(page: BatchPage) -> Option<Self> {
        let BatchPage {
            rows,
            batches,
            scanned_through,
        } = page;
        (!batches.is_empty()).then(|| Self {
            batches: batches.into_iter().map(Content::Stored).collect(),
            bytes: rows.bytes(),
            stored: rows,
            through: scanned_through,
        })
    }

    pub(crate) fn batches(&self) -> impl Iterator<Item = DeliveredBatch<'_>> {
        (0..self.batches.len()).map(|index| DeliveredBatch { chunk: self, index })
    }

    /// About how much text it has.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<'c> DeliveredBatch<'c> {
    /// The matching events in their order.
    pub(crate) fn rows(self) -> impl Iterator<Item = Row<'c>> {
        let (committed, stored) = match &self.chunk.batches[self.index] {
            Content::Committed(batch, matching) => (Some(batch.rows(matching)), None),
            Content::Stored(batch) => (None, Some(self.chunk.stored.rows(batch))),
        };
        let committed = committed.into_iter().flatten();
        committed.chain(stored.into_iter().flatten())
    }

    /// How many events match.
    pub(crate) fn len(self) -> usize {
        match &self.chunk.batches[self.index] {
            Content::Committed(batch, matching) => matching.len(batch),
            Content::Stored(batch) => batch.len(),
        }
    }

    /// Where the stream is once it is done with this batch: at its end, or beyond if what follows
    /// does not match.
    pub(crate) fn position(self) -> u64 {
        if self.index + 1 == self.chunk.batches.len() {
            return self.chunk.through;
        }
        match &self.chunk.batches[self.index] {
            Content::Committed(batch, _) => batch.last(),
            Content::Stored(batch) => batch.last,
        }
    }
}
