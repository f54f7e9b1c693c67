use std::num::NonZeroUsize;

use async_trait::async_trait;

use super::{
    AppendResult, DurableStream, DurableStreamInfo, DurableStreamOptions, EventQuery, EventRecord,
    EventStoreError, EventStream, HandleStream, NewEvent, QueryResult, StreamOptions,
};

/// One append-only log of facts. Every store implements it, and `dyn EventStore` works too.
///
/// Operations started one after another by one caller are committed in the order in which their
/// futures are first polled. The futures need no particular runtime.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Commits all events as one batch with one consecutive range of sequence numbers, or none.
    async fn append(&self, new_events: Vec<NewEvent>) -> Result<AppendResult, EventStoreError>;

    /// Appends if and only if the newest match of `context_query` is exactly
    /// `expected_context_version` (`None`: nothing matches). The query's cursor is ignored.
    ///
    /// Otherwise nothing is appended, no sequence number is used up, and the error is
    /// [`EventStoreError::ConditionalAppendConflict`].
    async fn append_if(
        &self,
        new_events: Vec<NewEvent>,
        context_query: &EventQuery,
        expected_context_version: Option<u64>,
    ) -> Result<AppendResult, EventStoreError>;

    /// Returns the matching events in ascending order and the context's version, from one snapshot.
    async fn query(&self, event_query: &EventQuery) -> Result<QueryResult, EventStoreError> {
        self.query_with_limit(event_query, None).await
    }

    /// Like [`query`](Self::query), with at most `limit` rows: the first ones after the cursor. The
    /// context version is not affected.
    async fn query_with_limit(
        &self,
        event_query: &EventQuery,
        limit: Option<NonZeroUsize>,
    ) -> Result<QueryResult, EventStoreError>;

    /// Reads one page of the matching events, forwards or backwards, for results larger than memory.
    ///
    /// Go on with [`ReadPage::next`] until it is `None`. The first page fixes the newest event that
    /// the read will see, so that a read ends while others append.
    async fn read(
        &self,
        event_query: &EventQuery,
        options: ReadOptions,
    ) -> Result<ReadPage, EventStoreError>;

    /// Returns the newest sequence number, `None` for an empty store.
    async fn head_sequence_number(&self) -> Result<Option<u64>, EventStoreError>;

    /// Hands every batch committed from now on to `handle`, one after another in committed order.
    async fn stream_all(&self, handle: HandleStream) -> Result<EventStream, EventStoreError> {
        self.stream_to_with(&EventQuery::all(), handle, StreamOptions::default())
            .await
    }

    /// Like [`stream_all`](Self::stream_all), with options.
    async fn stream_all_with(
        &self,
        handle: HandleStream,
        options: StreamOptions,
    ) -> Result<EventStream, EventStoreError> {
        self.stream_to_with(&EventQuery::all(), handle, options)
            .await
    }

    /// Hands the matching events of every batch committed from now on to `handle`. Batches without
    /// a match are not delivered. The query's cursor is ignored.
    async fn stream_to(
        &self,
        event_query: &EventQuery,
        handle: HandleStream,
    ) -> Result<EventStream, EventStoreError> {
        self.stream_to_with(event_query, handle, StreamOptions::default())
            .await
    }

    /// Like [`stream_to`](Self::stream_to), with options.
    ///
    /// The handler runs on the current Tokio runtime, or, where there is none, on one of the crate's
    /// own. A handler that fails is reported, and the stream goes on; a panic is a failure.
    async fn stream_to_with(
        &self,
        event_query: &EventQuery,
        handle: HandleStream,
        options: StreamOptions,
    ) -> Result<EventStream, EventStoreError>;

    /// Hands every batch after the stream's stored cursor to `handle`, and goes on with what will be
    /// committed.
    async fn stream_all_durable(
        &self,
        durable_stream: &DurableStream,
        handle: HandleStream,
    ) -> Result<EventStream, EventStoreError> {
        let options = DurableStreamOptions::default();
        self.stream_to_durable_with(durable_stream, &EventQuery::all(), handle, options)
            .await
    }

    /// Like [`stream_all_durable`](Self::stream_all_durable), with options.
    async fn stream_all_durable_with(
        &self,
        durable_stream: &DurableStream,
        handle: HandleStream,
        options: DurableStreamOptions,
    ) -> Result<EventStream, EventStoreError> {
        self.stream_to_durable_with(durable_stream, &EventQuery::all(), handle, options)
            .await
    }

    /// Hands the matching events of every batch after the stream's stored cursor to `handle`, and
    /// goes on with what will be committed.
    async fn stream_to_durable(
        &self,
        durable_stream: &DurableStream,
        event_query: &EventQuery,
        handle: HandleStream,
    ) -> Result<EventStream, EventStoreError> {
        let options = DurableStreamOptions::default();
        self.stream_to_durable_with(durable_stream, event_query, handle, options)
            .await
    }

    /// Like [`stream_to_durable`](Self::stream_to_durable), with options.
    ///
    /// Completes when the stream has caught up with the head as of the call. The cursor moves only
    /// past batches with which the handler has succeeded, or that do not match. Dropping the future
    /// before it completes unsubscribes.
    async fn stream_to_durable_with(
        &self,
        durable_stream: &DurableStream,
        event_query: &EventQuery,
        handle: HandleStream,
        options: DurableStreamOptions,
    ) -> Result<EventStream, EventStoreError>;

    /// Lists the durable streams that the store knows, by name.
    async fn list_durable_streams(&self) -> Result<Vec<DurableStreamInfo>, EventStoreError>;

    /// Moves the cursor of a durable stream that is not active: it will start after `after`, with
    /// whole batches. 0 replays everything.
    async fn reset_durable_stream(
        &self,
        durable_stream: &DurableStream,
        after: u64,
    ) -> Result<(), EventStoreError>;

    /// Forgets a durable stream that is not active.
    async fn delete_durable_stream(
        &self,
        durable_stream: &DurableStream,
    ) -> Result<(), EventStoreError>;

    /// Takes no new work, finishes what is in flight, ends the streams (a running handler is waited
    /// for, its cursor stored) and releases everything. Idempotent.
    ///
    /// Called from inside of a stream's handler it does not wait for the handlers.
    async fn close(&self) -> Result<(), EventStoreError>;
}

/// Which part of the log a [`read`](EventStore::read) covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// Exclusive lower bound; the query's own cursor by another name, so only one may be given.
    pub after: Option<u64>,
    /// Exclusive upper bound.
    pub before: Option<u64>,
    /// Starts at the newest event.
    pub backwards: bool,
    /// The most rows of one page. A page is also cut at about 256 KiB of JSON text.
    pub page_size: NonZeroUsize,
}

impl ReadOptions {
    /// The default of `page_size`.
    pub const DEFAULT_PAGE_SIZE: NonZeroUsize = NonZeroUsize::new(1_000).expect("not zero");
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            after: None,
            before: None,
            backwards: false,
            page_size: Self::DEFAULT_PAGE_SIZE,
        }
    }
}

/// One page of a [`read`](EventStore::read).
#[derive(Debug, Clone, PartialEq)]
pub struct ReadPage {
    /// The rows, in the direction of the read.
    pub event_records: Vec<EventRecord>,
    /// The options that read the next page, `None` after the last one.
    pub next: Option<ReadOptions>,
}
