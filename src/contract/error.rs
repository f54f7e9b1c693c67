use thiserror::Error;

use super::StreamHandlerError;

/// Why an operation failed. Nothing was committed unless the variant says otherwise.
///
/// [`code`](Self::code) gives the same stable names that the Node.js package uses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EventStoreError {
    /// The append had no events.
    #[error("an append needs at least one event")]
    EmptyAppend,
    /// An event broke a limit; the message starts with the path to the culprit.
    #[error("{0}")]
    InvalidEvent(String),
    /// A query has the wrong shape; the message starts with the path to the culprit.
    #[error("{0}")]
    InvalidQuery(String),
    /// A path, option or limit is wrong.
    #[error("{0}")]
    InvalidOptions(String),
    /// The store was closed.
    #[error("the store is closed")]
    StoreClosed,
    /// Another registration, here or in another process, runs the durable stream.
    #[error("the durable stream '{0}' is active")]
    DurableStreamActive(String),
    /// The durable stream was registered with other filters.
    #[error(
        "the durable stream '{0}' has another query; delete it, or give the new query another name"
    )]
    DurableStreamQueryMismatch(String),
    /// There is no durable stream of this name.
    #[error("there is no durable stream '{0}'")]
    DurableStreamNotFound(String),
    /// A durable stream's handler failed, and with it the stream's registration or the stream.
    #[error("the handler of the durable stream '{stream}' failed: {source}")]
    StreamHandlerFailed {
        /// The stream's name.
        stream: String,
        /// What the handler returned last.
        source: StreamHandlerError,
    },
    /// The database was written by a newer format, or is no event store.
    #[error("{0}")]
    StoreFormatUnsupported(String),
    /// The disk or the server failed; nothing was committed.
    #[error("{0}")]
    BackendFailure(String),
    /// The disk failed, or the connection to the server broke, during a commit, and the store could not
    /// find out whether the batch landed.
    #[error("{0}")]
    OutcomeUnknown(String),
    /// The context changed since it was read: an answer, not a failure.
    #[error(
        "the context has changed: expected version {}, found {}",
        version(*expected),
        version(*actual)
    )]
    ConditionalAppendConflict {
        /// The version that the caller had read.
        expected: Option<u64>,
        /// The version that the store holds.
        actual: Option<u64>,
    },
}

fn version(version: Option<u64>) -> String {
    version.map_or_else(|| "none".to_owned(), |version| version.to_string())
}

impl EventStoreError {
    /// Names the variant by a code that never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyAppend => "EmptyAppend",
            Self::InvalidEvent(_) => "InvalidEvent",
            Self::InvalidQuery(_) => "InvalidQuery",
            Self::InvalidOptions(_) => "InvalidOptions",
            Self::StoreClosed => "StoreClosed",
            Self::DurableStreamActive(_) => "DurableStreamActive",
            Self::DurableStreamQueryMismatch(_) => "DurableStreamQueryMismatch",
            Self::DurableStreamNotFound(_) => "DurableStreamNotFound",
            Self::StreamHandlerFailed { .. } => "StreamHandlerFailed",
            Self::StoreFormatUnsupported(_) => "StoreFormatUnsupported",
            Self::BackendFailure(_) => "BackendFailure",
            Self::OutcomeUnknown(_) => "OutcomeUnknown",
            Self::ConditionalAppendConflict { .. } => "ConditionalAppendConflict",
        }
    }
}
