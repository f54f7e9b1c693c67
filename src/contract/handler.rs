use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{EventRecord, EventStoreError};

/// What a [`HandleStream`] returns.
pub type StreamHandlerFuture =
    Pin<Box<dyn Future<Output = Result<(), StreamHandlerError>> + Send + 'static>>;

/// A stream's handler: takes one committed batch (or several, if it asked for that), and the next
/// one only when it has succeeded with that.
#[derive(Clone)]
pub struct HandleStream {
    handle: Arc<dyn Fn(Vec<EventRecord>) -> StreamHandlerFuture + Send + Sync + 'static>,
}

impl HandleStream {
    /// Makes a handler of an asynchronous function.
    pub fn new<F, Fut>(handle: F) -> Self
    where
        F: Fn(Vec<EventRecord>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), StreamHandlerError>> + Send + 'static,
    {
        Self {
            handle: Arc::new(move |event_records| Box::pin(handle(event_records))),
        }
    }

    /// Calls the handler.
    #[must_use]
    pub fn call(&self, event_records: Vec<EventRecord>) -> StreamHandlerFuture {
        (self.handle)(event_records)
    }
}

impl fmt::Debug for HandleStream {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter
            .debug_struct("HandleStream")
            .finish_non_exhaustive()
    }
}

/// Why a stream's handler failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StreamHandlerError {
    message: String,
}

impl StreamHandlerError {
    /// Makes an error.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }

    /// What went wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// So that a handler can use `?` on the store's own operations.
impl From<EventStoreError> for StreamHandlerError {
    fn from(error: EventStoreError) -> Self {
        Self::new(error.to_string())
    }
}
