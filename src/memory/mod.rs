//! The store in memory, for tests and examples: the whole contract but durability.

mod log;

use std::num::NonZeroUsize;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;

pub(crate) use self::log::Log;
use crate::contract::{
    AppendResult, EventQuery, EventStore, EventStoreError, NewEvent, QueryResult, ReadOptions,
    ReadPage,
};
use crate::payload::{CompiledQuery, PreparedBatch};
use crate::selection;

/// An event store in memory. Every operation completes at once; check and append are one step.
#[derive(Debug)]
pub struct MemoryStore {
    /// `None` once closed.
    log: RwLock<Option<Log>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            log: RwLock::new(Some(Log::default())),
        }
    }

    // A panic while the lock is held would have to be a bug in this module; the log stays readable.
    fn read_lock(&self) -> RwLockReadGuard<'_, Option<Log>> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, Option<Log>> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a checked batch if the condition, when there is one, holds.
    pub(crate) fn append_prepared(
        &self,
        batch: &PreparedBatch,
        condition: Option<(&CompiledQuery, Option<u64>)>,
    ) -> Result<AppendResult, EventStoreError> {
        let mut log = self.write_lock();
        let log = log.as_mut().ok_or(EventStoreError::StoreClosed)?;
        if let Some((query, expected)) = condition {
            selection::check_context(&mut &*log, query, expected, None)?;
        }
        Ok(log.append(batch))
    }

    /// Runs `read` on the log as it is.
    pub(crate) fn with_snapshot<T>(
        &self,
        read: impl FnOnce(&mut &Log) -> Result<T, EventStoreError>,
    ) -> Result<T, EventStoreError> {
        let log = self.read_lock();
        read(&mut log.as_ref().ok_or(EventStoreError::StoreClosed)?)
    }

    pub(crate) fn head(&self) -> Result<Option<u64>, EventStoreError> {
        self.with_snapshot(|log| Ok(Some(log.len()).filter(|&head| head > 0)))
    }

    pub(crate) fn close_now(&self) {
        *self.write_lock() = None;
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn append(&self, new_events: Vec<NewEvent>) -> Result<AppendResult, EventStoreError> {
        self.append_prepared(&PreparedBatch::from_events(&new_events)?, None)
    }

    async fn append_if(
        &self,
        new_events: Vec<NewEvent>,
        context_query: &EventQuery,
        expected_context_version: Option<u64>,
    ) -> Result<AppendResult, EventStoreError> {
        let batch = PreparedBatch::from_events(&new_events)?;
        let query = CompiledQuery::from_query(context_query)?;
        self.append_prepared(&batch, Some((&query, expected_context_version)))
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

    async fn close(&self) -> Result<(), EventStoreError> {
        self.close_now();
        Ok(())
    }
}
