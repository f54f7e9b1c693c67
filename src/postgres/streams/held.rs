//! The leases that this store holds, and what is on its way to the server: cursors, and leases that could
//! not be given back at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio_postgres::types::Type;

use super::watcher::Watched;
use crate::contract::EventStoreError;
use crate::delivery::{Lease, Reply};
use crate::postgres::backend::{Backend, Result};

/// Names that are asked for at once, at most.
const TURNS: usize = 64;

/// A cursor that has moved over this many events is stored at once: they are what a killed process repeats.
const STORED_EVERY: u64 = 1_024;

type Lost = Box<dyn FnOnce(EventStoreError) + Send>;

/// What one store holds.
pub(super) struct HeldLeases {
    backend: Arc<Backend>,
    /// See [`alone_with`](Self::alone_with).
    turns: [tokio::sync::Mutex<()>; TURNS],
    watched: Watched,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: HashMap<Arc<str>, Arc<HeldLease>>,
    /// Those whose cursor has moved since it was stored.
    moved: Vec<Arc<HeldLease>>,
    /// Those that the server has not taken back, until it does. One that this store takes anew is held.
    unreleased: HashMap<Arc<str>, Left>,
}

/// How a lease was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    fencing: i64,
    position: u64,
}

/// A lease of this store.
struct HeldLease {
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
}

impl HeldLeases {
    pub(super) fn new(backend: Arc<Backend>, watched: Watched) -> Self {
        Self {
            backend,
            turns: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            watched,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn to ask the server for a name: between the server's yes and the time when this store
    /// knows of it, the server can't tell whether this store runs the stream.
    pub(super) async fn alone_with(&self, name: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
        self.turns[hash as usize % TURNS].lock().await
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        self.lock().held.contains_key(name)
    }

    /// Whether there is something to be stored.
    pub(super) fn has_moved(&self) -> bool {
        let state = self.lock();
        !state.moved.is_empty() || !state.unreleased.is_empty()
    }

    pub(super) fn has_unreleased(&self) -> bool {
        !self.lock().unreleased.is_empty()
    }

    /// Keeps a lease that was taken on the server.
    pub(super) fn keep(
        self: &Arc<Self>,
        name: Arc<str>,
        fencing: i64,
        position: u64,
        lost: Lost,
    ) -> Arc<dyn Lease> {
        let lease = Arc::new(HeldLease {
            name: name.clone(),
            fencing,
            position: AtomicU64::new(position),
            asked: AtomicU64::new(position),
            is_moved: AtomicBool::new(false),
            released: AtomicBool::new(false),
            lost: Mutex::new(Some(lost)),
            leases: Arc::downgrade(self),
        });
        let mut state = self.lock();
        state.unreleased.remove(&name);
        let before = state.held.insert(name, lease.clone());
        drop(state);
        // A holder that has lost the lease without noticing must not go on beside the new one.
        if let Some(before) = before {
            before.lose();
        }
        lease
    }

    /// Gives this lease back, if that is still to be done, before it is taken anew.
    pub(super) async fn release_late(&self, name: &str) -> Result<()> {
        let left = self.lock().unreleased.get(name).copied();
        match left {
            Some(left) => self.release(name, left).await.map(drop),
            None => Ok(()),
        }
    }

    /// `false`: it is somebody else's.
    async fn release(&self, name: &str, left: Left) -> Result<bool> {
        let backend = &self.backend;
        let (names, fencings, positions) = ([name], [left.fencing], [left.position as i64]);
        let (names, fencings, positions) = (&names[..], &fencings[..], &positions[..]);
        let arguments: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
            (&names, Type::TEXT_ARRAY),
            (&fencings, Type::INT8_ARRAY),
            (&positions, Type::INT8_ARRAY),
            (&backend.store, Type::INT8),
        ];
        let others = backend.ask(&backend.statements.release, &arguments).await?;
        Ok(others.is_empty())
    }

    /// Stores the cursors that have moved, and gives back what was not given back.
    pub(super) async fn store_moved(&self) -> Result<()> {
        let (moved, unreleased) = {
            let mut state = self.lock();
            let unreleased: Vec<(Arc<str>, Left)> = state
                .unreleased
                .iter()
                .map(|(name, left)| (name.clone(), *left))
                .collect();
            (std::mem::take(&mut state.moved), unreleased)
        };
        let stored = self.store(&moved).await;
        let lost = match stored {
            Ok(lost) => lost,
            Err(error) => {
                // With the next ones.
                let mut state = self.lock();
                for lease in moved {
                    if !lease.is_moved.swap(true, Ordering::SeqCst) {
                        state.moved.push(lease);
                    }
                }
                return Err(error);
            }
        };
        for lease in moved {
            if lost.iter().any(|name| **name == *lease.name) {
                lease.lose();
            }
        }
        for (name, left) in unreleased {
            self.release(&name, left).await?;
            let mut state = self.lock();
            if state.unreleased.get(&name) == Some(&left) {
                state.unreleased.remove(&name);
            }
        }
        Ok(())
    }

    /// The names of those that are somebody else's.
    async fn store(&self, moved: &[Arc<HeldLease>]) -> Result<Vec<String>> {
        let (mut names, mut fencings, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for lease in moved {
            lease.is_moved.store(false, Ordering::SeqCst);
            if !lease.released.load(Ordering::SeqCst) {
                names.push(&*lease.name);
                fencings.push(lease.fencing);
                positions.push(lease.position.load(Ordering::SeqCst) as i64);
            }
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let backend = &self.backend;
        let arguments: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
            (&names, Type::TEXT_ARRAY),
            (&fencings, Type::INT8_ARRAY),
            (&positions, Type::INT8_ARRAY),
            (&backend.store, Type::INT8),
        ];
        let rows = backend
            .ask(&backend.statements.store_cursors, &arguments)
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Gives a sign of life; after a long silence also looks whether the leases are still its own.
    pub(super) async fn touch(&self) -> Result<()> {
        let backend = &self.backend;
        let row = backend
            .ask_one(&backend.statements.touch, &[(&backend.store, Type::INT8)])
            .await?;
        if !row.get::<_, bool>(0) {
            return Ok(());
        }
        let held: Vec<Arc<HeldLease>> = self.lock().held.values().cloned().collect();
        let names: Vec<&str> = held.iter().map(|lease| &*lease.name).collect();
        let fencings: Vec<i64> = held.iter().map(|lease| lease.fencing).collect();
        if held.is_empty() {
            return Ok(());
        }
        let arguments: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] = [
            (&names, Type::TEXT_ARRAY),
            (&fencings, Type::INT8_ARRAY),
            (&backend.store, Type::INT8),
        ];
        let rows = backend
            .ask(&backend.statements.lost_leases, &arguments)
            .await?;
        for row in &rows {
            let lost: &str = row.get(0);
            held.iter()
                .filter(|lease| &*lease.name == lost)
                .for_each(|lease| lease.lose());
        }
        Ok(())
    }

    /// This store does not hold the lease any more, even if the server did not take it back: then that is
    /// tried again.
    fn let_go(&self, name: &Arc<str>, left: Left, released: &Result<bool>) {
        let mut state = self.lock();
        // One that was lost may have been taken anew before its last call has settled.
        if state
            .held
            .get(name)
            .is_some_and(|lease| lease.fencing == left.fencing)
        {
            state.held.remove(name);
        }
        match released {
            Err(EventStoreError::StoreClosed) => {}
            Err(_) => {
                let kept = state.unreleased.entry(name.clone()).or_insert(left);
                // A later lease of this name counts, and of one lease what was left last.
                if kept.fencing <= left.fencing {
                    *kept = left;
                }
                self.watched.wake();
            }
            Ok(_) => {
                if state.unreleased.get(name) == Some(&left) {
                    state.unreleased.remove(name);
                }
            }
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
        let Some(leases) = self.leases.upgrade() else {
            return;
        };
        if is_new {
            let mut state = leases.lock();
            let current = state.held.get(&self.name).cloned();
            if let Some(lease) = current.filter(|lease| lease.fencing == self.fencing) {
                state.moved.push(lease);
            }
        }
        if is_far {
            self.asked.store(position, Ordering::SeqCst);
            leases.watched.wake();
        }
    }

    fn release(&self, position: u64, reply: Reply<()>) {
        self.released.store(true, Ordering::SeqCst);
        let Some(leases) = self.leases.upgrade() else {
            return reply(Err(EventStoreError::StoreClosed));
        };
        let (name, fencing) = (self.name.clone(), self.fencing);
        let runtime = leases.backend.runtime.clone();
        runtime.spawn(async move {
            let left = Left { fencing, position };
            let released = leases.release(&name, left).await;
            leases.let_go(&name, left, &released);
            reply(released.and_then(|is_mine| {
                if is_mine {
                    return Ok(());
                }
                Err(lost_lease(&name))
            }));
        });
    }
}
