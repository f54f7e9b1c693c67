use napi_derive::napi;

use super::page::{INLINE_PAGE_BYTES, PageOptions};
use super::{Failure, failure, from_optional, optional};
use crate::contract::EventStoreError;
use crate::memory::MemoryStore;
use crate::payload::{CompiledQuery, PreparedBatch};
use crate::selection::PAGE_BYTES;

/// The memory store for `index.js`. Every call completes at once.
#[napi]
#[derive(Debug, Default)]
pub struct NativeMemoryStore {
    store: MemoryStore,
}

/// An append's answer; -1 stands for "none".
#[napi(object)]
#[derive(Debug)]
pub struct Appended {
    /// -1: the condition did not hold.
    pub first: f64,
    /// The last sequence number, or the context's version if the condition did not hold.
    pub last: f64,
}

#[napi]
impl NativeMemoryStore {
    /// Makes an empty store.
    #[napi(constructor, catch_unwind)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a batch.
    #[napi(catch_unwind)]
    pub fn append(&self, events: String) -> Result<Appended, Failure> {
        PreparedBatch::from_json(&events)
            .and_then(|batch| self.store.append_prepared(batch, None))
            .map(|result| Appended {
                first: result.first_sequence_number as f64,
                last: result.last_sequence_number as f64,
            })
            .map_err(|error| failure(&error))
    }

    /// Appends a batch if the newest match of the filters is the expected one.
    #[napi(catch_unwind)]
    pub fn append_if(
        &self,
        events: String,
        filters: String,
        expected: f64,
    ) -> Result<Appended, Failure> {
        let append = || {
            let batch = PreparedBatch::from_json(&events)?;
            let query = CompiledQuery::from_json(&filters)?;
            self.store
                .append_prepared(batch, Some((&query, from_optional(expected))))
        };
        match append() {
            Ok(result) => Ok(Appended {
                first: result.first_sequence_number as f64,
                last: result.last_sequence_number as f64,
            }),
            Err(EventStoreError::ConditionalAppendConflict { actual, .. }) => Ok(Appended {
                first: -1.0,
                last: optional(actual),
            }),
            Err(error) => Err(failure(&error)),
        }
    }

    /// Reads one page; the first one of a result is a short one.
    #[napi(catch_unwind)]
    pub fn page(
        &self,
        filters: String,
        after: f64,
        before: f64,
        backwards: bool,
        max_rows: f64,
        version: bool,
    ) -> Result<String, Failure> {
        let options = PageOptions {
            after,
            before,
            backwards,
            max_rows,
            version,
        };
        let max_bytes = if options.before < 0.0 {
            INLINE_PAGE_BYTES
        } else {
            PAGE_BYTES
        };
        CompiledQuery::from_json(&filters)
            .and_then(|query| {
                self.store
                    .with_snapshot(|log| options.take(log, &query, max_bytes))
            })
            .map(|page| page.text)
            .map_err(|error| failure(&error))
    }

    /// Tells the newest sequence number, -1 when empty.
    #[napi(catch_unwind)]
    pub fn head(&self) -> Result<f64, Failure> {
        self.store
            .head()
            .map(optional)
            .map_err(|error| failure(&error))
    }

    /// Frees the log.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.store.close_now();
    }
}
