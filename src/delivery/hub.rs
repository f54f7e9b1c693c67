//! What the streams of one store share.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Weak};

use super::batch::CommittedBatch;
use super::chunk::Chunk;
use super::ring::{RING_BATCHES, RING_BYTES, Ring};
use super::subscription::{Pulled, Subscription};
use super::watch::Watch;
use super::{Wake, Wakes};
use crate::contract::EventStoreError;

/// Bytes of one chunk, by the number of streams: all together hold no more than `CHUNKS_BYTES`, as
/// long as their batches are small.
const LARGEST_CHUNK: usize = 256 * 1024;
const SMALLEST_CHUNK: usize = 16 * 1024;
const CHUNKS_BYTES: usize = 64 * 1024 * 1024;

/// The ordered tail and the streams on it.
#[derive(Default)]
pub(super) struct Hub {
    /// Everything up to here was published or observed; the end of a batch.
    pub(super) head: u64,
    pub(super) ring: Ring,
    /// Every stream that has not ended.
    pub(super) watch: Watch,
    /// Streams whose registration is not complete.
    pub(super) unregistered: Vec<Arc<Subscription>>,
    /// Standing by for a lease, by name.
    pub(super) waiting: HashMap<Arc<str>, Vec<Weak<Subscription>>>,
    /// Counts the durable streams that have ended.
    pub(super) releases: u64,
    /// What others have committed after `head` is being read, up to here.
    pub(super) filling: Option<NonZeroU64>,
    /// Published meanwhile.
    ahead: Vec<CommittedBatch>,
    ahead_bytes: usize,
    /// The newest event that the store is known to have.
    pub(super) observed: u64,
    /// Some stream has its place in the log. As long as none has, batches concern nobody.
    started: bool,
    pub(super) closing: bool,
    /// Streams that are not closed yet.
    pub(super) open: usize,
    pub(super) on_closed: Vec<Wake>,
    last_id: u64,
}

impl Hub {
    pub(super) fn chunk_bytes(&self) -> usize {
        (CHUNKS_BYTES / self.watch.len().max(1)).clamp(SMALLEST_CHUNK, LARGEST_CHUNK)
    }

    /// A new stream counts from its registration on.
    pub(super) fn admit(
        &mut self,
        make: impl FnOnce(u64) -> Arc<Subscription>,
    ) -> Result<Arc<Subscription>, EventStoreError> {
        if self.closing {
            return Err(EventStoreError::StoreClosed);
        }
        self.last_id += 1;
        let stream = make(self.last_id);
        self.watch.insert(self.last_id, stream.clone());
        self.unregistered.push(stream.clone());
        self.open += 1;
        Ok(stream)
    }

    /// A stream is closed.
    pub(super) fn forget(&mut self, stream: &Arc<Subscription>, wakes: &mut Wakes) {
        self.unregistered.retain(|other| other.id != stream.id);
        if let Some(durable) = &stream.durable {
            self.releases += 1;
            for heir in self
                .waiting
                .remove(durable.name.as_str())
                .unwrap_or_default()
            {
                if let Some(heir) = heir.upgrade() {
                    wakes.push(move || heir.take_over(None));
                }
            }
        }
        self.open -= 1;
        if self.watch.is_empty() {
            self.ring.clear();
            self.take_ahead();
            self.started = false;
        }
        if self.open == 0 && self.closing {
            for wake in self.on_closed.drain(..) {
                wakes.push(wake);
            }
        }
    }

    /// Puts a batch that follows the head into the ring, and gives it to the streams that wait.
    pub(super) fn deliver(&mut self, batch: CommittedBatch, wakes: &mut Wakes) {
        self.head = batch.last();
        let batch = Arc::new(batch);
        self.ring.push(batch.clone());
        for stream in self.watch.candidates(&batch) {
            let mut state = stream.lock();
            if !state.parked || batch.last() <= state.taken {
                continue;
            }
            let Some(matching) = batch.matching(&stream.query) else {
                continue;
            };
            if let Some(ready) = state.unpark(batch.last(), true) {
                let chunk = Chunk::of(batch.clone(), matching);
                wakes.push(move || ready.answer(Pulled::Chunk(chunk)));
            }
        }
        self.check_registered(wakes);
    }

    /// The head moves without its batches: streams read them by themselves.
    pub(super) fn jump(&mut self, head: u64, wakes: &mut Wakes) {
        self.ring.clear();
        self.head = self.head.max(head);
        for stream in self.watch.streams() {
            let mut state = stream.lock();
            if state.parked
                && state.taken < self.head
                && let Some(ready) = state.unpark(0, false)
            {
                let stream = stream.clone();
                wakes.push(move || stream.advance(ready));
            }
        }
    }

    pub(super) fn check_registered(&mut self, wakes: &mut Wakes) {
        let head = self.head;
        self.unregistered.retain(|stream| {
            let mut state = stream.lock();
            state.check_registered(head, wakes);
            !state.registered
        });
    }

    /// Takes a batch of the store's own writer.
    pub(super) fn publish(&mut self, batch: CommittedBatch, wakes: &mut Wakes) {
        if batch.last() <= self.head {
            return;
        }
        self.observed = self.observed.max(batch.last());
        if !self.started {
            self.head = batch.last();
        } else if self.ahead.is_empty() && batch.first == self.head + 1 {
            self.deliver(batch, wakes);
        } else {
            self.ahead_bytes += batch.weight();
            self.ahead.push(batch);
            if self.ahead.len() > RING_BATCHES || self.ahead_bytes > RING_BYTES {
                let through = self.ahead.last().map_or(self.head, CommittedBatch::last);
                self.take_ahead();
                self.jump(through, wakes);
            }
        }
    }

    pub(super) fn take_ahead(&mut self) -> Vec<CommittedBatch> {
        self.ahead_bytes = 0;
        std::mem::take(&mut self.ahead)
    }

    /// A stream gets its place. What was committed before the first one is read back if needed.
    pub(super) fn start(&mut self, head: u64) {
        if !self.started {
            self.started = true;
            self.head = self.head.max(head);
            self.observed = self.observed.max(self.head);
        }
    }

    /// Tells what to read next to close the gap between the head and what is known beyond it.
    pub(super) fn next_gap(&mut self) -> Option<(u64, u64)> {
        let through = self
            .ahead
            .first()
            .map_or(self.observed, |batch| batch.first - 1);
        if self.filling.is_some() || !self.started || through <= self.head {
            return None;
        }
        self.filling = NonZeroU64::new(through);
        Some((self.head, through))
    }
}
