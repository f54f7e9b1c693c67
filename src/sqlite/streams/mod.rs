//! What the stream engine needs of the SQLite store.

mod batches;

use std::sync::Arc;

use super::reader_pool::ReaderPool;
use super::readers::ReadJob;
use crate::contract::{DurableStreamInfo, EventStoreError};
use crate::delivery::{BatchPage, BatchRequest, LeaseRequest, LogSource, Reply, Taken};

/// The log, read by the store's readers.
pub(super) struct SqliteSource {
    pub(super) readers: Arc<ReaderPool<ReadJob>>,
}

impl SqliteSource {
    fn read(&self, job: ReadJob) {
        if let Err(refused) = self.readers.submit(job) {
            refused(Err(EventStoreError::StoreClosed));
        }
    }
}

impl LogSource for SqliteSource {
    fn head(&self, reply: Reply<u64>) {
        self.read(Box::new(|snapshot| {
            reply(snapshot.map(|snapshot| snapshot.head));
        }));
    }

    fn read_batches(&self, request: BatchRequest, reply: Reply<BatchPage>) {
        self.read(Box::new(move |snapshot| {
            reply(snapshot.and_then(|snapshot| batches::read(snapshot, &request)));
        }));
    }

    fn take_lease(&self, _: LeaseRequest, reply: Reply<Taken>) {
        reply(Err(EventStoreError::InvalidOptions("not yet".to_owned())));
    }

    fn list(&self, reply: Reply<Vec<DurableStreamInfo>>) {
        reply(Ok(Vec::new()));
    }

    fn reset(&self, _: &str, _: u64, reply: Reply<()>) {
        reply(Err(EventStoreError::InvalidOptions("not yet".to_owned())));
    }

    fn delete(&self, _: &str, reply: Reply<()>) {
        reply(Err(EventStoreError::InvalidOptions("not yet".to_owned())));
    }
}
