//! What the stream engine needs of the memory store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::log::Log;
use crate::contract::{DurableStreamInfo, EventStoreError};
use crate::delivery::{
    BatchPage, BatchRequest, Borders, Lease, LeaseRequest, LogSource, Reply, Taken, read_page,
};
use crate::payload::CompiledQuery;

type Result<T> = std::result::Result<T, EventStoreError>;

/// The log and the cursors.
#[derive(Debug)]
pub(super) struct Contents {
    /// `None` once closed.
    log: RwLock<Option<Log>>,
    cursors: Arc<Cursors>,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            log: RwLock::new(Some(Log::default())),
            cursors: Arc::default(),
        }
    }
}

impl Contents {
    // A panic while the lock is held would have to be a bug in this module; the log stays readable.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Option<Log>> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Option<Log>> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_log<T>(&self, look: impl FnOnce(&Log) -> Result<T>) -> Result<T> {
        let log = self.read();
        look(log.as_ref().ok_or(EventStoreError::StoreClosed)?)
    }

    fn len(&self) -> Result<u64> {
        self.with_log(|log| Ok(log.len()))
    }
}

/// The durable streams.
#[derive(Debug, Default)]
struct Cursors {
    by_name: Mutex<BTreeMap<Arc<str>, Cursor>>,
    last_lease: AtomicU64,
}

#[derive(Debug)]
struct Cursor {
    query: Arc<CompiledQuery>,
    position: u64,
    active: bool,
    /// Who may move it: the lease that was taken last, unless the cursor was reset since.
    lease: u64,
}

impl Cursors {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Cursor>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(
        self: &Arc<Self>,
        name: Arc<str>,
        query: &Arc<CompiledQuery>,
    ) -> Result<(u64, Arc<dyn Lease>)> {
        let mut cursors = self.lock();
        let cursor = cursors.entry(name.clone()).or_insert_with(|| Cursor {
            query: query.clone(),
            position: 0,
            active: false,
            lease: 0,
        });
        if cursor.query.canonical_text() != query.canonical_text() {
            let name = name.as_ref().to_owned();
            return Err(EventStoreError::DurableStreamQueryMismatch(name));
        }
        if cursor.active {
            let name = name.as_ref().to_owned();
            return Err(EventStoreError::DurableStreamActive(name));
        }
        cursor.active = true;
        cursor.lease = self.next_lease();
        let (cursors, number) = (self.clone(), cursor.lease);
        let lease = MemoryLease {
            cursors,
            name,
            number,
        };
        Ok((cursor.position, Arc::new(lease)))
    }

    fn next_lease(&self) -> u64 {
        self.last_lease.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Runs `change` on the inactive stream of this name.
    fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut BTreeMap<Arc<str>, Cursor>) -> Result<()>,
    ) -> Result<()> {
        let mut cursors = self.lock();
        match cursors.get(name) {
            None => Err(EventStoreError::DurableStreamNotFound(name.to_owned())),
            Some(cursor) if cursor.active => {
                Err(EventStoreError::DurableStreamActive(name.to_owned()))
            }
            Some(_) => change(&mut cursors),
        }
    }
}

struct MemoryLease {
    cursors: Arc<Cursors>,
    name: Arc<str>,
    number: u64,
}

impl Lease for MemoryLease {
    fn moved(&self, _: u64) {
        // Nothing survives the process; what is stored at the end is enough.
    }

    fn release(&self, position: u64, reply: Reply<()>) {
        if let Some(cursor) = self.cursors.lock().get_mut(&self.name)
            && cursor.lease == self.number
        {
            cursor.position = position;
            cursor.active = false;
        }
        reply(Ok(()));
    }
}

impl Borders for &Log {
    fn batch_of(&mut self, sequence_number: u64) -> Result<(u64, u64)> {
        Ok(self.batch(sequence_number))
    }
}

impl LogSource for Contents {
    fn head(&self, reply: Reply<u64>) {
        reply(self.len());
    }

    fn read_batches(&self, request: BatchRequest, reply: Reply<BatchPage>) {
        let page = self.with_log(|log| read_page(&mut &*log, &mut &*log, &request));
        reply(page);
    }

    fn take_lease(&self, request: LeaseRequest, reply: Reply<Taken>) {
        let taken = self.len().and_then(|head| {
            let (position, lease) = self.cursors.take(request.name, &request.query)?;
            Ok(Taken {
                lease,
                position,
                head,
            })
        });
        reply(taken);
    }

    fn list(&self, reply: Reply<Vec<DurableStreamInfo>>) {
        let listed = self.len().map(|head| {
            let cursors = self.cursors.lock();
            let infos = cursors.iter().map(|(name, cursor)| DurableStreamInfo {
                name: name.as_ref().to_owned(),
                query: cursor.query.to_query(),
                position: cursor.position,
                head_sequence_number: Some(head).filter(|&head| head > 0),
                active: cursor.active,
            });
            infos.collect()
        });
        reply(listed);
    }

    fn reset(&self, name: &str, after: u64, reply: Reply<()>) {
        let reset = self.with_log(|log| {
            self.cursors.change(name, |cursors| {
                if after > log.len() {
                    return Err(EventStoreError::InvalidOptions(format!(
                        "after: {after} is beyond the newest sequence number, {}",
                        log.len()
                    )));
                }
                let (first, last) = if after == 0 { (0, 0) } else { log.batch(after) };
                if let Some(cursor) = cursors.get_mut(name) {
                    cursor.position = if after == last { after } else { first - 1 };
                    cursor.lease = self.cursors.next_lease();
                }
                Ok(())
            })
        });
        reply(reset);
    }

    fn delete(&self, name: &str, reply: Reply<()>) {
        let deleted = self.len().and_then(|_| {
            self.cursors.change(name, |cursors| {
                cursors.remove(name);
                Ok(())
            })
        });
        reply(deleted);
    }
}
