//! What a store has read lately, in memory, for all of its connections.
//!
//! Events never change once they are committed, nor do the blocks of a run, so nothing here is ever out
//! of date. `SQLite`'s own page caches don't do: they are a connection's, and whenever another one has
//! committed they are emptied.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::selection::Row;

/// Bytes of each kind that are kept at most.
const EVENTS_BYTES: u64 = 64 * 1024 * 1024;
const BLOCKS_BYTES: u64 = 16 * 1024 * 1024;
/// What an entry takes besides its bytes, roughly.
const ENTRY_BYTES: u64 = 64;
/// What an event or a block usually has, as a first guess of how many there will be.
const USUAL_EVENT: u64 = 320;
const USUAL_BLOCK: u64 = 4_096;
/// A longer event is not kept: it would push out many.
const LONGEST: usize = 64 * 1024;
/// Where an event's type begins: after its time and the length of its type.
const HEAD: usize = 10;

/// The events and blocks that a store keeps in memory.
#[derive(Debug)]
pub(super) struct Caches {
    events: Cache<u64, Arc<[u8]>, Weigh>,
    blocks: Cache<i64, Arc<[u8]>, Weigh>,
}

#[derive(Debug, Clone)]
struct Weigh;

impl<K> Weighter<K, Arc<[u8]>> for Weigh {
    fn weight(&self, _: &K, bytes: &Arc<[u8]>) -> u64 {
        bytes.len() as u64 + ENTRY_BYTES
    }
}

impl Default for Caches {
    fn default() -> Self {
        let events = (EVENTS_BYTES / USUAL_EVENT) as usize;
        let blocks = (BLOCKS_BYTES / USUAL_BLOCK) as usize;
        Self {
            events: Cache::with_weighter(events, EVENTS_BYTES, Weigh),
            blocks: Cache::with_weighter(blocks, BLOCKS_BYTES, Weigh),
        }
    }
}

impl Caches {
    pub(super) fn event(&self, sequence_number: u64) -> Option<KeptEvent> {
        let bytes = self.events.get(&sequence_number)?;
        Some(KeptEvent {
            sequence_number,
            bytes,
        })
    }

    /// The event has to be committed.
    pub(super) fn keep_event(&self, row: &Row) {
        let length = HEAD + row.event_type.len() + row.payload.len();
        let Ok(type_length) = u16::try_from(row.event_type.len()) else {
            return;
        };
        if length > LONGEST {
            return;
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&row.occurred_at.to_le_bytes());
        bytes.extend_from_slice(&type_length.to_le_bytes());
        bytes.extend_from_slice(row.event_type.as_bytes());
        bytes.extend_from_slice(row.payload.as_bytes());
        self.events.insert(row.sequence_number, bytes.into());
    }

    pub(super) fn block(&self, id: i64) -> Option<Arc<[u8]>> {
        self.blocks.get(&id)
    }

    /// The block has to be one of a live run.
    pub(super) fn keep_block(&self, id: i64, bytes: &Arc<[u8]>) {
        self.blocks.insert(id, bytes.clone());
    }
}

/// An event in memory.
pub(super) struct KeptEvent {
    sequence_number: u64,
    bytes: Arc<[u8]>,
}

impl KeptEvent {
    /// `None` can't be: the bytes were a row's.
    pub(super) fn row(&self) -> Option<Row<'_>> {
        let (occurred_at, rest) = self.bytes.split_first_chunk()?;
        let (type_length, texts) = rest.split_first_chunk()?;
        let texts = std::str::from_utf8(texts).ok()?;
        let type_length = usize::from(u16::from_le_bytes(*type_length));
        let (event_type, payload) = texts.split_at_checked(type_length)?;
        Some(Row {
            sequence_number: self.sequence_number,
            occurred_at: i64::from_le_bytes(*occurred_at),
            event_type,
            payload,
        })
    }
}
