//! The leases that a store holds, and what is on its way to where they are kept: cursors, and leases that
//! could not be given back at once.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::SystemTime;

use super::lock;
use super::source::{Lease, Reply};
use crate::contract::EventStoreError;

/// A cursor that has moved over this many events is stored at once: they are what a killed process repeats.
const STORED_EVERY: u64 = 1_024;

type Lost = Box<dyn FnOnce(EventStoreError) + Send>;

/// Draws a number that tells a store from all others. Good enough: two stores of one log would have to draw
/// the same 62 bits.
pub(crate) fn draw_owner() -> i64 {
    let random = RandomState::new().hash_one(SystemTime::now());
    (random >> 2) as i64 + 1
}

/// Where leases are kept.
pub(crate) trait LeaseKeeper: Send + Sync {
    /// Has the cursors that have moved stored now, rather than at the next usual time.
    fn store_soon(&self);

    /// Stores a position and gives a lease back. `false`: it is somebody else's.
    fn give_back(&self, name: &Arc<str>, left: Left, reply: Reply<bool>);

    /// Whether it is in vain to give a lease back again after this error.
    fn is_final(&self, error: &EventStoreError) -> bool;

    /// A lease is to be given back again.
    fn has_unreleased(&self);
}

/// What one store holds.
pub(crate) struct HeldLeases {
    /// Tells this store from all others.
    pub(crate) owner: i64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: HashMap<Arc<str>, Arc<HeldLease>>,
    /// Those whose cursor has moved since it was stored.
    moved: Vec<Arc<HeldLease>>,
    /// Those that were not taken back, until they are. One that this store takes anew is held.
    unreleased: HashMap<Arc<str>, Left>,
}

/// How a lease was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) fencing: i64,
    pub(crate) position: u64,
}

/// A lease of this store.
pub(crate) struct HeldLease {
    name: Arc<str>,
    fencing: i64,
    position: AtomicU64,
    /// Where it was when it last asked for being stored.
    asked: AtomicU64,
    /// It stands in `State::moved`.
    is_moved: AtomicBool,
    released: AtomicBool,
    lost: Mutex<Option<Lost>>,
    leases: Weak<HeldLeases>,
    keeper: Weak<dyn LeaseKeeper>,
}

impl State {
    /// The lease of this name, unless it is another one by now.
    fn current(&self, name: &str, fencing: i64) -> Option<Arc<HeldLease>> {
        let lease = self.held.get(name)?;
        (lease.fencing == fencing).then(|| lease.clone())
    }

    /// A lease was taken back as it was left so.
    fn taken_back(&mut self, name: &str, left: Left) {
        if self.unreleased.get(name) == Some(&left) {
            self.unreleased.remove(name);
        }
    }
}

impl HeldLeases {
    pub(crate) fn new(owner: i64) -> Self {
        Self {
            owner,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn holds(&self, name: &str) -> bool {
        self.lock().held.contains_key(name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().held.is_empty()
    }

    pub(crate) fn all(&self) -> Vec<Arc<HeldLease>> {
        self.lock().held.values().cloned().collect()
    }

    /// Whether there is something to be stored.
    pub(crate) fn has_moved(&self) -> bool {
        let state = self.lock();
        !state.moved.is_empty() || !state.unreleased.is_empty()
    }

    /// Whether leases are to be given back that nobody holds any more.
    pub(crate) fn has_unreleased(&self) -> bool {
        !self.lock().unreleased.is_empty()
    }

    /// How the lease of this name was left, if it is still to be given back.
    pub(crate) fn unreleased(&self, name: &str) -> Option<Left> {
        self.lock().unreleased.get(name).copied()
    }

    /// Keeps a lease that was taken. One that this store still has of that name was lost without a word,
    /// and must not go on beside the new one.
    pub(crate) fn keep(
        self: &Arc<Self>,
        name: Arc<str>,
        taken: Left,
        lost: Lost,
        keeper: Weak<dyn LeaseKeeper>,
    ) -> Arc<dyn Lease> {
        let Left { fencing, position } = taken;
        let lease = Arc::new(HeldLease {
            name: name.clone(),
            fencing,
            position: AtomicU64::new(position),
            asked: AtomicU64::new(position),
            is_moved: AtomicBool::new(false),
            released: AtomicBool::new(false),
            lost: Mutex::new(Some(lost)),
            leases: Arc::downgrade(self),
            keeper,
        });
        let mut state = self.lock();
        state.unreleased.remove(&name);
        let before = state.held.insert(name, lease.clone());
        drop(state);
        if let Some(before) = before {
            before.lose();
        }
        lease
    }

    /// Takes what is to be stored. It has to be ended.
    pub(crate) fn take_moved(&self) -> Moved {
        let mut state = self.lock();
        let leases = std::mem::take(&mut state.moved);
        let unreleased = state.unreleased.iter();
        let unreleased = unreleased
            .map(|(name, left)| (name.clone(), *left))
            .collect();
        drop(state);
        for lease in &leases {
            // What moves from now on is to be stored again.
            lease.is_moved.store(false, Ordering::SeqCst);
        }
        Moved { leases, unreleased }
    }

    /// These were not stored: they will be with the next ones.
    pub(crate) fn put_back(&self, leases: Vec<Arc<HeldLease>>) {
        let mut state = self.lock();
        for lease in leases {
            if !lease.is_moved.swap(true, Ordering::SeqCst) {
                state.moved.push(lease);
            }
        }
    }

    /// A lease was taken back as it was left so, or it is somebody else's.
    pub(crate) fn taken_back(&self, name: &str, left: Left) {
        self.lock().taken_back(name, left);
    }

    /// This store does not hold the lease any more, even if it was not taken back: then that is tried again,
    /// unless it is in vain. `true`: it is to be.
    fn let_go(
        &self,
        name: &Arc<str>,
        left: Left,
        released: &Result<bool, EventStoreError>,
        in_vain: bool,
    ) -> bool {
        let mut state = self.lock();
        // One that was lost may have been taken anew before its last call has settled.
        if state.current(name, left.fencing).is_some() {
            state.held.remove(name);
        }
        match released {
            Err(EventStoreError::StoreClosed) => false,
            Err(_) if in_vain => false,
            Err(_) => {
                let kept = state.unreleased.entry(name.clone()).or_insert(left);
                // A later lease of this name counts, and of one lease what was left last.
                if kept.fencing <= left.fencing {
                    *kept = left;
                }
                true
            }
            Ok(_) => {
                state.taken_back(name, left);
                false
            }
        }
    }
}

/// What is to be stored.
pub(crate) struct Moved {
    pub(crate) leases: Vec<Arc<HeldLease>>,
    pub(crate) unreleased: Vec<(Arc<str>, Left)>,
}

impl HeldLease {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn fencing(&self) -> i64 {
        self.fencing
    }

    /// The cursor to be stored, unless that goes with the lease.
    pub(crate) fn cursor(&self) -> Option<u64> {
        (!self.released.load(Ordering::SeqCst)).then(|| self.position.load(Ordering::SeqCst))
    }

    /// It is somebody else's: the stream ends. Giving the lease back will tell it again, in vain.
    pub(crate) fn lose(&self) {
        if self.released.load(Ordering::SeqCst) {
            return;
        }
        let lost = lock(&self.lost).take();
        if let Some(lost) = lost {
            lost(lost_lease(&self.name));
        }
    }
}

fn lost_lease(name: &str) -> EventStoreError {
    EventStoreError::BackendFailure(format!(
        "the durable stream '{name}' was taken over: this store gave no sign of life for too long"
    ))
}

impl Lease for HeldLease {
    fn moved(&self, position: u64) {
        self.position.store(position, Ordering::SeqCst);
        let is_new = !self.is_moved.swap(true, Ordering::SeqCst);
        let asked = self.asked.load(Ordering::SeqCst);
        let is_far = position.saturating_sub(asked) >= STORED_EVERY;
        if !is_new && !is_far {
            return;
        }
        let Some(leases) = self.leases.upgrade() else {
            return;
        };
        if is_new {
            let mut state = leases.lock();
            if let Some(lease) = state.current(&self.name, self.fencing) {
                state.moved.push(lease);
            }
        }
        if is_far && let Some(keeper) = self.keeper.upgrade() {
            self.asked.store(position, Ordering::SeqCst);
            keeper.store_soon();
        }
    }

    fn release(&self, position: u64, reply: Reply<()>) {
        self.released.store(true, Ordering::SeqCst);
        let (Some(leases), Some(keeper)) = (self.leases.upgrade(), self.keeper.upgrade()) else {
            return reply(Err(EventStoreError::StoreClosed));
        };
        let name = self.name.clone();
        let left = Left {
            fencing: self.fencing,
            position,
        };
        let weak = self.keeper.clone();
        let let_go = move |released: Result<bool, EventStoreError>| {
            let keeper = weak.upgrade();
            let is_final = |keeper: &Arc<dyn LeaseKeeper>| {
                released.as_ref().is_err_and(|error| keeper.is_final(error))
            };
            let in_vain = keeper.as_ref().is_none_or(is_final);
            if leases.let_go(&name, left, &released, in_vain)
                && let Some(keeper) = keeper
            {
                keeper.has_unreleased();
            }
            reply(released.and_then(|is_mine| {
                if is_mine {
                    return Ok(());
                }
                Err(lost_lease(&name))
            }));
        };
        keeper.give_back(&self.name, left, Box::new(let_go));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, Weak, mpsc};

    use super::{HeldLeases, LeaseKeeper, Left, STORED_EVERY};
    use crate::contract::EventStoreError;
    use crate::delivery::{Lease, Reply};

    type Result<T> = std::result::Result<T, EventStoreError>;

    /// Answers as it is told.
    #[derive(Default)]
    struct Keeper {
        asked: AtomicUsize,
        told: AtomicUsize,
        answers: Mutex<Vec<Result<bool>>>,
    }

    impl LeaseKeeper for Keeper {
        fn store_soon(&self) {
            self.asked.fetch_add(1, Ordering::SeqCst);
        }

        fn give_back(&self, _: &Arc<str>, _: Left, reply: Reply<bool>) {
            reply(self.answers.lock().unwrap().pop().unwrap());
        }

        fn is_final(&self, error: &EventStoreError) -> bool {
            error.to_string() == "for good"
        }

        fn has_unreleased(&self) {
            self.told.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Case {
        held: Arc<HeldLeases>,
        keeper: Arc<Keeper>,
    }

    impl Case {
        fn new() -> Self {
            Self {
                held: Arc::new(HeldLeases::new(1)),
                keeper: Arc::default(),
            }
        }

        /// A lease of the one name, and what hears of its loss.
        fn keep(&self, fencing: i64) -> (Arc<dyn Lease>, mpsc::Receiver<EventStoreError>) {
            let (lost, losses) = mpsc::channel();
            let taken = Left {
                fencing,
                position: 0,
            };
            let keeper: Weak<dyn LeaseKeeper> =
                Arc::downgrade(&(self.keeper.clone() as Arc<dyn LeaseKeeper>));
            let lost = Box::new(move |error| lost.send(error).unwrap());
            (self.held.keep("model".into(), taken, lost, keeper), losses)
        }

        fn release(
            &self,
            lease: &Arc<dyn Lease>,
            position: u64,
            answer: Result<bool>,
        ) -> Result<()> {
            self.keeper.answers.lock().unwrap().push(answer);
            let (reply, released) = mpsc::channel();
            lease.release(
                position,
                Box::new(move |result| reply.send(result).unwrap()),
            );
            released.recv().unwrap()
        }
    }

    fn failure(message: &str) -> EventStoreError {
        EventStoreError::BackendFailure(message.to_owned())
    }

    #[test]
    fn a_cursor_that_moves_far_is_stored_soon() {
        let case = Case::new();
        let (lease, _losses) = case.keep(1);
        lease.moved(STORED_EVERY - 1);
        assert_eq!(case.keeper.asked.load(Ordering::SeqCst), 0);
        lease.moved(STORED_EVERY);
        lease.moved(STORED_EVERY + 1);
        assert_eq!(case.keeper.asked.load(Ordering::SeqCst), 1);
        let moved = case.held.take_moved();
        assert_eq!(moved.leases.len(), 1);
        assert_eq!(moved.leases[0].cursor(), Some(STORED_EVERY + 1));
        assert!(!case.held.has_moved());
        case.held.put_back(moved.leases);
        assert!(case.held.has_moved());
    }

    #[test]
    fn a_lease_that_was_not_taken_back_is_given_back_later() {
        let case = Case::new();
        let (lease, _losses) = case.keep(1);
        let left = Left {
            fencing: 1,
            position: 5,
        };
        case.release(&lease, 5, Err(failure("locked"))).unwrap_err();
        assert!(!case.held.holds("model"));
        assert_eq!(case.held.unreleased("model"), Some(left));
        assert_eq!(case.keeper.told.load(Ordering::SeqCst), 1);
        case.held.taken_back(
            "model",
            Left {
                position: 4,
                ..left
            },
        );
        assert!(case.held.has_unreleased());
        case.held.taken_back("model", left);
        assert!(!case.held.has_unreleased());
    }

    #[test]
    fn what_is_in_vain_is_not_tried_again() {
        for error in [failure("for good"), EventStoreError::StoreClosed] {
            let case = Case::new();
            let (lease, _losses) = case.keep(1);
            case.release(&lease, 5, Err(error)).unwrap_err();
            assert!(!case.held.has_unreleased());
        }
    }

    #[test]
    fn a_lease_that_is_taken_anew_ends_the_one_before_and_outlives_its_release() {
        let case = Case::new();
        let (before, losses) = case.keep(1);
        let (_after, _) = case.keep(2);
        assert!(
            losses
                .try_recv()
                .unwrap()
                .to_string()
                .contains("taken over")
        );
        let told = case.release(&before, 5, Ok(false)).unwrap_err();
        assert!(told.to_string().contains("taken over"), "{told}");
        assert!(case.held.holds("model"));
        assert!(losses.try_recv().is_err());
    }
}
