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
const ENTRY_BYTES: u64 = 96;
/// What an event or a block usually has, as a first guess of how many there will be.
const USUAL_EVENT: u64 = 320;
const USUAL_BLOCK: u64 = 4_096;
/// A longer event is not kept: it would push out many.
const LONGEST: usize = 64 * 1024;

/// The events and blocks that a store keeps in memory.
#[derive(Debug)]
pub(super) struct Caches {
    events: Cache<u64, Arc<KeptEvent>, Weigh>,
    blocks: Cache<i64, Arc<[u8]>, Weigh>,
}

/// An event in memory.
#[derive(Debug)]
pub(super) struct KeptEvent {
    occurred_at: i64,
    /// Its type, and after so many bytes its payload.
    texts: Box<str>,
    type_length: usize,
}

impl KeptEvent {
    pub(super) fn row(&self, sequence_number: u64) -> Row<'_> {
        let (event_type, payload) = self.texts.split_at(self.type_length);
        Row {
            sequence_number,
            occurred_at: self.occurred_at,
            event_type,
            payload,
        }
    }
}

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<u64, Arc<KeptEvent>> for Weigh {
    fn weight(&self, _: &u64, event: &Arc<KeptEvent>) -> u64 {
        event.texts.len() as u64 + ENTRY_BYTES
    }
}

impl Weighter<i64, Arc<[u8]>> for Weigh {
    fn weight(&self, _: &i64, bytes: &Arc<[u8]>) -> u64 {
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
    pub(super) fn event(&self, sequence_number: u64) -> Option<Arc<KeptEvent>> {
        self.events.get(&sequence_number)
    }

    /// The event has to be committed.
    pub(super) fn keep_event(&self, row: &Row) {
        if row.event_type.len() + row.payload.len() > LONGEST {
            return;
        }
        let event = KeptEvent {
            occurred_at: row.occurred_at,
            texts: [row.event_type, row.payload].concat().into(),
            type_length: row.event_type.len(),
        };
        self.events.insert(row.sequence_number, Arc::new(event));
    }

    pub(super) fn block(&self, id: i64) -> Option<Arc<[u8]>> {
        self.blocks.get(&id)
    }

    /// The block has to be one of a live run.
    pub(super) fn keep_block(&self, id: i64, bytes: &Arc<[u8]>) {
        self.blocks.insert(id, bytes.clone());
    }
}
