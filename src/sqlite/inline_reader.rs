//! Short reads on the caller's own thread.
//!
//! Handing a read to another thread and its answer back costs two wake-ups, which together take longer
//! than most contexts take to read. So a caller that waits for nothing else may read by itself, within
//! a budget of time; what does not fit, and whatever goes wrong, is left to the reader threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::failure::Result;
use super::readers::{Shared, end_transaction, snapshot_if_current};
use super::snapshot::LogSnapshot;

/// The longest that a read may hold its caller, but for one page from a slow disk.
const BUDGET: Duration = Duration::from_micros(500);
/// After a read that did not fit none is tried for this long: the disk may be slow just now.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection for the caller's thread.
#[derive(Debug)]
pub(super) struct InlineReader {
    connection: Mutex<Connection>,
    epoch: Instant,
    /// Microseconds since `epoch`; no read is tried before.
    paused_until: AtomicU64,
}

impl InlineReader {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection: Mutex::new(connection),
            epoch: Instant::now(),
            paused_until: AtomicU64::new(0),
        }
    }

    /// Runs a read if it can be done at once. `None`: ask a reader thread.
    ///
    /// The thread's busy timeout is zero, so it never sleeps for a lock.
    pub(super) fn read<T>(
        &self,
        shared: &Shared,
        read: impl FnOnce(&mut LogSnapshot) -> Result<T>,
    ) -> Option<T> {
        let started = Instant::now();
        if self.micros(started) < self.paused_until.load(Ordering::Relaxed) {
            return None;
        }
        let connection = match self.connection.try_lock() {
            Ok(connection) => connection,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let result = snapshot_if_current(shared, &connection, started + BUDGET)
            .and_then(|snapshot| snapshot.map(|mut snapshot| read(&mut snapshot)).transpose());
        let ended = end_transaction(&connection);
        let finished = Instant::now();
        if finished - started > BUDGET {
            let until = self.micros(finished + PAUSE);
            self.paused_until.store(until, Ordering::Relaxed);
        }
        result.ok().flatten().filter(|_| ended.is_ok())
    }

    fn micros(&self, at: Instant) -> u64 {
        at.duration_since(self.epoch).as_micros() as u64
    }
}
