//! What a store with a writer queues.

use tokio::sync::OwnedSemaphorePermit;

use crate::contract::{AppendResult, EventStoreError};
use crate::payload::{CompiledQuery, PreparedBatch};

/// Takes a verdict; it is called exactly once.
pub(crate) type Reply = Box<dyn FnOnce(Result<AppendResult, EventStoreError>) + Send>;

/// A batch that waits to be committed.
pub(crate) struct AppendRequest {
    pub(crate) batch: PreparedBatch,
    pub(crate) condition: Option<Condition>,
    pub(crate) reply: Reply,
    /// The request's share of the queue, given back when it leaves it.
    pub(crate) share: Option<OwnedSemaphorePermit>,
}

/// The newest match of `query` must be `expected`.
pub(crate) struct Condition {
    pub(crate) query: CompiledQuery,
    pub(crate) expected: Option<u64>,
}

/// Tells all the same.
pub(crate) fn answer_all(group: impl IntoIterator<Item = AppendRequest>, error: &EventStoreError) {
    for request in group {
        (request.reply)(Err(error.clone()));
    }
}
