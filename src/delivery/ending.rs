//! How a stream ends: no handler call starts any more, the one under way settles, the cursor is stored.

use std::sync::Arc;

use super::Wakes;
use super::hub::Hub;
use super::state::{Phase, State};
use super::subscription::{Pulled, Subscription};
use crate::contract::{EventStoreError, StreamEnd, StreamEndReason};

impl Subscription {
    /// Ends the stream: no handler call starts any more.
    pub(crate) fn unsubscribe(self: &Arc<Self>) {
        self.stop(StreamEnd {
            reason: StreamEndReason::Unsubscribed,
            error: None,
        });
    }

    /// Like [`unsubscribe`](Self::unsubscribe), and a handler call that is under way is not waited for:
    /// its batch stays ahead of the cursor, unless [`processed_late`](Self::processed_late) tells of it.
    pub(crate) fn give_up(self: &Arc<Self>) {
        self.abandon(StreamEnd {
            reason: StreamEndReason::Unsubscribed,
            error: None,
        });
    }

    /// A handler call that was given up has succeeded with everything up to `position` after all. The
    /// cursor moves if the name was not registered anew.
    pub(crate) fn processed_late(&self, position: u64) {
        let mut state = self.lock();
        state.done_with(position);
        let (position, lease) = (state.position, state.released.clone());
        drop(state);
        if let Some(lease) = lease {
            // If it fails its batch will repeat, as was told already.
            lease.release(position, Box::new(drop));
        }
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

    pub(super) fn finish_stopped(self: &Arc<Self>) {
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
                state.released = Some(lease.clone());
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
    pub(super) fn of_registration(mut self) -> Self {
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
