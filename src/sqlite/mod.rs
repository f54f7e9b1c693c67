//! The embedded, persistent store: one SQLite file, shared safely by several processes.

mod cache;
mod claimed;
mod database;
mod failure;
mod format;
mod indexer;
mod inline_reader;
mod lookup;
mod options;
mod reader_pool;
mod readers;
mod runs;
mod snapshot;
mod streams;
mod tail;
mod threads;
mod write_connection;
mod writer;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use crossbeam_channel::Sender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::cache::Caches;
use self::database::Database;
use self::failure::{Result, guarded};
use self::indexer::Indexer;
use self::inline_reader::{Caller, InlineReader};
use self::readers::{ReadJob, Readers, Shared};
use self::runs::Catalog;
use self::streams::SqliteStreams;
use self::tail::Tail;
use self::threads::Threads;
use self::write_connection::WriteConnection;
use self::writer::{Maintenance, Writer};
use crate::appending::{AppendRequest, Condition, answer_all};
use crate::contract::{
    AppendResult, DurableStream, DurableStreamInfo, DurableStreamOptions, EventQuery, EventStore,
    EventStoreError, EventStream, HandleStream, NewEvent, QueryResult, ReadOptions, ReadPage,
    StreamOptions,
};
use crate::delivery::{Delivery, HeldLeases, is_inside_handler};
use crate::payload::{CompiledQuery, PreparedBatch, refuse_arbitrary_precision};
use crate::selection::{self, ContextVersions};

pub(crate) use self::snapshot::LogSnapshot;
pub use options::{Durability, SqliteStoreOptions};

/// The most bytes of appends that wait for the writer; more have to wait before they are queued.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// How long a store that ends in a hurry waits for the cursors of its streams.
const LAST_CURSORS: Duration = Duration::from_millis(250);

/// An event store in one SQLite file.
///
/// Several stores, in this process and in others of the same machine, may share the file. A resolved
/// append survives a crash of the process and of the machine, unless
/// [`Durability::Normal`] is chosen.
///
/// A short `query` is read on the thread that polls its future, within half a millisecond (a page that has to
/// come from a slow disk may take longer); longer ones are read by the store's own threads. Events and
/// blocks of the index that were read lately stay in memory, up to 80 MiB.
pub struct SqliteStore {
    /// `None` once closed.
    handles: RwLock<Option<Handles>>,
    threads: Threads,
    path: Arc<Path>,
    delivery: Arc<Delivery>,
    streams: Arc<SqliteStreams>,
    versions: Arc<ContextVersions>,
    queue_share: Arc<Semaphore>,
    /// What the addon has asked for in this turn.
    deferred: Mutex<Deferred>,
}

/// Appends and reads that wait for [`SqliteStore::flush_deferred`].
#[derive(Default)]
struct Deferred {
    appends: Vec<AppendRequest>,
    reads: Vec<ReadJob>,
}

/// Dropping them ends the threads, once they have done what was asked of them.
struct Handles {
    /// `None` when read-only.
    appends: Option<Sender<Vec<AppendRequest>>>,
    reads: Readers,
    /// `None` when read-only.
    inline: Option<InlineReader>,
    shared: Arc<Shared>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter
            .debug_struct("SqliteStore")
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens a store with the default options; creates the file and its parent folders if missing.
    ///
    /// Blocks the thread for some milliseconds, or as long as it takes to migrate an older format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, SqliteStoreOptions::default())
    }

    /// Opens a store.
    ///
    /// Fails with `InvalidOptions` for a path that can't be a store's, with `StoreFormatUnsupported`
    /// for a file of a newer format or of another program, which is left as it was, and with
    /// `BackendFailure` if the disk refuses.
    pub fn open_with(path: impl AsRef<Path>, options: SqliteStoreOptions) -> Result<Self> {
        refuse_arbitrary_precision()?;
        let database = Database::new(path.as_ref(), options)?;
        let path = database.path.clone();
        guarded(|| Self::start(database)).map_err(|error| error.at(&path))
    }

    fn start(database: Database) -> Result<Self> {
        let path = database.path.clone();
        let connection = database.open()?;
        if let Some(connection) = &connection {
            indexer::index_backlog(connection)?;
        }
        let shared = Arc::new(Shared {
            database,
            tail: Tail::new(0),
            catalog: Catalog::default(),
            caches: Caches::default(),
        });
        // Whatever is wrong with the index is told now.
        match &connection {
            Some(connection) => shared.catalog.load(connection)?,
            None => shared
                .catalog
                .load(&shared.database.connect_for_reading()?)?,
        };
        let connection = connection.map(|connection| Arc::new(WriteConnection::new(connection)));
        let versions = Arc::new(ContextVersions::default());
        let (reads, mut threads) = readers::start(&shared)?;
        let inline = connection.clone();
        let inline = inline.map(|connection| InlineReader::new(connection, reads.connections()));
        let (streams, delivery) = SqliteStreams::new(reads.pool(), threads.len(), &shared);
        let mut appends = None;
        if let Some(connection) = connection {
            let delivery = (delivery.clone(), streams.leases().clone());
            let (writer, maintain) =
                start_writing(&shared, connection, &versions, delivery, &mut threads)?;
            appends = Some(writer);
            streams.start_writing(maintain);
        }
        let watching = streams.watch(shared.database.clone());
        threads.push(watching.map_err(no_thread)?);
        Ok(Self {
            handles: RwLock::new(Some(Handles {
                appends,
                reads,
                inline,
                shared,
            })),
            threads: Threads::new(threads),
            path,
            delivery,
            streams,
            versions,
            queue_share: Arc::new(Semaphore::new(QUEUE_BYTES)),
            deferred: Mutex::default(),
        })
    }

    pub(crate) fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// Queues a request. The reply is called by another thread, or at once if there is none to ask.
    pub(crate) fn submit_append(
        &self,
        batch: PreparedBatch,
        condition: Option<(CompiledQuery, Option<u64>)>,
        reply: impl FnOnce(Result<AppendResult>) + Send + 'static,
    ) {
        let condition = condition.map(|(query, expected)| Condition { query, expected });
        let request = self.request(batch, condition, None, reply);
        self.deferred().appends.push(request);
    }

    fn deferred(&self) -> MutexGuard<'_, Deferred> {
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what has been submitted since the last time, in its order: one wake-up and one
    /// group for all.
    pub(crate) fn flush_deferred(&self) {
        let Deferred { appends, reads } = std::mem::take(&mut *self.deferred());
        if !appends.is_empty() {
            self.queue(appends);
        }
        if !reads.is_empty() {
            self.queue_reads(reads);
        }
    }

    fn request(
        &self,
        batch: PreparedBatch,
        condition: Option<Condition>,
        share: Option<OwnedSemaphorePermit>,
        reply: impl FnOnce(Result<AppendResult>) + Send + 'static,
    ) -> AppendRequest {
        let path = self.path.clone();
        AppendRequest {
            batch,
            condition,
            reply: Box::new(move |verdict| reply(verdict.map_err(|error| error.at(&path)))),
            share,
        }
    }

    fn queue(&self, requests: Vec<AppendRequest>) {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        match handles.as_ref().map(|handles| handles.appends.as_ref()) {
            Some(Some(appends)) => {
                if let Err(refused) = appends.send(requests) {
                    answer_all(refused.0, &EventStoreError::StoreClosed);
                }
            }
            Some(None) => answer_all(
                requests,
                &EventStoreError::InvalidOptions(
                    "options.readOnly: the store was opened for reading only".to_owned(),
                ),
            ),
            None => answer_all(requests, &EventStoreError::StoreClosed),
        }
    }

    /// Submits a read, which one of the reader threads runs on a snapshot once it is flushed. The reply
    /// is called by that thread, or at once if there is none to ask.
    pub(crate) fn submit_read<T>(
        &self,
        read: impl FnOnce(&mut LogSnapshot) -> Result<T> + Send + 'static,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        if let Some(job) = self.read_job(read, reply) {
            self.deferred().reads.push(job);
        }
    }

    fn read_job<T>(
        &self,
        read: impl FnOnce(&mut LogSnapshot) -> Result<T> + Send + 'static,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) -> Option<ReadJob> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let Some(handles) = handles.as_ref() else {
            reply(Err(EventStoreError::StoreClosed));
            return None;
        };
        let shared = handles.shared.clone();
        Some(Box::new(move |snapshot| {
            let database = &shared.database;
            let answer = snapshot.and_then(|snapshot| guarded(|| read(snapshot)));
            let answer = database.refuse_changes().and(answer);
            reply(answer.map_err(|error| error.at(&database.path)));
        }))
    }

    fn queue_reads(&self, jobs: Vec<ReadJob>) {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let refused = match handles.as_ref() {
            Some(handles) => handles.reads.submit(jobs),
            None => jobs,
        };
        for job in refused {
            job(Err(EventStoreError::StoreClosed));
        }
    }

    /// Runs a short read on the event loop's thread, if it can be done at once. `None`: use
    /// [`submit_read`](Self::submit_read).
    pub(crate) fn read_inline<T>(
        &self,
        read: impl FnOnce(&mut LogSnapshot) -> Result<T>,
    ) -> Option<T> {
        self.read_here(Caller::EventLoop, read)
    }

    fn read_here<T>(
        &self,
        caller: Caller,
        read: impl FnOnce(&mut LogSnapshot) -> Result<T>,
    ) -> Option<T> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let handles = handles.as_ref()?;
        let inline = handles.inline.as_ref()?;
        inline.read(&handles.shared, caller, read)
    }

    /// What queries have found lately, for the conditions that will follow them.
    pub(crate) fn versions(&self) -> &Arc<ContextVersions> {
        &self.versions
    }

    /// What was asked for before is handed over first.
    fn take_handles(&self) -> Option<Handles> {
        self.flush_deferred();
        self.handles
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Takes no new work and starts to finish what is queued. Handlers are not waited for; streams
    /// get a moment to store their cursors.
    pub(crate) fn begin_close(&self) {
        let handles = self.take_handles();
        let (done, ended) = mpsc::channel();
        self.delivery.abandon();
        self.delivery.close_then(move || {
            let _ = done.send(());
        });
        let _ = ended.recv_timeout(LAST_CURSORS);
        self.streams.end();
        drop(handles);
    }

    /// Calls `done` when everything is finished and released, however often it is called.
    pub(crate) fn close_then(&self, done: impl FnOnce(Result<()>) + Send + 'static) {
        let handles = self.take_handles();
        let (streams, threads) = (self.streams.clone(), self.threads.clone());
        // Streams store their cursors and give their leases back before the threads end.
        self.delivery.close_then(move || {
            streams.end();
            drop(handles);
            threads.when_ended(done);
        });
    }

    async fn append_checked(
        &self,
        batch: PreparedBatch,
        condition: Option<Condition>,
    ) -> Result<AppendResult> {
        let weight = batch.weight().clamp(1, QUEUE_BYTES) as u32;
        let share = self
            .queue_share
            .clone()
            .acquire_many_owned(weight)
            .await
            .ok();
        let (reply, answer) = oneshot::channel();
        let request = self.request(batch, condition, share, move |verdict| {
            drop(reply.send(verdict));
        });
        self.queue(vec![request]);
        answer.await.unwrap_or(Err(EventStoreError::StoreClosed))
    }

    async fn read_snapshot<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut LogSnapshot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = self.read_job(read, move |result| drop(reply.send(result)));
        self.queue_reads(job.into_iter().collect());
        answer.await.unwrap_or(Err(EventStoreError::StoreClosed))
    }
}

fn start_writing(
    shared: &Arc<Shared>,
    connection: Arc<WriteConnection>,
    versions: &Arc<ContextVersions>,
    streams: (Arc<Delivery>, Arc<HeldLeases>),
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<(Sender<Vec<AppendRequest>>, Sender<Maintenance>)> {
    let (appends, queue) = crossbeam_channel::unbounded();
    let (maintain, maintenance) = crossbeam_channel::unbounded();
    let (wake, woken) = crossbeam_channel::bounded(1);
    let reading = shared.database.connect_for_reading()?;
    let indexer = Indexer::new(shared.clone(), reading, maintain.clone(), woken);
    let writer = Writer::new(
        shared.clone(),
        connection,
        versions.clone(),
        streams,
        queue,
        maintenance,
        wake,
    );
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    threads.push(
        named("factstr-indexer")
            .spawn(move || indexer.run())
            .map_err(no_thread)?,
    );
    threads.push(
        named("factstr-writer")
            .spawn(move || writer.run())
            .map_err(no_thread)?,
    );
    Ok((appends, maintain))
}

#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn no_thread(error: std::io::Error) -> EventStoreError {
    EventStoreError::BackendFailure(format!("a thread can't be started: {error}"))
}

/// Streams end with their store; those of a store that is being closed may finish.
impl Drop for SqliteStore {
    fn drop(&mut self) {
        let handles = self.handles.get_mut();
        if handles.unwrap_or_else(PoisonError::into_inner).is_some() {
            self.begin_close();
        }
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn append(&self, new_events: Vec<NewEvent>) -> Result<AppendResult> {
        self.append_checked(PreparedBatch::from_events(&new_events)?, None)
            .await
    }

    async fn append_if(
        &self,
        new_events: Vec<NewEvent>,
        context_query: &EventQuery,
        expected_context_version: Option<u64>,
    ) -> Result<AppendResult> {
        let batch = PreparedBatch::from_events(&new_events)?;
        let query = CompiledQuery::from_query(context_query)?;
        let condition = Condition {
            query,
            expected: expected_context_version,
        };
        self.append_checked(batch, Some(condition)).await
    }

    async fn query_with_limit(
        &self,
        event_query: &EventQuery,
        limit: Option<NonZeroUsize>,
    ) -> Result<QueryResult> {
        let query = CompiledQuery::from_query(event_query)?;
        let cursor = event_query.min_sequence_number;
        let versions = self.versions.clone();
        let read = move |snapshot: &mut LogSnapshot| {
            let result = selection::query_records(snapshot, &query, cursor, limit)?;
            versions.remember(&query, result.current_context_version, snapshot.head);
            Ok(result)
        };
        // A task that does nothing but ask lets the others of its thread have their turn.
        tokio::task::coop::consume_budget().await;
        if let Some(result) = self.read_here(Caller::Thread, &read) {
            return Ok(result);
        }
        self.read_snapshot(read).await
    }

    async fn read(&self, event_query: &EventQuery, options: ReadOptions) -> Result<ReadPage> {
        let query = CompiledQuery::from_query(event_query)?;
        let options = selection::read_bounds(event_query.min_sequence_number, &options)?;
        self.read_snapshot(move |snapshot| selection::read_records(snapshot, &query, &options))
            .await
    }

    async fn head_sequence_number(&self) -> Result<Option<u64>> {
        self.read_snapshot(|snapshot| Ok(Some(snapshot.head).filter(|&head| head > 0)))
            .await
    }

    async fn stream_to_with(
        &self,
        event_query: &EventQuery,
        handle: HandleStream,
        options: StreamOptions,
    ) -> Result<EventStream> {
        self.delivery.stream_to(event_query, handle, options).await
    }

    async fn stream_to_durable_with(
        &self,
        durable_stream: &DurableStream,
        event_query: &EventQuery,
        handle: HandleStream,
        options: DurableStreamOptions,
    ) -> Result<EventStream> {
        self.delivery
            .stream_to_durable(durable_stream, event_query, handle, options)
            .await
    }

    async fn list_durable_streams(&self) -> Result<Vec<DurableStreamInfo>> {
        self.delivery.list_streams().await
    }

    async fn reset_durable_stream(&self, durable_stream: &DurableStream, after: u64) -> Result<()> {
        self.delivery.reset_stream(durable_stream, after).await
    }

    async fn delete_durable_stream(&self, durable_stream: &DurableStream) -> Result<()> {
        self.delivery.delete_stream(durable_stream).await
    }

    async fn close(&self) -> Result<()> {
        let (done, finished) = oneshot::channel();
        self.close_then(move |result| drop(done.send(result)));
        if is_inside_handler(&self.delivery) {
            return Ok(());
        }
        finished.await.unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{LogSnapshot, Result, SqliteStore};

    #[test]
    fn a_panic_fails_the_read_that_met_it_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("store.db")).unwrap();
        let panicking = |_: &mut LogSnapshot| -> Result<u64> { panic!("on purpose") };
        assert!(store.read_inline(panicking).is_none());
        for _ in 0..8 {
            let (reply, answer) = mpsc::channel();
            store.submit_read(panicking, move |read| reply.send(read).unwrap());
            store.flush_deferred();
            let failed = answer.recv().unwrap().unwrap_err();
            assert_eq!(failed.code(), "BackendFailure");
            assert!(failed.to_string().contains("on purpose"), "{failed}");
        }
        let (reply, answer) = mpsc::channel();
        let read = |snapshot: &mut LogSnapshot| Ok(snapshot.head);
        store.submit_read(read, move |head| reply.send(head).unwrap());
        store.flush_deferred();
        assert_eq!(answer.recv().unwrap(), Ok(0));
    }
}
