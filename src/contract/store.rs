use std::num::NonZeroUsize;

use async_trait::async_trait;

use super::{AppendResult, EventQuery, EventRecord, EventStoreError, NewEvent, QueryResult};

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

    /// Takes no new work, finishes what is in flight and releases everything. Idempotent.
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
