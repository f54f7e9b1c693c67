//! How a stream gets its place in the log: a live one at the head, a durable one with its lease.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::ending::backend_failed;
use super::engine::Delivery;
use super::source::{LeaseRequest, Taken};
use super::state::{Phase, State};
use super::subscription::{Registration, Subscription};
use super::{Wakes, clock};
use crate::contract::{EventStoreError, IfActive};

/// How often a stream that stands by asks for the lease again. Within a store it hears of it at once.
const ASK_AGAIN: Duration = Duration::from_millis(200);
const LONGEST_NAME: usize = 255;

/// Checks the name of a durable stream.
pub(crate) fn check_name(name: &str) -> Result<(), EventStoreError> {
    let refuse = |reason: &str| Err(EventStoreError::InvalidOptions(format!("name: {reason}")));
    if name.is_empty() || name.len() > LONGEST_NAME {
        return refuse(&format!(
            "a durable stream's name must have 1 to {LONGEST_NAME} bytes of UTF-8, not {}",
            name.len()
        ));
    }
    if name.contains('\0') {
        return refuse("the character U+0000 can't be stored");
    }
    Ok(())
}

impl Delivery {
    /// Starts to open a stream. It can be pulled at once.
    pub(crate) fn register(
        self: &Arc<Self>,
        registration: Registration,
    ) -> Result<Arc<Subscription>, EventStoreError> {
        if let Some(durable) = &registration.durable {
            check_name(&durable.name)?;
        }
        let stream = self.lock().admit(|id| {
            Arc::new(Subscription {
                id,
                delivery: self.clone(),
                query: Arc::new(registration.query),
                durable: registration.durable,
                state: Mutex::new(State::new()),
            })
        })?;
        self.source.stream_opened();
        stream.open();
        Ok(stream)
    }
}

impl Subscription {
    fn open(self: &Arc<Self>) {
        let this = self.clone();
        let Some(durable) = &self.durable else {
            let reply = Box::new(move |head| this.live_opened(head));
            return self.delivery.source.head(reply);
        };
        let releases = self.delivery.lock().releases;
        self.lock().asked = releases;
        let lost = self.clone();
        let request = LeaseRequest {
            name: durable.name.as_str().into(),
            query: self.query.clone(),
            lost: Box::new(move |error| lost.stop(backend_failed(error))),
        };
        let reply = Box::new(move |taken| this.lease_taken(taken));
        self.delivery.source.take_lease(request, reply);
    }

    fn live_opened(self: &Arc<Self>, head: Result<u64, EventStoreError>) {
        match head {
            Ok(head) => self.start(None, None, head),
            Err(error) => self.refuse(error),
        }
    }

    fn lease_taken(self: &Arc<Self>, taken: Result<Taken, EventStoreError>) {
        match taken {
            Ok(Taken {
                lease,
                position,
                head,
            }) => self.start(Some(lease), Some(position), head),
            Err(EventStoreError::DurableStreamActive(_)) if self.waits() => self.stand_by(),
            Err(error) => self.refuse(error),
        }
    }

    fn waits(&self) -> bool {
        let durable = self.durable.as_ref();
        durable.is_some_and(|durable| durable.if_active == IfActive::Wait)
    }

    /// `position`: the stored cursor of a durable stream.
    fn start(
        self: &Arc<Self>,
        lease: Option<Arc<dyn super::Lease>>,
        position: Option<u64>,
        head: u64,
    ) {
        let mut wakes = Wakes::default();
        let mut hub = self.delivery.lock();
        hub.start(head);
        let mut state = self.lock();
        state.phase = Phase::Running;
        let target = head.max(if position.is_none() { hub.head } else { 0 });
        let position = position.unwrap_or(target);
        if self.durable.is_none() {
            state.start = Some(position);
        }
        state.lease = lease;
        (state.position, state.handed, state.taken) = (position, position, position);
        state.target = target;
        state.check_registered(0, &mut wakes);
        if state.registered {
            hub.unregistered.retain(|other| other.id != self.id);
        }
        if let Some(ready) = state.pull.take() {
            let this = self.clone();
            wakes.push(move || this.advance(ready));
        }
        // It may have been told to stop meanwhile.
        self.finish_if_settled(&mut hub, &mut state, &mut wakes);
        drop(state);
        self.delivery.observe_locked(&mut hub, head, &mut wakes);
        drop(hub);
        wakes.fire();
    }

    fn refuse(self: &Arc<Self>, error: EventStoreError) {
        self.lock().phase = Phase::StandingBy;
        self.stop(backend_failed(error));
    }

    fn stand_by(self: &Arc<Self>) {
        let mut wakes = Wakes::default();
        let mut hub = self.delivery.lock();
        let mut state = self.lock();
        state.phase = Phase::StandingBy;
        state.round += 1;
        if state.stop.is_none()
            && let Some(durable) = &self.durable
        {
            let round = state.round;
            let heir = Arc::downgrade(self);
            let name = durable.name.as_str().into();
            let waiting = hub.waiting.entry(name).or_default();
            waiting.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&heir));
            waiting.push(heir.clone());
            if state.asked != hub.releases {
                // It may have become free while the answer was under way.
                let this = self.clone();
                wakes.push(move || this.take_over(Some(round)));
            }
            wakes.push(move || {
                clock::after(ASK_AGAIN, move || {
                    if let Some(heir) = heir.upgrade() {
                        heir.take_over(Some(round));
                    }
                });
            });
        }
        self.finish_if_settled(&mut hub, &mut state, &mut wakes);
        drop((state, hub));
        wakes.fire();
    }

    /// Asks for the lease again; an alarm does so only in the round for which it was set.
    pub(super) fn take_over(self: &Arc<Self>, round: Option<u64>) {
        let mut state = self.lock();
        if state.phase != Phase::StandingBy
            || state.stop.is_some()
            || round.is_some_and(|round| round != state.round)
        {
            return;
        }
        state.phase = Phase::Opening;
        drop(state);
        self.open();
    }
}
