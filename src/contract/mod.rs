//! What every store promises: the data, the queries, the errors and the [`EventStore`] trait.
//!
//! This module depends on no store.

mod error;
mod event;
mod handler;
mod query;
mod store;
mod stream;

pub use error::EventStoreError;
pub use event::{AppendResult, EventRecord, NewEvent, QueryResult};
pub use handler::{HandleStream, StreamHandlerError, StreamHandlerFuture};
pub use query::{EventFilter, EventQuery};
pub use store::{EventStore, ReadOptions, ReadPage};
pub(crate) use stream::RunningStream;
pub use stream::{
    DurableStream, DurableStreamInfo, DurableStreamOptions, EventStream, IfActive, OnStreamError,
    OnStreamProgress, RetryPolicy, StreamEnd, StreamEndReason, StreamOptions, StreamProgress,
};
