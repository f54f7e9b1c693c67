//! Short reads on the caller's own thread.
//!
//! Handing a read to another thread and its answer back costs two wake-ups, which together take longer
//! than most contexts take to read. So a caller that waits for nothing else may read by itself, within
//! a budget of time; what does not fit, and whatever goes wrong, is left to the reader threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::failure::{Result, guarded};
use super::readers::{Shared, end_transaction, snapshot_if_current};
use super::snapshot::LogSnapshot;
use super::write_connection::WriteConnection;

/// The longest that a read may hold its caller, but for one page from a slow disk.
const BUDGET: Duration = Duration::from_micros(500);
/// After a read that did not fit none is tried for this many times as long as it took: the disk may be
/// slow just now, and then at most a tenth of the caller's time goes into finding out.
const PAUSE: u32 = 10;

/// Reads with the writer's connection when that is free.
#[derive(Debug)]
pub(super) struct InlineReader {
    connection: Arc<WriteConnection>,
    epoch: Instant,
    /// Microseconds since `epoch`; no read is tried before.
    paused_until: AtomicU64,
}

impl InlineReader {
    pub(super) fn new(connection: Arc<WriteConnection>) -> Self {
        Self {
            connection,
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
        let connection = self.connection.try_lock()?;
        let result = guarded(|| {
            let snapshot = snapshot_if_current(shared, &connection, started + BUDGET)?;
            snapshot.map(|mut snapshot| read(&mut snapshot)).transpose()
        });
        let ended = end_transaction(&connection);
        let taken = started.elapsed();
        if taken > BUDGET {
            let until = self.micros(started + taken * (PAUSE + 1));
            self.paused_until.store(until, Ordering::Relaxed);
        }
        result.ok().flatten().filter(|_| ended.is_ok())
    }

    fn micros(&self, at: Instant) -> u64 {
        at.duration_since(self.epoch).as_micros() as u64
    }
}
