//! Reading: a few threads, each with a connection of its own, each job on one snapshot.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rusqlite::Connection;

use super::cache::Caches;
use super::claimed::Claimed;
use super::database::{Database, refuse_moved};
use super::failure::{Result, guarded};
use super::reader_pool::ReaderPool;
use super::runs::Catalog;
use super::snapshot::{LogSnapshot, for_each_facets};
use super::tail::Tail;
use crate::contract::EventStoreError;

/// What a reader is asked to do. It is always called, with an error if there is no snapshot.
pub(crate) type ReadJob = Box<dyn FnOnce(Result<&mut LogSnapshot>) + Send>;

/// What all threads of a store share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) tail: Tail,
    pub(super) catalog: Catalog,
    pub(super) caches: Caches,
}

/// The connection of a reader thread. Others may read with it while the thread rests.
#[derive(Debug, Default)]
pub(super) struct ReadConnection(Claimed<Option<Connection>>);

impl ReadConnection {
    /// Does something with the connection, if there is one and nobody uses it. `None` otherwise, or if
    /// `work` says so by `false`: then the connection is not to be trusted any more.
    pub(super) fn try_with<T>(&self, work: impl FnOnce(&Connection) -> (T, bool)) -> Option<T> {
        let mut connection = self.0.try_lock()?;
        let (done, is_whole) = work(connection.as_ref()?);
        if !is_whole {
            *connection = None;
        }
        Some(done).filter(|_| is_whole)
    }
}

/// The reader threads of a store, at least two, so that a long read holds up no short one.
pub(super) struct Readers {
    pool: Arc<ReaderPool<ReadJob>>,
    connections: Arc<[ReadConnection]>,
}

impl Readers {
    /// Where jobs can be queued for as long as the readers live.
    pub(super) fn pool(&self) -> Arc<ReaderPool<ReadJob>> {
        self.pool.clone()
    }

    /// A thread makes its own when it is first asked to read.
    pub(super) fn connections(&self) -> Arc<[ReadConnection]> {
        self.connections.clone()
    }

    /// Queues jobs; they come back if the readers are ending.
    pub(super) fn submit(&self, jobs: Vec<ReadJob>) -> Vec<ReadJob> {
        self.pool.submit(jobs)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.pool.end();
    }
}

/// Starts the reader threads. They end when the handle is dropped.
pub(super) fn start(shared: &Arc<Shared>) -> Result<(Readers, Vec<JoinHandle<()>>)> {
    let count = thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 4);
    let readers = Readers {
        pool: Arc::new(ReaderPool::default()),
        connections: (0..count).map(|_| ReadConnection::default()).collect(),
    };
    let threads = (0..count).map(|which| {
        let (shared, pool) = (shared.clone(), readers.pool.clone());
        let connections = readers.connections();
        thread::Builder::new()
            .name("factstr-reader".to_owned())
            .spawn(move || serve(&shared, &pool, &connections[which]))
            .map_err(|error| {
                EventStoreError::BackendFailure(format!("a thread can't be started: {error}"))
            })
    });
    let threads = threads.collect::<Result<_>>()?;
    Ok((readers, threads))
}

fn serve(shared: &Shared, pool: &ReaderPool<ReadJob>, connection: &ReadConnection) {
    shared.database.enter_thread();
    while let Some((job, moment)) = pool.next() {
        let mut connection = connection.0.lock();
        // A connection is made when it is first needed, and made anew after a failure.
        if connection.is_none() {
            match shared.database.connect_for_reading() {
                Ok(made) => *connection = Some(made),
                Err(error) => {
                    job(Err(error));
                    continue;
                }
            }
        }
        // What was asked before the snapshot is taken may be answered from it, too.
        let more = std::iter::from_fn(|| pool.next_before(moment));
        if let Some(made) = &*connection
            && !with_snapshot(shared, made, std::iter::once(job).chain(more))
        {
            *connection = None;
        }
    }
    *connection.0.lock() = None;
}

/// Runs jobs in one read transaction, which is what a commit of another connection makes dear: it
/// empties the page cache. `false`: the connection is not to be trusted any more.
fn with_snapshot(
    shared: &Shared,
    connection: &Connection,
    mut jobs: impl Iterator<Item = ReadJob>,
) -> bool {
    let failure = match guarded(|| read_snapshot(shared, connection)) {
        Ok(mut snapshot) => {
            jobs.by_ref().for_each(|job| job(Ok(&mut snapshot)));
            None
        }
        Err(error) => Some(error),
    };
    let ended = end_transaction(connection);
    match failure {
        Some(error) => {
            if let Some(job) = jobs.next() {
                job(Err(error));
            }
            false
        }
        None => ended.is_ok(),
    }
}

pub(super) fn end_transaction(connection: &Connection) -> Result<()> {
    if !connection.is_autocommit() {
        connection.prepare_cached("COMMIT")?.execute([])?;
    }
    Ok(())
}

/// Begins a read transaction and looks at the state of the log in it.
fn begin_snapshot<'c>(
    shared: &'c Shared,
    connection: &'c Connection,
    deadline: Option<Instant>,
) -> Result<LogSnapshot<'c>> {
    refuse_moved(connection)?;
    let tail = shared.tail.view();
    connection.prepare_cached("BEGIN")?.execute([])?;
    let (runs, head) = shared.catalog.load(connection)?;
    let caches = &shared.caches;
    Ok(LogSnapshot::new(
        connection, caches, head, runs, tail, deadline,
    ))
}

/// A snapshot that fails when the deadline has passed; `None` if the tail has to catch up first.
pub(super) fn snapshot_if_current<'c>(
    shared: &'c Shared,
    connection: &'c Connection,
    deadline: Instant,
) -> Result<Option<LogSnapshot<'c>>> {
    let snapshot = begin_snapshot(shared, connection, Some(deadline))?;
    Ok(Some(snapshot).filter(LogSnapshot::is_current))
}

/// A snapshot with the tail as far as it should be.
fn read_snapshot<'c>(shared: &'c Shared, connection: &'c Connection) -> Result<LogSnapshot<'c>> {
    loop {
        let snapshot = begin_snapshot(shared, connection, None)?;
        if snapshot.is_current() {
            return Ok(snapshot);
        }
        // Another process has written: its runs may go beyond this process's tail, and its newest
        // events are no part of it yet.
        catch_up(shared, &snapshot)?;
        end_transaction(connection)?;
    }
}

/// Extends the tail by the events that another process has committed.
pub(super) fn catch_up(shared: &Shared, snapshot: &LogSnapshot) -> Result<()> {
    shared.tail.prune(snapshot.runs.indexed_through);
    let first = shared.tail.through() + 1;
    for_each_facets(
        snapshot.connection,
        first - 1,
        snapshot.head,
        |sequence_number, facets| {
            shared.tail.extend(sequence_number, std::iter::once(facets));
        },
    )
}
