//! What has to be done now and then while streams run: one thread, asleep while none does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::SqliteStreams;
use crate::contract::EventStoreError;
use crate::sqlite::database::{Database, is_replaced, refuse_moved};
use crate::sqlite::failure::Result;

/// How often it looks for commits of others.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Cursors without a commit to ride in are stored this often.
const STORE_EVERY: Duration = Duration::from_millis(50);
/// How often a store that holds leases gives a sign of life.
const TOUCH_EVERY: Duration = Duration::from_secs(1);
/// Streams end when this many looks in a row have failed, over this long. A shortage of file handles or
/// of memory passes; a disk that fails does not, and streams that nobody wakes would wait for ever. One
/// look may wait for a lock as long as the busy timeout, so neither number would do alone.
const FAILED_LOOKS: u32 = 10;
const FAILING_FOR: Duration = Duration::from_secs(5);

/// Whether there is something to watch for.
#[derive(Debug, Default)]
pub(super) struct Watched {
    streams: AtomicUsize,
    ended: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Watched {
    pub(super) fn stream_opened(&self) {
        if self.streams.fetch_add(1, Ordering::SeqCst) == 0 {
            self.wake();
        }
    }

    pub(super) fn stream_closed(&self) {
        self.streams.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// There may be something to do.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Waits for the time of the next look; `false`: there will be none. `more`: whether there is
    /// something to do although no stream is open.
    fn wait(&self, more: impl Fn() -> bool) -> bool {
        let _ = self.thread.set(thread::current());
        let mut looked = false;
        while !self.ended.load(Ordering::SeqCst) {
            if self.streams.load(Ordering::SeqCst) == 0 && !more() {
                thread::park();
            } else if looked {
                return true;
            } else {
                thread::park_timeout(LOOK_EVERY);
                looked = true;
            }
        }
        false
    }
}

pub(super) struct Watcher {
    pub(super) streams: Arc<SqliteStreams>,
    pub(super) database: Database,
}

impl Watcher {
    pub(super) fn run(self) {
        self.database.enter_thread();
        let mut eye = None;
        let mut failures = Failures::default();
        let (mut stored, mut touched) = (Instant::now(), Instant::now());
        let streams = self.streams.clone();
        while streams.watched.wait(|| streams.leases.has_unreleased()) {
            let now = Instant::now();
            let looked = self.look(&mut eye, now - touched >= TOUCH_EVERY);
            if let Some(error) = failures.count(looked) {
                eye = None;
                self.end_streams(error);
            } else if failures.count > 0 {
                eye = None;
            }
            if now - stored >= STORE_EVERY {
                stored = now;
                self.streams.store_cursors();
            }
            if now - touched >= TOUCH_EVERY {
                touched = now;
                if let Some(delivery) = self.streams.delivery() {
                    delivery.touch_idle();
                }
                self.streams.touch();
            }
        }
    }

    /// The store can't be read any more, so streams would wait in vain.
    fn end_streams(&self, error: EventStoreError) {
        if let Some(delivery) = self.streams.delivery() {
            delivery.fail(&error.at(&self.database.path));
        }
    }

    /// Tells the streams of a new head. `closely`: looks whether the file is still where it was, too.
    fn look(&self, eye: &mut Option<Eye>, closely: bool) -> Result<()> {
        let eye = match eye {
            Some(eye) => eye,
            None => eye.insert(Eye {
                connection: self.database.connect_for_reading()?,
                version: None,
            }),
        };
        if closely {
            refuse_moved(&eye.connection)?;
        }
        if let Some(head) = eye.changed_head()?
            && let Some(delivery) = self.streams.delivery()
        {
            delivery.observe(head).fire();
        }
        Ok(())
    }
}

/// Looks that have failed in a row.
#[derive(Default)]
struct Failures {
    count: u32,
    since: Option<Instant>,
}

impl Failures {
    /// Returns the error that is there to stay; then counts anew.
    fn count(&mut self, looked: Result<()>) -> Option<EventStoreError> {
        let Err(error) = looked else {
            *self = Self::default();
            return None;
        };
        if self.count == 0 {
            tracing::warn!(%error, "the store could not be watched for other writers");
        }
        self.count += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        let stays = self.count >= FAILED_LOOKS && since.elapsed() >= FAILING_FOR;
        if !stays && !is_replaced(&error) {
            return None;
        }
        *self = Self::default();
        Some(error)
    }
}

struct Eye {
    connection: Connection,
    /// Changes with every commit of any other connection.
    version: Option<i64>,
}

impl Eye {
    fn changed_head(&mut self) -> Result<Option<u64>> {
        let version: i64 = self
            .connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        if self.version == Some(version) {
            return Ok(None);
        }
        let sql = "SELECT coalesce(max(sequence_number), 0) FROM events";
        let head = self
            .connection
            .prepare_cached(sql)?
            .query_row([], |row| row.get(0))?;
        self.version = Some(version);
        Ok(Some(head))
    }
}
