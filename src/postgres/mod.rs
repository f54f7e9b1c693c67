//! The store in a PostgreSQL database, shared by any number of processes on any number of machines.

mod backend;
mod connect;
mod group;
mod options;
mod plan;
mod reading;
mod schema;
mod statements;
mod streams;
mod writer;

use std::convert::Infallible;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use async_trait::async_trait;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_postgres::types::Type;

use self::backend::{Backend, Result};
use self::connect::{ConnectionTarget, Connections};
use self::streams::PostgresStreams;
use self::writer::Writer;
use crate::appending::{AppendRequest, Condition, answer_all};
use crate::contract::{
    AppendResult, DurableStream, DurableStreamInfo, DurableStreamOptions, EventQuery, EventStore,
    EventStoreError, EventStream, HandleStream, NewEvent, QueryResult, ReadOptions, ReadPage,
    StreamOptions,
};
use crate::delivery::{Delivery, is_inside_handler};
use crate::payload::{CompiledQuery, PreparedBatch, refuse_arbitrary_precision};
use crate::selection::{self, PageEnd, PageRequest, RecordSink, RowSink};

pub use options::{PostgresStoreOptions, TlsOptions};

/// The most bytes of appends that wait for the writer; more have to wait before they are queued.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Where a server's databases are made from.
const MAINTENANCE_DATABASE: &str = "postgres";

/// An event store in a schema of a PostgreSQL database.
///
/// Any number of stores may share the schema. A resolved append survives a crash of the process, of the
/// server and of its machine, as far as the server is configured to flush what it commits; where
/// `synchronous_commit` is off by default, appends turn it on.
pub struct PostgresStore {
    /// `None` once closed.
    handles: RwLock<Option<Handles>>,
    backend: Arc<Backend>,
    delivery: Arc<Delivery>,
    queue_share: Arc<Semaphore>,
    /// What the addon has asked for in this turn.
    deferred: Mutex<Vec<AppendRequest>>,
    /// Tells `true` when everything is released.
    released: watch::Receiver<bool>,
}

/// Dropping them ends the writer once it has done what was asked of it.
struct Handles {
    appends: mpsc::UnboundedSender<Vec<AppendRequest>>,
    /// Each operation under way has a clone.
    under_way: mpsc::Sender<Infallible>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter
            .debug_struct("PostgresStore")
            .field("connections", &self.backend.connections)
            .finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Opens a store with the default options. What is missing in the schema is created.
    ///
    /// `url`: `postgres://user:password@host:port/database?sslmode=verify-full`, or what else libpq takes.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, PostgresStoreOptions::default()).await
    }

    /// Opens a store.
    ///
    /// Fails with `InvalidOptions` for a URL or option that can't be right, with `StoreFormatUnsupported`
    /// for a schema of a newer format or of another program, which is left as it was, and with
    /// `BackendFailure` if the server can't be reached or refuses.
    pub async fn connect_with(url: &str, options: PostgresStoreOptions) -> Result<Self> {
        refuse_arbitrary_precision()?;
        let target = ConnectionTarget::parse(url, &options)?;
        Self::open(target, &options).await
    }

    /// Creates the database, unless it exists, and opens a store in it. `server_url` names a database of
    /// the same server to ask, or none: then it is `postgres`.
    ///
    /// `database_name` matches `[A-Za-z_][A-Za-z0-9_]*` and has at most 63 characters.
    pub async fn bootstrap(
        server_url: &str,
        database_name: &str,
        options: PostgresStoreOptions,
    ) -> Result<Self> {
        refuse_arbitrary_precision()?;
        check_database_name(database_name)?;
        let mut server = ConnectionTarget::parse(server_url, &options)?;
        let target = server.with_database(database_name);
        if server.database().is_none() {
            server = server.with_database(MAINTENANCE_DATABASE);
        }
        create_database(server, database_name, &options).await?;
        Self::open(target, &options).await
    }

    async fn open(target: ConnectionTarget, options: &PostgresStoreOptions) -> Result<Self> {
        let patience = target.connect_timeout();
        let one = PostgresStoreOptions {
            max_connections: 1,
            ..options.clone()
        };
        let apart = Connections::new(target.clone(), &one)?;
        let connections = Connections::new(target, options)?;
        let backend = Backend::new(connections, &options.schema, patience)?;
        let opening = backend.clone();
        // In the crate's own runtime, whoever waits.
        let opened = backend
            .runtime
            .spawn(async move { schema::open(&opening).await });
        opened.await.unwrap_or(Err(EventStoreError::StoreClosed))?;
        let upkeep = backend.by(apart);
        Ok(Self::start(backend, &upkeep, options))
    }

    /// `upkeep`: for what must not wait until others have read.
    fn start(backend: Arc<Backend>, upkeep: &Arc<Backend>, options: &PostgresStoreOptions) -> Self {
        let (streams, delivery) =
            PostgresStreams::new(backend.clone(), upkeep, options.poll_interval);
        let (appends, queue) = mpsc::unbounded_channel();
        let (under_way, mut all_done) = mpsc::channel(1);
        let (ended, ending) = watch::channel(false);
        let (release, released) = watch::channel(false);
        let committed = Arc::new(Notify::new());
        let writer = Writer::new(backend.clone(), delivery.clone(), queue, committed.clone());
        let runtime = &backend.runtime;
        runtime.spawn(streams::notify(upkeep.clone(), committed, ending));
        let connections = [backend.connections.clone(), upkeep.connections.clone()];
        let writing = runtime.spawn(writer.run());
        runtime.spawn(async move {
            // A writer that panics must not keep a store from being closed.
            let has_appended = writing.await.unwrap_or(true);
            let _ = all_done.recv().await;
            streams.end(has_appended).await;
            ended.send_replace(true);
            connections.iter().for_each(Connections::close);
            release.send_replace(true);
        });
        Self {
            handles: RwLock::new(Some(Handles { appends, under_way })),
            backend,
            delivery,
            queue_share: Arc::new(Semaphore::new(QUEUE_BYTES)),
            deferred: Mutex::default(),
            released,
        }
    }

    pub(crate) fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// Queues a request, once it is flushed.
    pub(crate) fn submit_append(
        &self,
        batch: PreparedBatch,
        condition: Option<(CompiledQuery, Option<u64>)>,
        reply: impl FnOnce(Result<AppendResult>) + Send + 'static,
    ) {
        let condition = condition.map(|(query, expected)| Condition { query, expected });
        let request = request(batch, condition, None, reply);
        self.deferred().push(request);
    }

    fn deferred(&self) -> MutexGuard<'_, Vec<AppendRequest>> {
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what has been submitted since the last time, in its order: one wake-up and one
    /// group for all.
    pub(crate) fn flush_deferred(&self) {
        let appends = std::mem::take(&mut *self.deferred());
        if !appends.is_empty() {
            self.queue(appends);
        }
    }

    fn queue(&self, requests: Vec<AppendRequest>) {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        match handles.as_ref() {
            Some(handles) => {
                if let Err(refused) = handles.appends.send(requests) {
                    answer_all(refused.0, &EventStoreError::StoreClosed);
                }
            }
            None => answer_all(requests, &EventStoreError::StoreClosed),
        }
    }

    /// A sign that an operation is under way.
    fn under_way(&self) -> Result<mpsc::Sender<Infallible>> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let handles = handles.as_ref().ok_or(EventStoreError::StoreClosed)?;
        Ok(handles.under_way.clone())
    }

    /// Runs something in the crate's own runtime. The reply is called there, or at once if the store is
    /// closed.
    fn submit<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        match self.under_way() {
            Ok(under_way) => {
                self.backend.runtime.spawn(async move {
                    reply(work.await);
                    drop(under_way);
                });
            }
            Err(closed) => reply(Err(closed)),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.submit(work, move |result| drop(reply.send(result)));
        answer.await.unwrap_or(Err(EventStoreError::StoreClosed))
    }

    /// Reads a page into a sink.
    pub(crate) fn submit_page<S: RowSink + Send + 'static>(
        &self,
        query: CompiledQuery,
        request: PageRequest,
        version: bool,
        mut sink: S,
        reply: impl FnOnce(Result<(S, PageEnd, Option<u64>)>) + Send + 'static,
    ) {
        let backend = self.backend.clone();
        let work = async move {
            let page = reading::page(&backend, &query, request, version, &mut sink).await?;
            if version {
                backend.versions.remember(&query, page.version, page.head);
            }
            Ok((sink, page.end, page.version))
        };
        self.submit(work, reply);
    }

    /// Tells the newest sequence number.
    pub(crate) fn submit_head(&self, reply: impl FnOnce(Result<Option<u64>>) + Send + 'static) {
        let backend = self.backend.clone();
        let work = async move {
            let head = streams::head(&backend).await?;
            Ok(Some(head).filter(|&head| head > 0))
        };
        self.submit(work, reply);
    }

    /// Takes no new work and starts to finish what is queued. Handlers are not waited for.
    pub(crate) fn begin_close(&self) {
        let handles = self.take_handles();
        self.delivery.abandon();
        self.delivery.close_then(move || drop(handles));
    }

    /// Calls `done` when everything is finished and released, however often it is called.
    pub(crate) fn close_then(&self, done: impl FnOnce(Result<()>) + Send + 'static) {
        let handles = self.take_handles();
        let mut released = self.released.clone();
        let runtime = self.backend.runtime.clone();
        // Streams store their cursors and give their leases back before the connections end.
        self.delivery.close_then(move || {
            drop(handles);
            runtime.spawn(async move {
                let _ = released.wait_for(|released| *released).await;
                done(Ok(()));
            });
        });
    }

    /// What was asked for before is handed over first.
    fn take_handles(&self) -> Option<Handles> {
        self.flush_deferred();
        self.handles
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn append_checked(
        &self,
        batch: PreparedBatch,
        condition: Option<Condition>,
    ) -> Result<AppendResult> {
        let weight = batch.weight().clamp(1, QUEUE_BYTES) as u32;
        let share = self.queue_share.clone();
        let share = share.acquire_many_owned(weight).await.ok();
        let (reply, answer) = oneshot::channel();
        let request = request(batch, condition, share, move |verdict| {
            drop(reply.send(verdict));
        });
        self.queue(vec![request]);
        answer.await.unwrap_or(Err(EventStoreError::StoreClosed))
    }
}

fn request(
    batch: PreparedBatch,
    condition: Option<Condition>,
    share: Option<OwnedSemaphorePermit>,
    reply: impl FnOnce(Result<AppendResult>) + Send + 'static,
) -> AppendRequest {
    AppendRequest {
        batch,
        condition,
        reply: Box::new(reply),
        share,
    }
}

fn check_database_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next();
    let starts = first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if starts && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && name.len() <= 63
    {
        return Ok(());
    }
    Err(EventStoreError::InvalidOptions(
        "databaseName: must match [A-Za-z_][A-Za-z0-9_]* and have at most 63 characters".to_owned(),
    ))
}

async fn create_database(
    server: ConnectionTarget,
    name: &str,
    options: &PostgresStoreOptions,
) -> Result<()> {
    let patience = server.connect_timeout();
    let backend = Backend::new(Connections::new(server, options)?, "public", patience)?;
    let (asking, name) = (backend.clone(), name.to_owned());
    let created = backend.runtime.spawn(async move {
        let outcome = create_database_if_missing(&asking, &name).await;
        asking.connections.close();
        outcome
    });
    created.await.unwrap_or(Err(EventStoreError::StoreClosed))
}

async fn create_database_if_missing(backend: &Backend, name: &str) -> Result<()> {
    let sql = "SELECT 1 FROM pg_database WHERE datname = $1";
    if !backend.ask(sql, &[(&name, Type::TEXT)]).await?.is_empty() {
        return Ok(());
    }
    let create = format!("CREATE DATABASE {}", statements::quoted(name));
    match backend.ask(&create, &[]).await {
        Ok(_) => Ok(()),
        // Another process may have been faster.
        Err(error) => match backend.ask(sql, &[(&name, Type::TEXT)]).await {
            Ok(rows) if !rows.is_empty() => Ok(()),
            _ => Err(error),
        },
    }
}

/// Streams end with their store; those of a store that is being closed may finish.
impl Drop for PostgresStore {
    fn drop(&mut self) {
        let handles = self.handles.get_mut();
        if handles.unwrap_or_else(PoisonError::into_inner).is_some() {
            self.begin_close();
        }
    }
}

#[async_trait]
impl EventStore for PostgresStore {
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
        let request = PageRequest {
            after: event_query.min_sequence_number.unwrap_or(0),
            before: None,
            backwards: false,
            max_rows: limit.map_or(usize::MAX, NonZeroUsize::get),
            max_bytes: usize::MAX,
        };
        let backend = self.backend.clone();
        self.run(async move {
            let mut sink = RecordSink::default();
            let page = reading::page(&backend, &query, request, true, &mut sink).await?;
            backend.versions.remember(&query, page.version, page.head);
            Ok(QueryResult {
                event_records: sink.into_records()?,
                last_returned_sequence_number: page.end.last,
                current_context_version: page.version,
            })
        })
        .await
    }

    async fn read(&self, event_query: &EventQuery, options: ReadOptions) -> Result<ReadPage> {
        let query = CompiledQuery::from_query(event_query)?;
        let options = selection::read_bounds(event_query.min_sequence_number, &options)?;
        let backend = self.backend.clone();
        self.run(async move {
            let mut sink = RecordSink::default();
            let request = selection::read_request(&options);
            let page = reading::page(&backend, &query, request, false, &mut sink).await?;
            Ok(ReadPage {
                event_records: sink.into_records()?,
                next: selection::next_page(&options, page.end),
            })
        })
        .await
    }

    async fn head_sequence_number(&self) -> Result<Option<u64>> {
        let backend = self.backend.clone();
        self.run(async move {
            let head = streams::head(&backend).await?;
            Ok(Some(head).filter(|&head| head > 0))
        })
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
        let under_way = self.under_way()?;
        let listed = self.delivery.list_streams().await;
        drop(under_way);
        listed
    }

    async fn reset_durable_stream(&self, durable_stream: &DurableStream, after: u64) -> Result<()> {
        let under_way = self.under_way()?;
        let reset = self.delivery.reset_stream(durable_stream, after).await;
        drop(under_way);
        reset
    }

    async fn delete_durable_stream(&self, durable_stream: &DurableStream) -> Result<()> {
        let under_way = self.under_way()?;
        let deleted = self.delivery.delete_stream(durable_stream).await;
        drop(under_way);
        deleted
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
