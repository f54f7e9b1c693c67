//! Runs a handler of the Rust API: pulls, calls, reports.

use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use super::chunk::{Chunk, DeliveredBatch};
use super::clock;
use super::ending::{backend_failed, store_closed};
use super::engine::Delivery;
use super::subscription::{Pulled, Registration, Subscription, Verdict};
use crate::contract::{
    EventRecord, EventStoreError, EventStream, HandleStream, RunningStream, StreamEnd,
    StreamHandlerError, StreamOptions, StreamProgress,
};
use crate::runtime::HANDLERS;
use crate::selection::{RecordSink, RowSink};

/// The least time between two calls of `on_progress`.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

tokio::task_local! {
    /// The stream whose handler runs here.
    static CURRENT: Arc<Subscription>;
}

/// Whether the caller is a handler of one of these streams.
pub(crate) fn is_inside_handler(delivery: &Arc<Delivery>) -> bool {
    CURRENT
        .try_with(|stream| Arc::ptr_eq(&stream.delivery, delivery))
        .unwrap_or(false)
}

/// Registers a stream, and runs its handler. Completes with the registration.
pub(crate) async fn run(
    delivery: &Arc<Delivery>,
    registration: Registration,
    handle: HandleStream,
    options: StreamOptions,
) -> Result<EventStream, EventStoreError> {
    let runtime = match Handle::try_current() {
        Ok(current) => current,
        Err(_) => HANDLERS.handle()?,
    };
    let stream = delivery.register(registration)?;
    let (done, registered) = oneshot::channel();
    stream.registered_then(move |outcome| drop(done.send(outcome)));
    let mut pending = Unsubscribe(Some(stream.clone()));
    let on_progress = options.on_progress.clone();
    runtime.spawn(
        Runner {
            stream: stream.clone(),
            handle,
            options,
            ended: Arc::new(Notify::new()),
            told: Instant::now(),
        }
        .run(),
    );
    match registered.await {
        Ok(Ok(())) => {
            pending.0 = None;
            if let Some(on_progress) = on_progress {
                let progress = progress(&stream);
                let _ = catch_unwind(AssertUnwindSafe(|| on_progress(progress)));
            }
            Ok(EventStream::new(Arc::new(Running::new(stream))))
        }
        Ok(Err(end)) => Err(end.error.unwrap_or(EventStoreError::StoreClosed)),
        Err(_) => Err(EventStoreError::StoreClosed),
    }
}

/// A registration that nobody waits for any more.
struct Unsubscribe(Option<Arc<Subscription>>);

impl Drop for Unsubscribe {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.unsubscribe();
        }
    }
}

struct Running {
    stream: Arc<Subscription>,
    end: watch::Receiver<Option<StreamEnd>>,
}

impl Running {
    fn new(stream: Arc<Subscription>) -> Self {
        let (told, end) = watch::channel(None);
        stream.closed_then(move |end| drop(told.send_replace(Some(end.clone()))));
        Self { stream, end }
    }
}

#[async_trait]
impl RunningStream for Running {
    async fn unsubscribe(&self) {
        self.stream.unsubscribe();
        let own_handler = CURRENT.try_with(|stream| Arc::ptr_eq(stream, &self.stream));
        if own_handler != Ok(true) {
            self.closed().await;
        }
    }

    async fn closed(&self) -> StreamEnd {
        let mut end = self.end.clone();
        let end = end.wait_for(Option::is_some).await;
        end.ok()
            .and_then(|end| end.clone())
            .unwrap_or_else(store_closed)
    }

    fn position(&self) -> u64 {
        self.stream.position()
    }
}

fn progress(stream: &Subscription) -> StreamProgress {
    StreamProgress {
        position: stream.position(),
        head_sequence_number: stream.head(),
    }
}

struct Runner {
    stream: Arc<Subscription>,
    handle: HandleStream,
    options: StreamOptions,
    /// Ends a pause.
    ended: Arc<Notify>,
    /// When progress was told last.
    told: Instant,
}

/// A runner that is dropped in the middle of a call never reports.
impl Drop for Runner {
    fn drop(&mut self) {
        self.stream
            .abandon(backend_failed(EventStoreError::BackendFailure(
                "the runtime that ran the stream's handler has ended".to_owned(),
            )));
    }
}

impl Runner {
    async fn run(mut self) {
        let ended = self.ended.clone();
        self.stream.closed_then(move |_| ended.notify_one());
        while let Some(chunk) = self.pull().await {
            let batches: Vec<DeliveredBatch> = chunk.batches().collect();
            let mut rest = batches.as_slice();
            while let Some(call) = next_call(&mut rest, self.options.max_events_per_call) {
                if !self.deliver(call).await {
                    return;
                }
            }
        }
    }

    async fn pull(&self) -> Option<Chunk> {
        let (ready, pulled) = oneshot::channel();
        let early = self.stream.pull(move |pulled| drop(ready.send(pulled)));
        let pulled = match early {
            Some(pulled) => pulled,
            None => pulled.await.ok()?,
        };
        match pulled {
            Pulled::Chunk(chunk) => Some(chunk),
            Pulled::Ended => None,
        }
    }

    /// Has the handler take some batches. `false`: the stream ends.
    async fn deliver(&mut self, batches: &[DeliveredBatch<'_>]) -> bool {
        let Some(position) = batches.last().map(|batch| batch.position()) else {
            return true;
        };
        loop {
            let records = match records(batches) {
                Ok(records) => records,
                Err(error) => {
                    self.stream.stop(backend_failed(error));
                    return false;
                }
            };
            if !self.stream.enter() {
                return false;
            }
            let call = guarded(&self.handle, records);
            let Err(error) = CURRENT.scope(self.stream.clone(), call).await else {
                let goes_on = self.stream.processed(position);
                self.tell_progress();
                return goes_on;
            };
            self.report(&error);
            match self.stream.failed(position, error) {
                Verdict::GoOn => return true,
                Verdict::Stop => return false,
                Verdict::RetryAfter(delay) => {
                    let ended = self.ended.clone();
                    clock::after(delay, move || ended.notify_one());
                    self.ended.notified().await;
                }
            }
        }
    }

    fn report(&self, error: &StreamHandlerError) {
        let Some(on_error) = &self.options.on_error else {
            let stream = self.stream.durable.as_ref();
            let stream = stream.map_or("a live stream", |durable| durable.name.as_str());
            tracing::warn!(%error, stream, "a stream's handler failed");
            return;
        };
        let _ = catch_unwind(AssertUnwindSafe(|| on_error(error)));
    }

    fn tell_progress(&mut self) {
        if let Some(on_progress) = &self.options.on_progress
            && self.told.elapsed() >= PROGRESS_EVERY
        {
            self.told = Instant::now();
            let progress = progress(&self.stream);
            let _ = catch_unwind(AssertUnwindSafe(|| on_progress(progress)));
        }
    }
}

/// Takes the batches of one call from the front: one, or as many as have no more than `most` events.
fn next_call<'b, 'c>(
    rest: &mut &'b [DeliveredBatch<'c>],
    most: Option<NonZeroUsize>,
) -> Option<&'b [DeliveredBatch<'c>]> {
    let mut events = rest.first()?.len();
    let mut count = 1;
    while let (Some(most), Some(next)) = (most, rest.get(count)) {
        events += next.len();
        if events > most.get() {
            break;
        }
        count += 1;
    }
    let (call, others) = rest.split_at(count);
    *rest = others;
    Some(call)
}

fn records(batches: &[DeliveredBatch]) -> Result<Vec<EventRecord>, EventStoreError> {
    let mut sink = RecordSink::default();
    for batch in batches {
        for row in batch.rows() {
            sink.push(row);
        }
    }
    sink.into_records()
}

/// A panic of the handler is a failure of it.
fn guarded(
    handle: &HandleStream,
    records: Vec<EventRecord>,
) -> impl Future<Output = Result<(), StreamHandlerError>> + use<> {
    let mut call = catch_unwind(AssertUnwindSafe(|| handle.call(records))).map_err(Some);
    poll_fn(move |context| {
        let polled = match &mut call {
            Ok(future) => {
                catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))).map_err(Some)
            }
            Err(panic) => Err(panic.take()),
        };
        polled.unwrap_or_else(|panic| {
            let said = panic.as_ref().and_then(|panic| {
                let text = panic.downcast_ref::<&str>().copied();
                text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            });
            let message = format!("the handler panicked: {}", said.unwrap_or("no message"));
            Poll::Ready(Err(StreamHandlerError::new(message)))
        })
    })
}
