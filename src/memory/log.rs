use std::ops::ControlFlow;

use crate::contract::{AppendResult, EventStoreError};
use crate::index::{Cursor, FacetMap};
use crate::payload::{CompiledQuery, PreparedBatch};
use crate::selection::{Row, Snapshot, Span, walk};

/// Events are kept in chunks of this many, so that growing never moves them.
const CHUNK: usize = 4_096;
/// Tables of the facet map: at 1,000,000 events of ten facets each has some 40,000 entries.
const SHARDS: usize = 256;

/// The events and their postings.
#[derive(Debug)]
pub(crate) struct Log {
    chunks: Vec<Vec<StoredEvent>>,
    facets: FacetMap,
    /// The first and the last event of each batch of more than one.
    batches: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct StoredEvent {
    occurred_at: i64,
    event_type_bytes: usize,
    /// Type and payload.
    text: Box<str>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            facets: FacetMap::new(SHARDS),
            batches: Vec::new(),
        }
    }
}

impl Log {
    pub(super) fn len(&self) -> u64 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        (full + self.chunks.last().map_or(0, Vec::len)) as u64
    }

    pub(super) fn append(&mut self, batch: &PreparedBatch, occurred_at: i64) -> AppendResult {
        let before = self.len();
        for (event, sequence_number) in batch.events().zip(before + 1..) {
            if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
                self.chunks.push(Vec::with_capacity(CHUNK));
            }
            if let Some(chunk) = self.chunks.last_mut() {
                let text = [event.event_type, event.payload].concat().into_boxed_str();
                let event_type_bytes = event.event_type.len();
                chunk.push(StoredEvent {
                    occurred_at,
                    event_type_bytes,
                    text,
                });
            }
            self.facets.push(sequence_number, event.facets);
        }
        if batch.len() > 1 {
            self.batches.push((before + 1, self.len()));
        }
        AppendResult {
            first_sequence_number: before + 1,
            last_sequence_number: self.len(),
            committed_count: batch.len() as u64,
        }
    }

    /// The first and the last event of the batch that an event belongs to.
    pub(super) fn batch(&self, sequence_number: u64) -> (u64, u64) {
        let index = self
            .batches
            .partition_point(|&(_, last)| last < sequence_number);
        self.batches
            .get(index)
            .copied()
            .filter(|&(first, _)| first <= sequence_number)
            .unwrap_or((sequence_number, sequence_number))
    }

    fn row(&self, sequence_number: u64) -> Option<Row<'_>> {
        let index = sequence_number.checked_sub(1)? as usize;
        let event = self.chunks.get(index / CHUNK)?.get(index % CHUNK)?;
        let (event_type, payload) = event.text.split_at(event.event_type_bytes);
        Some(Row {
            sequence_number,
            occurred_at: event.occurred_at,
            event_type,
            payload,
        })
    }
}

impl Snapshot for &Log {
    fn head(&self) -> u64 {
        self.len()
    }

    fn visit(
        &mut self,
        query: &CompiledQuery,
        span: Span,
        visitor: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<(), EventStoreError> {
        let span = Span {
            through: span.through.min(self.len()),
            ..span
        };
        let Ok(mut cursor) = Cursor::open(&&self.facets, query);
        let Ok(_) = walk::<_, std::convert::Infallible>(&mut cursor, span, |candidate| {
            let matching = self
                .row(candidate)
                .filter(|row| query.matches(row.event_type, row.payload));
            Ok(matching.map_or(ControlFlow::Continue(()), &mut *visitor))
        });
        Ok(())
    }
}
