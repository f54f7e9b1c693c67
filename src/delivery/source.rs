//! What the engine needs of a store.

use std::sync::Arc;

use super::page::BatchPage;
use crate::contract::{DurableStreamInfo, EventStoreError};
use crate::payload::CompiledQuery;

/// Takes an answer. It is called exactly once, by any thread, maybe before the question returns.
pub(crate) type Reply<T> = Box<dyn FnOnce(Result<T, EventStoreError>) + Send>;

/// A store's log and its cursors. No call blocks.
pub(crate) trait LogSource: Send + Sync {
    /// Tells the newest sequence number, 0 when empty.
    fn head(&self, reply: Reply<u64>);

    /// Reads whole committed batches.
    fn read_batches(&self, request: BatchRequest, reply: Reply<BatchPage>);

    /// A stream is opened: commits of other processes have to be told to
    /// [`Delivery::observe`](super::Delivery::observe) from now on.
    fn stream_opened(&self) {}

    /// A stream has ended.
    fn stream_closed(&self) {}

    /// Takes the lease of a durable stream, which is created if it is missing. Fails with
    /// `DurableStreamQueryMismatch` or `DurableStreamActive`.
    fn take_lease(&self, request: LeaseRequest, reply: Reply<Taken>);

    /// Lists the durable streams, by name.
    fn list(&self, reply: Reply<Vec<DurableStreamInfo>>);

    /// Moves an inactive stream's cursor to `after`, or to the end of the batch before, if that is
    /// in the middle of one.
    fn reset(&self, name: &str, after: u64, reply: Reply<()>);

    /// Forgets an inactive stream.
    fn delete(&self, name: &str, reply: Reply<()>);
}

/// Which batches to read.
#[derive(Debug, Clone)]
pub(crate) struct BatchRequest {
    pub(crate) query: Arc<CompiledQuery>,
    /// Exclusive; the end of a batch.
    pub(crate) after: u64,
    /// Inclusive; the end of a batch.
    pub(crate) through: u64,
    /// A page ends with the batch that reaches this many bytes of text, or this many batches.
    pub(crate) max_bytes: usize,
    pub(crate) max_batches: usize,
}

/// Which lease to take.
pub(crate) struct LeaseRequest {
    pub(crate) name: Arc<str>,
    pub(crate) query: Arc<CompiledQuery>,
    /// Called if the lease is lost to somebody else.
    pub(crate) lost: Box<dyn FnOnce(EventStoreError) + Send>,
}

/// A lease, and the state of the store when it was taken.
pub(crate) struct Taken {
    pub(crate) lease: Arc<dyn Lease>,
    /// The stored cursor.
    pub(crate) position: u64,
    pub(crate) head: u64,
}

/// The right to run a durable stream and to move its cursor.
pub(crate) trait Lease: Send + Sync {
    /// The cursor may be stored at `position`, sometime soon. Cheap; positions only grow.
    fn moved(&self, position: u64);

    /// Stores the cursor and gives the lease back. It may be called again, with a later position, when
    /// a call that was given up has succeeded after all: that counts if nobody has taken the lease or
    /// moved the cursor since.
    fn release(&self, position: u64, reply: Reply<()>);
}
