//! Short reads on the caller's own thread.
//!
//! Handing a read to another thread and its answer back costs two wake-ups, which together take longer
//! than most contexts take to read. So a caller that waits for nothing else may read by itself, within
//! a budget of time; what does not fit, and whatever goes wrong, is left to the reader threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::database::without_waiting;
use super::failure::{Result, guarded};
use super::readers::{ReadConnection, Shared, end_transaction, snapshot_if_current};
use super::snapshot::LogSnapshot;
use super::write_connection::WriteConnection;

/// The longest that a read may hold its caller, but for one page from a slow disk.
const BUDGET: Duration = Duration::from_micros(500);
/// After reads that did not fit none is tried for this many times as long as the last one took: the disk
/// may be slow just now, and then at most a tenth of the caller's time goes into finding out.
const PAUSE: u32 = 10;

/// Who reads on its own thread: how many reads in a row must not have fitted until there is a pause.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caller {
    /// All of an application waits while its event loop is held.
    EventLoop = 1,
    /// Of several threads at work, one may have lost its processor in the middle of a read.
    Thread = 4,
}

/// Reads with the connection of the writer or of a reader, while they rest.
#[derive(Debug)]
pub(super) struct InlineReader {
    connection: Arc<WriteConnection>,
    others: Arc<[ReadConnection]>,
    epoch: Instant,
    /// Microseconds since `epoch`; no read is tried before.
    paused_until: AtomicU64,
    /// The reads in a row that did not fit.
    overruns: AtomicU32,
}

impl InlineReader {
    pub(super) fn new(connection: Arc<WriteConnection>, others: Arc<[ReadConnection]>) -> Self {
        Self {
            connection,
            others,
            epoch: Instant::now(),
            paused_until: AtomicU64::new(0),
            overruns: AtomicU32::new(0),
        }
    }

    /// Runs a read if it can be done at once. `None`: ask a reader thread.
    ///
    /// It never sleeps for a lock.
    pub(super) fn read<T>(
        &self,
        shared: &Shared,
        caller: Caller,
        read: impl FnOnce(&mut LogSnapshot) -> Result<T>,
    ) -> Option<T> {
        let started = Instant::now();
        if self.overruns.load(Ordering::Relaxed) >= caller as u32
            && self.micros(started) < self.paused_until.load(Ordering::Relaxed)
        {
            return None;
        }
        // Whichever connection is free takes it.
        let mut read = Some(read);
        let mut attempt = |connection: &Connection| {
            let result = guarded(|| {
                let snapshot = snapshot_if_current(shared, connection, started + BUDGET)?;
                let read = snapshot.and_then(|snapshot| Some((snapshot, read.take()?)));
                read.map(|(mut snapshot, read)| read(&mut snapshot))
                    .transpose()
            });
            let ended = end_transaction(connection);
            let taken = started.elapsed();
            if taken > BUDGET {
                let until = self.micros(started + taken * (PAUSE + 1));
                self.paused_until.store(until, Ordering::Relaxed);
                self.overruns.fetch_add(1, Ordering::Relaxed);
            } else if matches!(result, Ok(Some(_))) && self.overruns.load(Ordering::Relaxed) > 0 {
                self.overruns.store(0, Ordering::Relaxed);
            }
            (result.ok().flatten(), ended.is_ok())
        };
        without_waiting(|| {
            if let Caller::Thread = caller {
                // Any number of threads may come, and the writer must not have to wait for them.
                let mut others = self.others.iter();
                if let Some(answer) = others.find_map(|other| other.try_with(&mut attempt)) {
                    return answer;
                }
            }
            let connection = self.connection.try_lock()?;
            let (answer, ended) = attempt(&connection);
            answer.filter(|_| ended)
        })
    }

    fn micros(&self, at: Instant) -> u64 {
        at.duration_since(self.epoch).as_micros() as u64
    }
}
