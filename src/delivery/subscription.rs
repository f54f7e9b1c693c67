//! One stream: a position that its runner pulls along.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::chunk::Chunk;
use super::hub::{Delivery, Hub};
use super::page::BatchPage;
use super::source::{BatchRequest, Lease};
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

pub(super) type Registered = Box<dyn FnOnce(Result<(), StreamEnd>) + Send>;
pub(super) type Closed = Box<dyn FnOnce(&StreamEnd) + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its place in the log, or its lease, is being asked for.
    Opening,
    /// Its lease is held by somebody else.
    StandingBy,
    Running,
    /// Its last cursor is being stored.
    Closing,
    Closed,
}

/// Positions are ends of batches: `position <= handed <= taken`.
pub(super) struct State {
    pub(super) phase: Phase,
    /// Why it ends; from then on no handler call starts.
    pub(super) stop: Option<StreamEnd>,
    pub(super) lease: Option<Arc<dyn Lease>>,
    /// Where a live stream began.
    pub(super) start: Option<u64>,
    /// Done with, up to here.
    pub(super) position: u64,
    /// The last batch of the chunks given out; the stream is idle if it is done with that.
    pub(super) handed: u64,
    /// Looked at, up to here.
    pub(super) taken: u64,
    /// The registration is complete when the stream is done with this.
    pub(super) target: u64,
    pub(super) registered: bool,
    /// The pull under way.
    pub(super) pull: Option<Ready>,
    /// The pull waits for a batch to be committed: nothing from `taken` to the head matches.
    pub(super) parked: bool,
    /// A handler call is under way.
    pub(super) handling: bool,
    /// Failed calls for the same batch.
    pub(super) failures: u32,
    pub(super) on_registered: Vec<Registered>,
    pub(super) on_closed: Vec<Closed>,
    /// Counts the times that it stood by, so that an old alarm is told from a new one.
    pub(super) round: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Opening,
            stop: None,
            lease: None,
            start: None,
            position: 0,
            handed: 0,
            taken: 0,
            target: 0,
            registered: false,
            pull: None,
            parked: false,
            handling: false,
            failures: 0,
            on_registered: Vec::new(),
            on_closed: Vec::new(),
            round: 0,
        }
    }

    fn is_idle(&self) -> bool {
        self.position == self.handed
    }

    /// Where the stream is, given the store's head.
    pub(super) fn effective_position(&self, head: u64) -> u64 {
        if self.parked && self.is_idle() {
            self.position.max(head)
        } else {
            self.position
        }
    }

    fn is_active(&self) -> bool {
        self.phase == Phase::Running && self.stop.is_none()
    }

    /// Up to `through` everything has been looked at, and nothing else than a chunk that ends there,
    /// if there is one, was found.
    fn took(&mut self, through: u64, found: bool) {
        self.taken = self.taken.max(through);
        if found {
            self.handed = self.taken;
        } else if self.is_idle() {
            self.done_with(self.taken);
        }
    }

    fn done_with(&mut self, position: u64) {
        if position <= self.position {
            return;
        }
        self.position = position;
        if position >= self.handed {
            // What follows the chunk, as far as it has been looked at, does not match.
            self.position = self.taken;
            self.handed = self.taken;
        }
        if let Some(lease) = &self.lease {
            lease.moved(self.position);
        }
    }

    /// Ends the wait of a parked pull. `through`: everything up to here has been looked at.
    pub(super) fn unpark(&mut self, through: u64, found: bool) -> Option<Ready> {
        self.parked = false;
        self.took(through, found);
        self.pull.take()
    }

    /// Moves a stream that waits on to the head: nothing before that matches.
    pub(super) fn move_idle(&mut self, head: u64) {
        if self.parked && self.is_idle() {
            self.took(head, false);
        }
    }

    pub(super) fn check_registered(&mut self, head: u64, wakes: &mut Wakes) {
        if self.registered || !self.is_active() || self.effective_position(head) < self.target {
            return;
        }
        self.registered = true;
        for callback in self.on_registered.drain(..) {
            wakes.push(move || callback(Ok(())));
        }
    }
}

impl Subscription {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn query(&self) -> &CompiledQuery {
        &self.query
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durable.is_some()
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

    /// Ends the stream: no handler call starts any more.
    pub(crate) fn unsubscribe(self: &Arc<Self>) {
        self.stop(StreamEnd {
            reason: StreamEndReason::Unsubscribed,
            error: None,
        });
    }

    /// Ends the stream; the first reason counts.
    pub(super) fn stop(self: &Arc<Self>, end: StreamEnd) {
        self.end(end, false);
    }

    /// Ends the stream although a handler call may be under way, which will never report.
    pub(super) fn abandon(self: &Arc<Self>, end: StreamEnd) {
        self.end(end, true);
    }

    fn end(self: &Arc<Self>, end: StreamEnd, abandoned: bool) {
        let mut wakes = Wakes::default();
        let mut hub = self.delivery.lock();
        let mut state = self.lock();
        if state.stop.is_none() {
            state.stop = Some(end);
            state.move_idle(hub.head);
            state.parked = false;
            if let Some(ready) = state.pull.take() {
                wakes.push(move || ready.answer(Pulled::Ended));
            }
        }
        if abandoned {
            state.handling = false;
        }
        self.finish_if_settled(&mut hub, &mut state, &mut wakes);
        drop((state, hub));
        wakes.fire();
    }

    fn finish_stopped(self: &Arc<Self>) {
        let mut wakes = Wakes::default();
        let mut hub = self.delivery.lock();
        let mut state = self.lock();
        self.finish_if_settled(&mut hub, &mut state, &mut wakes);
        drop((state, hub));
        wakes.fire();
    }

    /// Gives the lease back once no handler call and no question to the store is under way.
    pub(super) fn finish_if_settled(
        self: &Arc<Self>,
        hub: &mut Hub,
        state: &mut State,
        wakes: &mut Wakes,
    ) {
        let settled = matches!(state.phase, Phase::Running | Phase::StandingBy) && !state.handling;
        if !settled || state.stop.is_none() {
            return;
        }
        state.phase = Phase::Closing;
        hub.watch.remove(self.id);
        let this = self.clone();
        match state.lease.take() {
            Some(lease) => {
                let position = state.position;
                wakes.push(move || {
                    lease.release(position, Box::new(move |released| this.closed(released)));
                });
            }
            None => wakes.push(move || this.closed(Ok(()))),
        }
    }

    /// The stream has ended, and nothing of it is left behind.
    fn closed(self: &Arc<Self>, released: Result<(), EventStoreError>) {
        let mut wakes = Wakes::default();
        let mut hub = self.delivery.lock();
        let mut state = self.lock();
        state.phase = Phase::Closed;
        if let Err(error) = released
            && let Some(end) = &mut state.stop
            && matches!(
                end.reason,
                StreamEndReason::Unsubscribed | StreamEndReason::StoreClosed
            )
        {
            // The cursor could not be stored: batches will repeat.
            *end = backend_failed(error);
        }
        if let Some(end) = state.stop.clone() {
            let registered = std::mem::take(&mut state.on_registered);
            let closed = std::mem::take(&mut state.on_closed);
            wakes.push(move || {
                for callback in registered {
                    callback(Err(end.clone().of_registration()));
                }
                for callback in closed {
                    callback(&end);
                }
            });
        }
        drop(state);
        hub.forget(self, &mut wakes);
        drop(hub);
        self.delivery.source.stream_closed();
        wakes.fire();
    }
}

impl StreamEnd {
    /// The end of a stream whose registration was not complete.
    fn of_registration(mut self) -> Self {
        if self.reason == StreamEndReason::StoreClosed {
            self.error.get_or_insert(EventStoreError::StoreClosed);
        }
        self
    }
}

pub(super) fn backend_failed(error: EventStoreError) -> StreamEnd {
    // A store that is closed may refuse a question before it ends its streams.
    if error == EventStoreError::StoreClosed {
        return store_closed();
    }
    StreamEnd {
        reason: StreamEndReason::BackendFailed,
        error: Some(error),
    }
}

pub(super) fn store_closed() -> StreamEnd {
    StreamEnd {
        reason: StreamEndReason::StoreClosed,
        error: None,
    }
}

/// The one who waits for a pull.
pub(super) struct Ready(Arc<Mutex<Slot>>);

enum Slot {
    Asked,
    /// Answered before the pull returned.
    Early(Pulled),
    Waiting(Box<dyn FnOnce(Pulled) + Send>),
    Answered,
}

impl Ready {
    pub(super) fn answer(self, pulled: Pulled) {
        let mut slot = lock(&self.0);
        match std::mem::replace(&mut *slot, Slot::Answered) {
            Slot::Waiting(ready) => {
                drop(slot);
                ready(pulled);
            }
            _ => *slot = Slot::Early(pulled),
        }
    }
}
