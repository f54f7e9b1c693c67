//! What the streams of one store share.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::batch::CommittedBatch;
use super::chunk::Chunk;
use super::page::BatchPage;
use super::ring::{RING_BATCHES, RING_BYTES, Ring};
use super::source::{BatchRequest, LogSource, Reply};
use super::subscription::{Pulled, Subscription, store_closed};
use super::watch::Watch;
use super::{Wake, Wakes};
use crate::contract::{DurableStreamInfo, EventStoreError, StreamEnd};
use crate::payload::CompiledQuery;

/// Bytes of one chunk, by the number of streams: all together hold no more than `CHUNKS_BYTES`, as
/// long as their batches are small.
const LARGEST_CHUNK: usize = 256 * 1024;
const SMALLEST_CHUNK: usize = 16 * 1024;
const CHUNKS_BYTES: usize = 64 * 1024 * 1024;

/// The streams of one store.
pub(crate) struct Delivery {
    pub(super) source: Arc<dyn LogSource>,
    hub: Mutex<Hub>,
    everything: Arc<CompiledQuery>,
}

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
    /// What others have committed after `head` is being read, up to here.
    filling: Option<NonZeroU64>,
    /// Published meanwhile.
    ahead: Vec<CommittedBatch>,
    ahead_bytes: usize,
    /// The newest event that the store is known to have.
    observed: u64,
    /// Some stream has its place in the log. As long as none has, batches concern nobody.
    started: bool,
    closing: bool,
    /// Streams that are not closed yet.
    open: usize,
    on_closed: Vec<Wake>,
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
    fn deliver(&mut self, batch: CommittedBatch, wakes: &mut Wakes) {
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
    fn jump(&mut self, head: u64, wakes: &mut Wakes) {
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

    fn check_registered(&mut self, wakes: &mut Wakes) {
        let head = self.head;
        self.unregistered.retain(|stream| {
            let mut state = stream.lock();
            state.check_registered(head, wakes);
            !state.registered
        });
    }

    /// Takes a batch of the store's own writer.
    fn publish(&mut self, batch: CommittedBatch, wakes: &mut Wakes) {
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

    fn take_ahead(&mut self) -> Vec<CommittedBatch> {
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
    fn next_gap(&mut self) -> Option<(u64, u64)> {
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

impl Delivery {
    pub(crate) fn new(source: Arc<dyn LogSource>) -> Arc<Self> {
        Arc::new(Self {
            source,
            hub: Mutex::default(),
            everything: Arc::new(CompiledQuery::everything()),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the store has committed. To be called in the order of the commits.
    pub(crate) fn publish(
        self: &Arc<Self>,
        batches: impl IntoIterator<Item = CommittedBatch>,
    ) -> Wakes {
        let mut wakes = Wakes::default();
        let mut hub = self.lock();
        for batch in batches {
            hub.publish(batch, &mut wakes);
        }
        self.fill_gap(&mut hub, &mut wakes);
        wakes
    }

    /// The store has committed events up to `head`, here or elsewhere.
    pub(crate) fn observe(self: &Arc<Self>, head: u64) -> Wakes {
        let mut wakes = Wakes::default();
        let mut hub = self.lock();
        self.observe_locked(&mut hub, head, &mut wakes);
        wakes
    }

    pub(super) fn observe_locked(self: &Arc<Self>, hub: &mut Hub, head: u64, wakes: &mut Wakes) {
        hub.observed = hub.observed.max(head);
        self.fill_gap(hub, wakes);
    }

    /// Has the batches of others read once for all streams.
    fn fill_gap(self: &Arc<Self>, hub: &mut Hub, wakes: &mut Wakes) {
        if let Some((after, through)) = hub.next_gap() {
            let request = BatchRequest {
                query: self.everything.clone(),
                after,
                through,
                max_bytes: RING_BYTES / 4,
                max_batches: RING_BATCHES / 2,
            };
            let this = self.clone();
            wakes.push(move || {
                let reply = this.clone();
                let reply = Box::new(move |page| reply.gap_read(through, page));
                this.source.read_batches(request, reply);
            });
        }
    }

    fn gap_read(self: &Arc<Self>, through: u64, page: Result<BatchPage, EventStoreError>) {
        let mut wakes = Wakes::default();
        let mut hub = self.lock();
        hub.filling = None;
        match page {
            Ok(page) if page.scanned_through >= through => {
                for batch in page.into_committed() {
                    if batch.first == hub.head + 1 {
                        hub.deliver(batch, &mut wakes);
                    }
                }
            }
            // Too much at once; or those who read by themselves will see the error again.
            _ => {}
        }
        if hub.head < through {
            hub.jump(through, &mut wakes);
        }
        for batch in hub.take_ahead() {
            hub.publish(batch, &mut wakes);
        }
        hub.check_registered(&mut wakes);
        self.fill_gap(&mut hub, &mut wakes);
        drop(hub);
        wakes.fire();
    }

    /// Moves the cursors of streams that nothing concerns, when they have fallen far behind.
    pub(crate) fn touch_idle(&self) {
        const FAR: u64 = 1_024;
        let hub = self.lock();
        for stream in hub.watch.streams() {
            let mut state = stream.lock();
            if state.position + FAR <= hub.head {
                state.move_idle(hub.head);
            }
        }
    }

    /// Lists the durable streams, by name.
    pub(crate) fn list(self: &Arc<Self>, reply: Reply<Vec<DurableStreamInfo>>) {
        let this = self.clone();
        self.source.list(Box::new(move |listed| {
            reply(listed.map(|mut listed| {
                this.refresh(&mut listed);
                listed
            }));
        }));
    }

    /// A stream of this store may be further than its stored cursor.
    fn refresh(&self, listed: &mut [DurableStreamInfo]) {
        let hub = self.lock();
        for stream in hub.watch.streams() {
            let Some(durable) = &stream.durable else {
                continue;
            };
            let state = stream.lock();
            if state.lease.is_some()
                && let Ok(index) = listed.binary_search_by(|info| info.name.cmp(&durable.name))
            {
                let info = &mut listed[index];
                info.position = info.position.max(state.effective_position(hub.head));
                info.active = true;
            }
        }
    }

    pub(crate) fn reset(&self, name: &str, after: u64, reply: Reply<()>) {
        self.source.reset(name, after, reply);
    }

    pub(crate) fn delete(&self, name: &str, reply: Reply<()>) {
        self.source.delete(name, reply);
    }

    /// Takes no more streams and ends all; `done` is called once all are closed.
    pub(crate) fn close_then(self: &Arc<Self>, done: impl FnOnce() + Send + 'static) {
        self.end_all(Some(Box::new(done)), Subscription::stop);
    }

    /// Like [`close_then`](Self::close_then), without waiting for handlers.
    pub(crate) fn abandon(self: &Arc<Self>) {
        self.end_all(None, Subscription::abandon);
    }

    fn end_all(self: &Arc<Self>, done: Option<Wake>, end: fn(&Arc<Subscription>, StreamEnd)) {
        let mut hub = self.lock();
        hub.closing = true;
        let streams: Vec<Arc<Subscription>> = hub.watch.streams().cloned().collect();
        let done = match done {
            Some(done) if hub.open > 0 => {
                hub.on_closed.push(done);
                None
            }
            done => done,
        };
        drop(hub);
        for stream in streams {
            end(&stream, store_closed());
        }
        if let Some(done) = done {
            done();
        }
    }
}
