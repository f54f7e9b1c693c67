//! The leases that this store holds, and what is on its way to the file: cursors, and leases that could
//! not be given back at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rusqlite::Connection;

use super::{SqliteStreams, leases};
use crate::contract::EventStoreError;
use crate::delivery::{Lease, Reply};
use crate::sqlite::database::is_replaced;
use crate::sqlite::failure::Result;

/// A cursor that has moved over this many events is stored at once: they are what a killed process repeats.
const STORED_EVERY: u64 = 1_024;

type Lost = Box<dyn FnOnce(EventStoreError) + Send>;

/// What one store holds.
pub(in crate::sqlite) struct HeldLeases {
    /// Tells this store from all others.
    pub(super) owner: i64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: HashMap<Arc<str>, Arc<HeldLease>>,
    /// Those whose cursor has moved since it was stored.
    moved: Vec<Arc<HeldLease>>,
    /// Those that the file would not take back, until it does. One that this store takes anew is held.
    unreleased: HashMap<Arc<str>, Unreleased>,
}

/// How a lease was left that is still to be given back.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Unreleased {
    fencing: i64,
    position: u64,
}

impl State {
    /// The lease of this name, unless it is another one by now.
    fn current(&self, name: &str, fencing: i64) -> Option<Arc<HeldLease>> {
        let lease = self.held.get(name)?;
        (lease.fencing == fencing).then(|| lease.clone())
    }
}

/// A lease of this store.
pub(super) struct HeldLease {
    name: Arc<str>,
    fencing: i64,
    position: AtomicU64,
    /// Where it was when it last asked for being stored.
    asked: AtomicU64,
    /// It stands in `State::moved`.
    is_moved: AtomicBool,
    released: AtomicBool,
    lost: Mutex<Option<Lost>>,
    streams: Weak<SqliteStreams>,
}

impl HeldLeases {
    pub(super) fn new() -> Self {
        // Good enough: two stores of one file would have to draw the same 62 bits.
        let random = std::hash::BuildHasher::hash_one(
            &std::collections::hash_map::RandomState::new(),
            std::time::SystemTime::now(),
        );
        Self {
            owner: (random >> 2) as i64 + 1,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        self.lock().held.contains_key(name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().held.is_empty()
    }

    /// Whether there is something to be stored.
    pub(super) fn has_moved(&self) -> bool {
        let state = self.lock();
        !state.moved.is_empty() || !state.unreleased.is_empty()
    }

    /// Whether leases are to be given back that nobody holds any more.
    pub(super) fn has_unreleased(&self) -> bool {
        !self.lock().unreleased.is_empty()
    }

    /// Keeps a lease that was taken in the file. One that this store still has of that name was lost
    /// without a word.
    pub(super) fn keep(
        &self,
        name: Arc<str>,
        fencing: i64,
        position: u64,
        lost: Lost,
        streams: Weak<SqliteStreams>,
    ) -> Arc<HeldLease> {
        let lease = Arc::new(HeldLease {
            name: name.clone(),
            fencing,
            position: AtomicU64::new(position),
            asked: AtomicU64::new(position),
            is_moved: AtomicBool::new(false),
            released: AtomicBool::new(false),
            lost: Mutex::new(Some(lost)),
            streams,
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

    /// Gives this lease back, if that is still to be done, before it is taken anew.
    pub(super) fn release_late(&self, connection: &Connection, name: &str) -> Result<()> {
        let unreleased = self.lock().unreleased.get(name).copied();
        if let Some(Unreleased { fencing, position }) = unreleased {
            leases::release(connection, self.owner, name, fencing, position)?;
        }
        Ok(())
    }

    /// This store does not hold the lease any more, even if the file did not take it back: then that is
    /// tried again. `true`: it is to be.
    fn let_go(&self, name: &Arc<str>, left: Unreleased, released: &Result<bool>) -> bool {
        let mut state = self.lock();
        // One that was lost may have been taken anew before its last call has settled.
        if state.current(name, left.fencing).is_some() {
            state.held.remove(name);
        }
        match released {
            Err(EventStoreError::StoreClosed) => false,
            // Nobody will find what is written to it.
            Err(error) if is_replaced(error) => false,
            Err(_) => {
                let kept = state.unreleased.entry(name.clone()).or_insert(left);
                // A later lease of this name counts, and of one lease what was stored last.
                if kept.fencing <= left.fencing {
                    *kept = left;
                }
                true
            }
            Ok(_) => {
                if state.unreleased.get(name) == Some(&left) {
                    state.unreleased.remove(name);
                }
                false
            }
        }
    }

    /// Stores the cursors that have moved, in a transaction that may still fail.
    pub(in crate::sqlite) fn store_moved(&self, connection: &Connection) -> StoredCursors<'_> {
        let mut state = self.lock();
        let mut stored = StoredCursors {
            leases: self,
            moved: std::mem::take(&mut state.moved),
            released: Vec::new(),
            lost: Vec::new(),
            failed: false,
        };
        let unreleased: Vec<(Arc<str>, Unreleased)> = state
            .unreleased
            .iter()
            .map(|(name, left)| (name.clone(), *left))
            .collect();
        drop(state);
        for (name, left) in unreleased {
            let Unreleased { fencing, position } = left;
            // If it is somebody else's by now, there is nothing to be given back either.
            match leases::release(connection, self.owner, &name, fencing, position) {
                Ok(_) => stored.released.push((name, left)),
                Err(error) => {
                    tracing::warn!(%error, "the leases of streams could not be given back");
                    stored.failed = true;
                    return stored;
                }
            }
        }
        for lease in &stored.moved {
            lease.is_moved.store(false, Ordering::SeqCst);
            if lease.released.load(Ordering::SeqCst) {
                continue;
            }
            let position = lease.position.load(Ordering::SeqCst);
            match leases::store(connection, self.owner, &lease.name, lease.fencing, position) {
                Ok(true) => {}
                Ok(false) => stored.lost.push(lease.clone()),
                Err(error) => {
                    tracing::warn!(%error, "the cursors of streams could not be stored");
                    stored.failed = true;
                    break;
                }
            }
        }
        stored
    }

    /// Those that the file says are somebody else's by now end.
    pub(super) fn check(&self, connection: &Connection) -> Result<()> {
        let held: Vec<Arc<HeldLease>> = self.lock().held.values().cloned().collect();
        for lease in held {
            let sql = "SELECT 1 FROM durable_streams
                       WHERE name = ?1 AND owner = ?2 AND fencing = ?3";
            let arguments = rusqlite::params![&*lease.name, self.owner, lease.fencing];
            if !connection.prepare_cached(sql)?.exists(arguments)? {
                lease.lose();
            }
        }
        Ok(())
    }
}

/// Cursors written in a transaction. They count once it is committed.
pub(in crate::sqlite) struct StoredCursors<'l> {
    leases: &'l HeldLeases,
    moved: Vec<Arc<HeldLease>>,
    released: Vec<(Arc<str>, Unreleased)>,
    lost: Vec<Arc<HeldLease>>,
    failed: bool,
}

impl StoredCursors<'_> {
    /// What was not stored will be with the next ones.
    pub(in crate::sqlite) fn end(self, committed: bool) {
        if !committed || self.failed {
            let mut state = self.leases.lock();
            for lease in self.moved {
                if !lease.is_moved.swap(true, Ordering::SeqCst) {
                    state.moved.push(lease);
                }
            }
            return;
        }
        let mut state = self.leases.lock();
        for (name, left) in self.released {
            if state.unreleased.get(&name) == Some(&left) {
                state.unreleased.remove(&name);
            }
        }
        drop(state);
        for lease in self.lost {
            lease.lose();
        }
    }
}

impl HeldLease {
    /// The stream ends; giving the lease back will tell it again, in vain.
    fn lose(&self) {
        if self.released.load(Ordering::SeqCst) {
            return;
        }
        let lost = self
            .lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
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
        let Some(streams) = self.streams.upgrade() else {
            return;
        };
        if is_new {
            let mut state = streams.leases.lock();
            if let Some(lease) = state.current(&self.name, self.fencing) {
                state.moved.push(lease);
            }
        }
        if is_far {
            self.asked.store(position, Ordering::SeqCst);
            streams.store_cursors();
        }
    }

    fn release(&self, position: u64, reply: Reply<()>) {
        self.released.store(true, Ordering::SeqCst);
        let Some(streams) = self.streams.upgrade() else {
            return reply(Err(EventStoreError::StoreClosed));
        };
        let (name, fencing) = (self.name.clone(), self.fencing);
        let (leases, this) = (streams.leases.clone(), self.streams.clone());
        let owner = leases.owner;
        let let_go = move |released: Result<bool>| {
            let left = Unreleased { fencing, position };
            if leases.let_go(&name, left, &released)
                && let Some(streams) = this.upgrade()
            {
                streams.watched.wake();
            }
            reply(released.and_then(|is_mine| {
                if is_mine {
                    return Ok(());
                }
                Err(lost_lease(&name))
            }));
        };
        let name = self.name.clone();
        streams.write(
            move |connection| leases::release(connection, owner, &name, fencing, position),
            Box::new(let_go),
        );
    }
}
