use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{EventQuery, EventStoreError, StreamHandlerError};

/// The name under which a durable stream stores its cursor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DurableStream {
    /// 1 to 255 bytes of UTF-8.
    pub name: String,
}

impl DurableStream {
    /// Names a durable stream.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// What a store knows of a durable stream.
#[derive(Debug, Clone, PartialEq)]
pub struct DurableStreamInfo {
    /// The stream's name.
    pub name: String,
    /// The filters with which it was registered, without a cursor.
    pub query: EventQuery,
    /// The newest sequence number that it is done with, 0 before the first.
    pub position: u64,
    /// The store's newest sequence number, `None` when empty.
    pub head_sequence_number: Option<u64>,
    /// Whether some store, here or in another process, runs it now.
    pub active: bool,
}

/// A running stream. Dropping it does not stop the stream.
#[derive(Clone)]
pub struct EventStream {
    running: Arc<dyn RunningStream>,
}

impl EventStream {
    pub(crate) fn new(running: Arc<dyn RunningStream>) -> Self {
        Self { running }
    }

    /// Stops the stream: no handler call starts any more. Completes once the call that is under way
    /// has ended and the cursor is stored; inside of the stream's own handler it does not wait.
    pub async fn unsubscribe(&self) {
        self.running.unsubscribe().await;
    }

    /// Waits for the end of the stream, and tells its reason.
    pub async fn closed(&self) -> StreamEnd {
        self.running.closed().await
    }

    /// The newest sequence number that the stream is done with, 0 before the first.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.running.position()
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter
            .debug_struct("EventStream")
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

/// What stands behind an [`EventStream`].
#[async_trait]
pub(crate) trait RunningStream: Send + Sync {
    async fn unsubscribe(&self);
    async fn closed(&self) -> StreamEnd;
    fn position(&self) -> u64;
}

/// Why a stream has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEnd {
    /// What ended it.
    pub reason: StreamEndReason,
    /// The failure, if it was one.
    pub error: Option<EventStoreError>,
}

/// What ended a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamEndReason {
    /// [`EventStream::unsubscribe`] was called.
    Unsubscribed,
    /// The store was closed.
    StoreClosed,
    /// A durable stream's handler failed for the last time.
    HandlerFailed,
    /// The store could not be read, or the stream's name was taken over by another process.
    BackendFailed,
}

impl StreamEndReason {
    /// The name of the reason in the Node.js package.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsubscribed => "unsubscribed",
            Self::StoreClosed => "store-closed",
            Self::HandlerFailed => "handler-failed",
            Self::BackendFailed => "backend-failed",
        }
    }
}

/// What a durable stream does when its handler fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Calls for one batch in all; `None`: no limit. Default 1.
    pub attempts: Option<NonZeroU32>,
    /// The pause after the first failure; it doubles with each further one. Default 100 ms.
    pub initial_delay: Duration,
    /// The longest pause. Default 30 s.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: Some(NonZeroU32::MIN),
            initial_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
        }
    }
}

/// What a registration does when another one holds the durable stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfActive {
    /// Fails with [`EventStoreError::DurableStreamActive`].
    #[default]
    Reject,
    /// Stands by, and takes over when the holder stops or dies.
    Wait,
}

/// Where a stream is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamProgress {
    /// The newest sequence number that the stream is done with.
    pub position: u64,
    /// The store's newest sequence number, 0 when empty.
    pub head_sequence_number: u64,
}

/// Called with each failure of a handler.
pub type OnStreamError = Arc<dyn Fn(&StreamHandlerError) + Send + Sync>;
/// Called now and then with a stream's progress.
pub type OnStreamProgress = Arc<dyn Fn(StreamProgress) + Send + Sync>;

/// Options of a live stream.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct StreamOptions {
    /// Takes committed batches together into one handler call, while the stream lags, as long as
    /// their events are no more than this. A batch is never split. `None`: one batch per call.
    pub max_events_per_call: Option<NonZeroUsize>,
    /// Called with each failure of the handler. Default: a warning by `tracing`.
    pub on_error: Option<OnStreamError>,
    /// Called at most every 100 ms while the stream moves, and once when it has caught up.
    pub on_progress: Option<OnStreamProgress>,
}

/// Options of a durable stream.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct DurableStreamOptions {
    /// What a live stream has, too.
    pub stream: StreamOptions,
    /// What to do when the handler fails. Default: the stream stops.
    pub retry: RetryPolicy,
    /// What to do when the stream is active already. Default: to fail.
    pub if_active: IfActive,
}

impl StreamOptions {
    /// Replaces the most events of one handler call.
    #[must_use]
    pub fn with_max_events_per_call(mut self, most: NonZeroUsize) -> Self {
        self.max_events_per_call = Some(most);
        self
    }

    /// Replaces what is called with each failure of the handler.
    #[must_use]
    pub fn with_on_error(
        mut self,
        on_error: impl Fn(&StreamHandlerError) + Send + Sync + 'static,
    ) -> Self {
        self.on_error = Some(Arc::new(on_error));
        self
    }

    /// Replaces what is called with the stream's progress.
    #[must_use]
    pub fn with_on_progress(
        mut self,
        on_progress: impl Fn(StreamProgress) + Send + Sync + 'static,
    ) -> Self {
        self.on_progress = Some(Arc::new(on_progress));
        self
    }
}

impl DurableStreamOptions {
    /// Replaces what a live stream has, too.
    #[must_use]
    pub fn with_stream(mut self, stream: StreamOptions) -> Self {
        self.stream = stream;
        self
    }

    /// Replaces the policy for failures.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Replaces what to do when the stream is active already.
    #[must_use]
    pub fn with_if_active(mut self, if_active: IfActive) -> Self {
        self.if_active = if_active;
        self
    }
}

impl fmt::Debug for StreamOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter
            .debug_struct("StreamOptions")
            .field("max_events_per_call", &self.max_events_per_call)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DurableStreamOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter
            .debug_struct("DurableStreamOptions")
            .field("stream", &self.stream)
            .field("retry", &self.retry)
            .field("if_active", &self.if_active)
            .finish()
    }
}
