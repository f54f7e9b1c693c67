//! The leases of a store on the server, by a connection of its own: a pool whose connections are all in use
//! must not cost a store its leases.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::types::{ToSql, Type};

use super::watcher::Watched;
use crate::contract::EventStoreError;
use crate::delivery::{HeldLeases, LeaseKeeper, Left, Moved, Reply};
use crate::postgres::backend::{Backend, Result, no_row};

/// Names that are asked for at once, at most.
const TURNS: usize = 64;
/// How long after a sign of life leases are known to be a store's own. Others may take them after 4 seconds
/// of the server's clock.
const SURE_FOR: Duration = Duration::from_secs(3);

pub(super) struct PostgresLeases {
    pub(super) backend: Arc<Backend>,
    pub(super) held: Arc<HeldLeases>,
    /// See [`alone_with`](Self::alone_with).
    turns: [Mutex<()>; TURNS],
    watched: Watched,
    surety: Surety,
    /// The server may have a sign of life of this store.
    pub(super) touched: AtomicBool,
    /// Held while one is given.
    touching: Mutex<()>,
    pub(super) this: Weak<Self>,
}

/// How sure a store is that its leases are its own.
#[derive(Debug, Default)]
struct Surety {
    /// When the last sign of life was sent by which they were.
    since: std::sync::Mutex<Option<Instant>>,
    doubted: AtomicBool,
}

impl Surety {
    fn is_sure_at(&self, now: Instant) -> bool {
        self.since().is_some_and(|since| now - since < SURE_FOR)
    }

    fn renew(&self, sent: Instant) {
        *self.since() = Some(sent);
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubt(&self) {
        self.doubted.store(true, Ordering::SeqCst);
    }

    fn take_doubt(&self) -> bool {
        self.doubted.swap(false, Ordering::SeqCst)
    }
}

impl PostgresLeases {
    pub(super) fn new(backend: Arc<Backend>, watched: Watched) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            held: Arc::new(HeldLeases::new(backend.store)),
            backend,
            turns: std::array::from_fn(|_| Mutex::default()),
            watched,
            surety: Surety::default(),
            touched: AtomicBool::new(false),
            touching: Mutex::default(),
            this: this.clone(),
        })
    }

    /// Waits for a turn to ask the server for a name: between the server's yes and the time when this store
    /// knows of it, the server can't tell whether this store runs the stream.
    pub(super) async fn alone_with(&self, name: &str) -> MutexGuard<'_, ()> {
        let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
        self.turns[hash as usize % TURNS].lock().await
    }

    /// Gives this lease back, if that is still to be done, before it is taken anew.
    pub(super) async fn release_late(&self, name: &str) -> Result<()> {
        match self.held.unreleased(name) {
            Some(left) => self.release(name, left).await.map(drop),
            None => Ok(()),
        }
    }

    /// `false`: it is somebody else's.
    async fn release(&self, name: &str, left: Left) -> Result<bool> {
        let Left { fencing, position } = left;
        let statement = &self.backend.statements.release;
        let others = self
            .ask(statement, &[name], &[fencing], &[position as i64])
            .await?;
        Ok(others.is_empty())
    }

    /// Stores the cursors that have moved, and gives back what was not given back.
    pub(super) async fn store_moved(&self) -> Result<()> {
        let Moved { leases, unreleased } = self.held.take_moved();
        let (mut names, mut fencings, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for lease in &leases {
            if let Some(position) = lease.cursor() {
                names.push(lease.name());
                fencings.push(lease.fencing());
                positions.push(position as i64);
            }
        }
        let statement = &self.backend.statements.store_cursors;
        match self.ask(statement, &names, &fencings, &positions).await {
            Ok(lost) => {
                for lease in leases {
                    if lost.iter().any(|name| name == lease.name()) {
                        lease.lose();
                    }
                }
            }
            Err(error) => {
                self.held.put_back(leases);
                return Err(error);
            }
        }
        for (name, left) in unreleased {
            self.release(&name, left).await?;
            self.held.taken_back(&name, left);
        }
        Ok(())
    }

    /// Runs a statement on leases; it returns the names of those that are somebody else's.
    async fn ask(
        &self,
        statement: &str,
        names: &[&str],
        fencings: &[i64],
        positions: &[i64],
    ) -> Result<Vec<String>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let arguments: [(&(dyn ToSql + Sync), Type); 4] = [
            (&names, Type::TEXT_ARRAY),
            (&fencings, Type::INT8_ARRAY),
            (&positions, Type::INT8_ARRAY),
            (&self.backend.store, Type::INT8),
        ];
        let rows = self.backend.ask(statement, &arguments).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Something else may have given a sign of life: the next one does not tell of a silence before it.
    pub(super) fn doubt(&self) {
        self.surety.doubt();
    }

    /// Gives a sign of life, and looks whether the leases are still its own unless it is certain.
    ///
    /// The server tells of a silence only once, so what it says is not enough: its answer may be lost, and so
    /// may that to the look. The clock here is not enough either: it may not count while a machine is
    /// suspended.
    pub(super) async fn touch(&self) -> Result<()> {
        let sent = Instant::now();
        // Doubts that come up meanwhile are for the next time.
        let doubted = self.surety.take_doubt();
        let touched = self.touch_and_look(doubted).await;
        match touched {
            Ok(()) => self.surety.renew(sent),
            Err(_) => self.surety.doubt(),
        }
        touched
    }

    async fn touch_and_look(&self, doubted: bool) -> Result<()> {
        let backend = &self.backend;
        let touching = self.touching.lock().await;
        if self.watched.has_ended() {
            return Ok(());
        }
        self.touched.store(true, Ordering::SeqCst);
        let arguments: [(&(dyn ToSql + Sync), Type); 1] = [(&backend.store, Type::INT8)];
        let (rows, maybe_done) = tokio::select! {
            asked = backend.ask_again(&backend.statements.touch, &arguments) => asked?,
            () = self.watched.until_end() => return Ok(()),
        };
        drop(touching);
        let was_silent: bool = rows.first().ok_or_else(no_row)?.get(0);
        let is_sure = self.surety.is_sure_at(Instant::now());
        let held = self.held.all();
        if held.is_empty() || (is_sure && !doubted && !maybe_done && !was_silent) {
            return Ok(());
        }
        let names: Vec<&str> = held.iter().map(|lease| lease.name()).collect();
        let fencings: Vec<i64> = held.iter().map(|lease| lease.fencing()).collect();
        let arguments: [(&(dyn ToSql + Sync), Type); 3] = [
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
                .filter(|lease| lease.name() == lost)
                .for_each(|lease| lease.lose());
        }
        Ok(())
    }
}

impl PostgresLeases {
    /// Tells, once nothing is watched any more, whether the server may have a sign of life: there will be no
    /// other one than it has been sent.
    pub(super) async fn last_touch(&self) -> bool {
        drop(self.touching.lock().await);
        self.touched.load(Ordering::SeqCst)
    }
}

impl LeaseKeeper for PostgresLeases {
    fn store_soon(&self) {
        self.watched.wake();
    }

    fn give_back(&self, name: &Arc<str>, left: Left, reply: Reply<bool>) {
        let Some(this) = self.this.upgrade() else {
            return reply(Err(EventStoreError::StoreClosed));
        };
        let name = name.clone();
        self.backend
            .runtime
            .spawn(async move { reply(this.release(&name, left).await) });
    }

    fn is_final(&self, _: &EventStoreError) -> bool {
        false
    }

    fn has_unreleased(&self) {
        self.watched.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{SURE_FOR, Surety};

    #[test]
    fn a_store_is_sure_for_a_while_after_it_spoke() {
        let surety = Surety::default();
        let now = Instant::now();
        assert!(!surety.is_sure_at(now));
        surety.renew(now);
        assert!(surety.is_sure_at(now));
        assert!(surety.is_sure_at(now + SURE_FOR.mul_f64(0.999)));
        assert!(!surety.is_sure_at(now + SURE_FOR));
        // It took the server longer to answer than others wait.
        surety.renew(now);
        assert!(!surety.is_sure_at(now + Duration::from_secs(4)));
    }

    #[test]
    fn a_doubt_is_there_until_it_is_taken() {
        let surety = Surety::default();
        assert!(!surety.take_doubt());
        surety.doubt();
        assert!(surety.take_doubt());
        assert!(!surety.take_doubt());
    }
}
