use std::sync::{Arc, Mutex, MutexGuard};

use super::batch::CommittedBatch;
use super::ending::{backend_failed, store_closed};
use super::hub::Hub;
use super::page::BatchPage;
use super::ring::{RING_BATCHES, RING_BYTES};
use super::source::{BatchRequest, LogSource, Reply};
use super::subscription::Subscription;
use super::{Wake, Wakes, lock};
use crate::contract::{DurableStreamInfo, EventStoreError, StreamEnd};
use crate::payload::CompiledQuery;

/// The streams of one store.
pub(crate) struct Delivery {
    pub(super) source: Arc<dyn LogSource>,
    hub: Mutex<Hub>,
    everything: Arc<CompiledQuery>,
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
        lock(&self.hub)
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

    /// A stream of this store may be further than its stored cursor, and the head than it was when the
    /// cursors were read.
    fn refresh(&self, listed: &mut [DurableStreamInfo]) {
        let hub = self.lock();
        let head = Some(hub.head).filter(|&head| head > 0);
        for info in listed.iter_mut() {
            info.head_sequence_number = info.head_sequence_number.max(head);
        }
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

    /// Ends all streams, because the store can't be read any more.
    pub(crate) fn fail(&self, error: &EventStoreError) {
        let streams: Vec<Arc<Subscription>> = self.lock().watch.streams().cloned().collect();
        for stream in streams {
            stream.stop(backend_failed(error.clone()));
        }
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
