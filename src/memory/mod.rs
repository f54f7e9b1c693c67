//! The store in memory, for tests and examples: the whole contract but durability.

mod log;
mod source;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

pub(crate) use self::log::Log;
use self::source::Contents;
use crate::contract::{
    AppendResult, DurableStream, DurableStreamInfo, DurableStreamOptions, EventQuery, EventStore,
    EventStoreError, EventStream, HandleStream, NewEvent, QueryResult, ReadOptions, ReadPage,
    StreamOptions,
};
use crate::delivery::{CommittedBatch, Delivery, is_inside_handler};
use crate::payload::{CompiledQuery, PreparedBatch};
use crate::selection::{self, now_in_micros};

/// An event store in memory. Every operation completes at once; check and append are one step.
pub struct MemoryStore {
    contents: Arc<Contents>,
    delivery: Arc<Delivery>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter
            .debug_struct("MemoryStore")
            .finish_non_exhaustive()
    }
}

/// Streams end with their store.
impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.delivery.abandon();
    }
}

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        let contents = Arc::new(Contents::default());
        Self {
            delivery: Delivery::new(contents.clone()),
            contents,
        }
    }

    pub(crate) fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    #[cfg(test)]
    pub(crate) fn source(&self) -> Arc<dyn crate::delivery::LogSource> {
        self.contents.clone()
    }

    /// Appends a checked batch if the condition, when there is one, holds.
    pub(crate) fn append_prepared(
        &self,
        batch: PreparedBatch,
        condition: Option<(&CompiledQuery, Option<u64>)>,
    ) -> Result<AppendResult, EventStoreError> {
        let mut log = self.contents.write();
        let open = log.as_mut().ok_or(EventStoreError::StoreClosed)?;
        if let Some((query, expected)) = condition {
            selection::check_context(&mut &*open, query, expected, None)?;
        }
        let occurred_at = now_in_micros();
        let result = open.append(&batch, occurred_at);
        // Under the lock, so that batches are published in their order.
        let wakes = self.delivery.publish([CommittedBatch {
            first: result.first_sequence_number,
            occurred_at,
            batch,
        }]);
        drop(log);
        wakes.fire();
        Ok(result)
    }

    /// Runs `read` on the log as it is.
    pub(crate) fn with_snapshot<T>(
        &self,
        read: impl FnOnce(&mut &Log) -> Result<T, EventStoreError>,
    ) -> Result<T, EventStoreError> {
        let log = self.contents.read();
        read(&mut log.as_ref().ok_or(EventStoreError::StoreClosed)?)
    }

    pub(crate) fn head(&self) -> Result<Option<u64>, EventStoreError> {
        self.with_snapshot(|log| Ok(Some(log.len()).filter(|&head| head > 0)))
    }

    /// Ends the streams without waiting for their handlers, and frees the log.
    pub(crate) fn close_now(&self) {
        self.delivery.abandon();
        *self.contents.write() = None;
    }

    /// Frees the log, and calls `done` once the streams have ended.
    pub(crate) fn close_then(&self, done: impl FnOnce() + Send + 'static) {
        *self.contents.write() = None;
        self.delivery.close_then(done);
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn append(&self, new_events: Vec<NewEvent>) -> Result<AppendResult, EventStoreError> {
        self.append_prepared(PreparedBatch::from_events(&new_events)?, None)
    }

    async fn append_if(
        &self,
        new_events: Vec<NewEvent>,
        context_query: &EventQuery,
        expected_context_version: Option<u64>,
    ) -> Result<AppendResult, EventStoreError> {
        let batch = PreparedBatch::from_events(&new_events)?;
        let query = CompiledQuery::from_query(context_query)?;
        self.append_prepared(batch, Some((&query, expected_context_version)))
    }

    async fn query_with_limit(
        &self,
        event_query: &EventQuery,
        limit: Option<NonZeroUsize>,
    ) -> Result<QueryResult, EventStoreError> {
        let query = CompiledQuery::from_query(event_query)?;
        self.with_snapshot(|log| {
            selection::query_records(log, &query, event_query.min_sequence_number, limit)
        })
    }

    async fn read(
        &self,
        event_query: &EventQuery,
        options: ReadOptions,
    ) -> Result<ReadPage, EventStoreError> {
        let query = CompiledQuery::from_query(event_query)?;
        let options = selection::read_bounds(event_query.min_sequence_number, &options)?;
        self.with_snapshot(|log| selection::read_records(log, &query, &options))
    }

    async fn head_sequence_number(&self) -> Result<Option<u64>, EventStoreError> {
        self.head()
    }

    async fn stream_to_with(
        &self,
        event_query: &EventQuery,
        handle: HandleStream,
        options: StreamOptions,
    ) -> Result<EventStream, EventStoreError> {
        self.delivery.stream_to(event_query, handle, options).await
    }

    async fn stream_to_durable_with(
        &self,
        durable_stream: &DurableStream,
        event_query: &EventQuery,
        handle: HandleStream,
        options: DurableStreamOptions,
    ) -> Result<EventStream, EventStoreError> {
        self.delivery
            .stream_to_durable(durable_stream, event_query, handle, options)
            .await
    }

    async fn list_durable_streams(&self) -> Result<Vec<DurableStreamInfo>, EventStoreError> {
        self.delivery.list_streams().await
    }

    async fn reset_durable_stream(
        &self,
        durable_stream: &DurableStream,
        after: u64,
    ) -> Result<(), EventStoreError> {
        self.delivery.reset_stream(durable_stream, after).await
    }

    async fn delete_durable_stream(
        &self,
        durable_stream: &DurableStream,
    ) -> Result<(), EventStoreError> {
        self.delivery.delete_stream(durable_stream).await
    }

    async fn close(&self) -> Result<(), EventStoreError> {
        let (done, closed) = oneshot::channel();
        self.close_then(move || {
            let _ = done.send(());
        });
        if !is_inside_handler(&self.delivery) {
            let _ = closed.await;
        }
        Ok(())
    }
}
