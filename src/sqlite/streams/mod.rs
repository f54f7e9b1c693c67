//! What the stream engine needs of the SQLite store: pages of batches, leases and cursors in the file,
//! and an eye on other writers.

mod batches;
mod held;
mod leases;
mod reading;
mod watcher;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;
use rusqlite::Connection;

use self::leases::TakenRow;
use self::reading::StreamReads;
use self::watcher::{Watched, Watcher};
use super::database::{Database, is_replaced};
use super::failure::Result;
use super::reader_pool::ReaderPool;
use super::readers::{ReadJob, Shared};
use super::snapshot::LogSnapshot;
use super::write_connection::without_flush;
use super::writer::Maintenance;
use crate::contract::{DurableStreamInfo, EventStoreError};
use crate::delivery::{
    BatchPage, BatchRequest, Delivery, HeldLeases, LeaseKeeper, LeaseRequest, Left, LogSource,
    Reply, Taken, draw_owner,
};

pub(super) use self::held::store_moved;

/// The side of the store that streams see.
pub(super) struct SqliteStreams {
    reads: Arc<StreamReads>,
    leases: Arc<HeldLeases>,
    /// `None`: the store is read-only, or has ended.
    writer: Mutex<Option<Sender<Maintenance>>>,
    read_only: bool,
    /// The writer's usual mode.
    synchronous: &'static str,
    path: Arc<Path>,
    watched: Watched,
    /// The writer has been asked to, and has not answered: what waits for a lock must not pile up.
    is_storing: Arc<AtomicBool>,
    is_touching: Arc<AtomicBool>,
    delivery: OnceLock<Weak<Delivery>>,
    this: Weak<Self>,
}

impl SqliteStreams {
    /// `readers` of which there are `count`.
    pub(super) fn new(
        readers: Arc<ReaderPool<ReadJob>>,
        count: usize,
        shared: &Arc<Shared>,
    ) -> (Arc<Self>, Arc<Delivery>) {
        let streams = Arc::new_cyclic(|this| Self {
            reads: StreamReads::new(readers, shared.clone(), count.saturating_sub(1).max(1)),
            leases: Arc::new(HeldLeases::new(draw_owner())),
            writer: Mutex::default(),
            read_only: shared.database.options.read_only,
            synchronous: shared.database.synchronous(),
            path: shared.database.path.clone(),
            watched: Watched::default(),
            is_storing: Arc::default(),
            is_touching: Arc::default(),
            delivery: OnceLock::new(),
            this: this.clone(),
        });
        let delivery = Delivery::new(streams.clone());
        let _ = streams.delivery.set(Arc::downgrade(&delivery));
        (streams, delivery)
    }

    /// For the writer, which stores cursors with its commits.
    pub(super) fn leases(&self) -> &Arc<HeldLeases> {
        &self.leases
    }

    pub(super) fn start_writing(&self, writer: Sender<Maintenance>) {
        *self.writer() = Some(writer);
    }

    /// Starts the thread that looks for other writers.
    pub(super) fn watch(self: &Arc<Self>, database: Database) -> std::io::Result<JoinHandle<()>> {
        let streams = self.clone();
        let watcher = Watcher { streams, database };
        thread::Builder::new()
            .name("factstr-watcher".to_owned())
            .spawn(move || watcher.run())
    }

    /// Nothing is written any more, so that the writer can end.
    pub(super) fn end(&self) {
        self.watched.end();
        *self.writer() = None;
    }

    fn delivery(&self) -> Option<Arc<Delivery>> {
        self.delivery.get()?.upgrade()
    }

    /// Has the writer do something in a transaction. What streams write need not survive a power
    /// failure: that can only repeat batches.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
        reply: Reply<T>,
    ) {
        let usual = self.synchronous;
        self.on_writer(
            move |connection| without_flush(connection, usual, work),
            reply,
        );
    }

    /// Has the writer do something. One that is gone drops it, and that answers.
    fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
        reply: Reply<T>,
    ) {
        let answer = Answer(Some(reply));
        let path = self.path.clone();
        let task: Maintenance = Box::new(move |connection| {
            answer.give(work(connection).map_err(|error| error.at(&path)));
        });
        let sender = self.writer().clone();
        if let Some(sender) = sender {
            let _ = sender.send(task);
        }
    }

    fn writer(&self) -> MutexGuard<'_, Option<Sender<Maintenance>>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse_read_only(&self) -> Result<()> {
        if self.read_only {
            return Err(EventStoreError::InvalidOptions(
                "options.readOnly: the cursor of a durable stream can't be stored".to_owned(),
            ));
        }
        Ok(())
    }

    /// Stores the cursors that have moved, unless a commit has taken them along.
    fn store_cursors(&self) {
        if !self.leases.has_moved() || self.is_storing.swap(true, Ordering::SeqCst) {
            return;
        }
        let is_storing = self.is_storing.clone();
        let (leases, usual) = (self.leases.clone(), self.synchronous);
        self.on_writer(
            move |connection| {
                let mut stored = None;
                let result = without_flush(connection, usual, |connection| {
                    stored = Some(store_moved(&leases, connection));
                    Ok(())
                });
                if let Some(stored) = stored {
                    stored.end(result.is_ok());
                }
                result
            },
            Box::new(move |stored| {
                is_storing.store(false, Ordering::SeqCst);
                if let Err(error) = stored {
                    tracing::warn!(%error, "the cursors of durable streams could not be stored");
                }
            }),
        );
    }

    /// Gives a sign of life; after a long silence also looks whether the leases are still its own.
    fn touch(&self) {
        if self.leases.is_empty() || self.is_touching.swap(true, Ordering::SeqCst) {
            return;
        }
        let (leases, is_touching) = (self.leases.clone(), self.is_touching.clone());
        let owner = leases.owner;
        self.write(
            move |connection| {
                let silent = leases::has_been_silent(connection, owner)?;
                leases::touch(connection, owner)?;
                if silent {
                    held::check(&leases, connection)?;
                }
                Ok(())
            },
            Box::new(move |touched| {
                is_touching.store(false, Ordering::SeqCst);
                if let Err(error) = touched {
                    tracing::warn!(%error, "the leases of durable streams could not be renewed");
                }
            }),
        );
    }
}

/// Gives back what a store that ends still holds, or could not give back before.
pub(super) fn release_rest(leases: &HeldLeases, connection: &Connection) -> Result<()> {
    if leases.is_empty() && !leases.has_unreleased() {
        return Ok(());
    }
    store_moved(leases, connection).end(true);
    leases::release_all(connection, leases.owner)
}

/// Answers in any case.
struct Answer<T>(Option<Reply<T>>);

impl<T> Answer<T> {
    fn give(mut self, result: Result<T>) {
        if let Some(reply) = self.0.take() {
            reply(result);
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply(Err(EventStoreError::StoreClosed));
        }
    }
}

impl LeaseKeeper for SqliteStreams {
    fn store_soon(&self) {
        self.store_cursors();
    }

    fn give_back(&self, name: &Arc<str>, left: Left, reply: Reply<bool>) {
        let (name, owner) = (name.clone(), self.leases.owner);
        let Left { fencing, position } = left;
        self.write(
            move |connection| leases::release(connection, owner, &name, fencing, position),
            reply,
        );
    }

    fn is_final(&self, error: &EventStoreError) -> bool {
        // Nobody will find what is written to a file that was replaced.
        is_replaced(error)
    }

    fn has_unreleased(&self) {
        self.watched.wake();
    }
}

impl LogSource for SqliteStreams {
    fn head(&self, reply: Reply<u64>) {
        self.reads.at_once(|snapshot| Ok(snapshot.head), reply);
    }

    fn read_batches(&self, request: BatchRequest, reply: Reply<BatchPage>) {
        self.reads
            .in_turn(move |snapshot| batches::read(snapshot, &request), reply);
    }

    fn stream_opened(&self) {
        self.watched.stream_opened();
    }

    fn stream_closed(&self) {
        self.watched.stream_closed();
    }

    fn take_lease(&self, request: LeaseRequest, reply: Reply<Taken>) {
        if let Err(error) = self.refuse_read_only() {
            return reply(Err(error));
        }
        let LeaseRequest { name, query, lost } = request;
        let (leases, this) = (self.leases.clone(), self.this.clone());
        let (owner, usual) = (leases.owner, self.synchronous);
        let keep = leases.clone();
        let key = name.clone();
        self.on_writer(
            move |connection| {
                // Who stands by asks often, and must not take a lock for it.
                let mine = leases.holds(&name);
                leases::refuse_taken(connection, owner, mine, &name, &query)?;
                without_flush(connection, usual, |connection| {
                    held::release_late(&leases, connection, &name)?;
                    leases::take(connection, owner, mine, &name, &query)
                })
            },
            Box::new(move |row: Result<TakenRow>| {
                reply(row.map(|row| {
                    let TakenRow {
                        fencing,
                        position,
                        head,
                    } = row;
                    Taken {
                        lease: keep.keep(key, Left { fencing, position }, lost, this),
                        position,
                        head,
                    }
                }));
            }),
        );
    }

    fn list(&self, reply: Reply<Vec<DurableStreamInfo>>) {
        let leases = self.leases.clone();
        let list = move |snapshot: &mut LogSnapshot| {
            let is_mine = |name: &str| leases.holds(name);
            leases::list(snapshot.connection, leases.owner, is_mine)
        };
        self.reads.at_once(list, reply);
    }

    fn reset(&self, name: &str, after: u64, reply: Reply<()>) {
        if let Err(error) = self.refuse_read_only() {
            return reply(Err(error));
        }
        let (leases, name) = (self.leases.clone(), name.to_owned());
        self.write(
            move |connection| {
                let (owner, mine) = (leases.owner, leases.holds(&name));
                leases::reset(connection, owner, mine, &name, after)
            },
            reply,
        );
    }

    fn delete(&self, name: &str, reply: Reply<()>) {
        if let Err(error) = self.refuse_read_only() {
            return reply(Err(error));
        }
        let (leases, name) = (self.leases.clone(), name.to_owned());
        self.write(
            move |connection| {
                let (owner, mine) = (leases.owner, leases.holds(&name));
                leases::delete(connection, owner, mine, &name)
            },
            reply,
        );
    }
}
