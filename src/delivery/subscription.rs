//! One stream: a position that its runner pulls along.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::chunk::Chunk;
use super::ending::backend_failed;
use super::engine::Delivery;
use super::page::BatchPage;
use super::ready::{Ready, Slot};
use super::source::BatchRequest;
use super::state::{Phase, State};
use super::{Wakes, lock};
use crate::contract::{
    EventStoreError, IfActive, RetryPolicy, StreamEnd, StreamEndReason, StreamHandlerError,
};
use crate::payload::CompiledQuery;

/// Batches of one page that is read back, at most.
const PAGE_BATCHES: usize = 4_096;

/// What a stream is to be.
pub(crate) struct Registration {
    pub(crate) query: CompiledQuery,
    /// `None`: a live stream.
    pub(crate) durable: Option<Durable>,
}

/// What makes a stream durable.
#[derive(Debug, Clone)]
pub(crate) struct Durable {
    pub(crate) name: String,
    pub(crate) retry: RetryPolicy,
    pub(crate) if_active: IfActive,
}

/// What a pull brings.
pub(crate) enum Pulled {
    Chunk(Chunk),
    Ended,
}

/// What to do after a handler has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on with the next batch.
    GoOn,
    /// Handle the same batch again, after a pause.
    RetryAfter(Duration),
    /// The stream ends.
    Stop,
}

/// A stream from its registration to its end.
pub(crate) struct Subscription {
    pub(super) id: u64,
    pub(super) delivery: Arc<Delivery>,
    pub(super) query: Arc<CompiledQuery>,
    pub(super) durable: Option<Durable>,
    pub(super) state: Mutex<State>,
}

impl Subscription {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn query(&self) -> &CompiledQuery {
        &self.query
    }

    /// Calls `done` once the registration is complete: a live stream has its place in the log, a
    /// durable one has caught up with the head as of its registration.
    pub(crate) fn registered_then(
        &self,
        done: impl FnOnce(Result<(), StreamEnd>) + Send + 'static,
    ) {
        let mut state = self.lock();
        let outcome = if state.registered {
            Ok(())
        } else if let (Phase::Closed, Some(end)) = (state.phase, &state.stop) {
            Err(end.clone().of_registration())
        } else {
            state.on_registered.push(Box::new(done));
            return;
        };
        drop(state);
        done(outcome);
    }

    /// Calls `done` once the stream has ended, its handler has settled and its cursor is stored.
    pub(crate) fn closed_then(&self, done: impl FnOnce(&StreamEnd) + Send + 'static) {
        let mut state = self.lock();
        if let (Phase::Closed, Some(end)) = (state.phase, &state.stop) {
            let end = end.clone();
            drop(state);
            done(&end);
        } else {
            state.on_closed.push(Box::new(done));
        }
    }

    /// The newest sequence number that the stream is done with, 0 before the first.
    pub(crate) fn position(&self) -> u64 {
        let hub = self.delivery.lock();
        let state = self.lock();
        let position = state.effective_position(hub.head);
        if state.start == Some(position) {
            0
        } else {
            position
        }
    }

    /// The newest sequence number that the store's streams know of.
    pub(crate) fn head(&self) -> u64 {
        self.delivery.lock().head
    }

    /// Asks for the next chunk: here it is, or `ready` will be called with it. One at a time.
    pub(crate) fn pull(
        self: &Arc<Self>,
        ready: impl FnOnce(Pulled) + Send + 'static,
    ) -> Option<Pulled> {
        let slot = Arc::new(Mutex::new(Slot::Asked));
        self.advance(Ready(slot.clone()));
        let mut slot = lock(&slot);
        if let Slot::Early(pulled) = std::mem::replace(&mut *slot, Slot::Answered) {
            return Some(pulled);
        }
        *slot = Slot::Waiting(Box::new(ready));
        None
    }

    /// Looks for the next chunk from `taken` on, until there is one or nothing is left to look at.
    pub(super) fn advance(self: &Arc<Self>, ready: Ready) {
        loop {
            let mut wakes = Wakes::default();
            let mut hub = self.delivery.lock();
            let budget = hub.chunk_bytes();
            let mut state = self.lock();
            if state.stop.is_some() {
                drop((state, hub));
                return ready.answer(Pulled::Ended);
            }
            if state.phase != Phase::Running {
                state.pull = Some(ready);
                return;
            }
            if state.taken >= hub.head {
                state.parked = true;
                state.pull = Some(ready);
                state.check_registered(hub.head, &mut wakes);
                drop((state, hub));
                return wakes.fire();
            }
            let after = state.taken;
            let Some(batches) = hub.ring.after(after) else {
                state.pull = Some(ready);
                let request = BatchRequest {
                    query: self.query.clone(),
                    after,
                    through: hub.head,
                    max_bytes: budget,
                    max_batches: PAGE_BATCHES,
                };
                drop((state, hub));
                let this = self.clone();
                let reply = Box::new(move |page| this.page_read(page));
                return self.delivery.source.read_batches(request, reply);
            };
            drop((state, hub));
            let (chunk, through) = Chunk::select(&self.query, batches, budget);
            hub = self.delivery.lock();
            let mut state = self.lock();
            if state.stop.is_some() {
                drop((state, hub));
                return ready.answer(Pulled::Ended);
            }
            state.took(through, chunk.is_some());
            state.check_registered(hub.head, &mut wakes);
            drop((state, hub));
            wakes.fire();
            if let Some(chunk) = chunk {
                return ready.answer(Pulled::Chunk(chunk));
            }
        }
    }

    fn page_read(self: &Arc<Self>, page: Result<BatchPage, EventStoreError>) {
        let mut wakes = Wakes::default();
        let hub = self.delivery.lock();
        let mut state = self.lock();
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                drop((state, hub));
                return self.stop(backend_failed(error));
            }
        };
        // Without a pull the stream has been stopped meanwhile.
        let Some(ready) = state.pull.take() else {
            return;
        };
        let through = page.scanned_through;
        let chunk = Chunk::of_page(page);
        state.took(through, chunk.is_some());
        state.check_registered(hub.head, &mut wakes);
        drop((state, hub));
        wakes.fire();
        match chunk {
            Some(chunk) => ready.answer(Pulled::Chunk(chunk)),
            None => self.advance(ready),
        }
    }

    /// To be asked before every handler call: `false` forbids it, the stream ends.
    pub(crate) fn enter(&self) -> bool {
        let mut state = self.lock();
        state.handling = state.is_active();
        state.handling
    }

    /// A handler call has succeeded with everything up to `position`. `false`: the stream ends.
    pub(crate) fn processed(self: &Arc<Self>, position: u64) -> bool {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        state.handling = false;
        if state.phase != Phase::Running {
            return false;
        }
        state.failures = 0;
        state.done_with(position);
        let goes_on = state.stop.is_none();
        let registered = state.registered;
        drop(state);
        if !registered {
            let hub = self.delivery.lock();
            self.lock().check_registered(hub.head, &mut wakes);
            drop(hub);
            wakes.fire();
        }
        if !goes_on {
            self.finish_stopped();
        }
        goes_on
    }

    /// A handler call has failed with what ends at `position`.
    pub(crate) fn failed(self: &Arc<Self>, position: u64, error: StreamHandlerError) -> Verdict {
        let mut state = self.lock();
        state.handling = false;
        if state.phase != Phase::Running {
            return Verdict::Stop;
        }
        if state.stop.is_some() {
            drop(state);
            self.finish_stopped();
            return Verdict::Stop;
        }
        let Some(Durable { name, retry, .. }) = &self.durable else {
            state.done_with(position);
            return Verdict::GoOn;
        };
        state.failures = state.failures.saturating_add(1);
        if retry
            .attempts
            .is_none_or(|attempts| state.failures < attempts.get())
        {
            let doubled = 1_u32.checked_shl(state.failures - 1).unwrap_or(u32::MAX);
            let delay = retry.initial_delay.saturating_mul(doubled);
            return Verdict::RetryAfter(delay.min(retry.max_delay));
        }
        drop(state);
        self.stop(StreamEnd {
            reason: StreamEndReason::HandlerFailed,
            error: Some(EventStoreError::StreamHandlerFailed {
                stream: name.clone(),
                source: error,
            }),
        });
        Verdict::Stop
    }
}
