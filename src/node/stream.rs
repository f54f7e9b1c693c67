use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi_derive::napi;
use serde_json::json;

use super::completions::{Answer, Completions};
use super::page::TextSink;
use crate::contract::{EventStoreError, StreamEnd, StreamHandlerError};
use crate::delivery::{Chunk, Pulled, Subscription, Verdict};
use crate::selection::RowSink;

/// A chunk up to this size becomes text on the event loop's thread: it may come from the writer's,
/// which must not be held up.
const SMALL_CHUNK: usize = 16 * 1024;

/// One stream for `index.js`, which calls the handler and tells how that went.
#[napi]
pub struct NativeStream {
    subscription: Arc<Subscription>,
    inbox: Arc<Inbox>,
}

/// What follows a failed call.
#[napi(object)]
#[derive(Debug)]
pub struct FailedCall {
    /// 0: go on with the next one; 1: the same again, after a delay; 2: the stream ends.
    pub verdict: f64,
    /// Milliseconds.
    pub delay: f64,
}

#[napi]
impl NativeStream {
    pub(super) fn new(
        subscription: Arc<Subscription>,
        most_events: usize,
        id: f64,
        completions: Arc<Completions>,
    ) -> Self {
        let inbox = Arc::new(Inbox {
            state: Mutex::default(),
            most_events,
            id,
            completions,
        });
        let told = inbox.clone();
        subscription.registered_then(move |outcome| {
            // If it ended before, the end tells why.
            if outcome.is_ok() {
                told.lock().registered = true;
                told.wake();
            }
        });
        let told = inbox.clone();
        subscription.closed_then(move |end| {
            told.lock().end = Some(end_text(end));
            told.wake();
        });
        Self {
            subscription,
            inbox,
        }
    }

    /// Takes what has come, as JSON text, and asks for what follows it. None: an answer will tell.
    ///
    /// - `[0,head,[row, …],[rows,position, …]]`: calls to be made, each with so many rows, and what
    ///   to tell `processed` or `failed` then;
    /// - `[1,head,position]`: the stream is registered;
    /// - `[2,reason,code,message]`: it has ended.
    #[napi(catch_unwind)]
    pub fn take(&self) -> Option<String> {
        let mut inbox = self.inbox.lock();
        if std::mem::take(&mut inbox.registered) {
            let (head, position) = (self.subscription.head(), self.subscription.position());
            return Some(json!([1, head, position]).to_string());
        }
        if let Pull::Idle = inbox.pull {
            inbox.pull = Pull::Waiting;
            drop(inbox);
            self.pull();
            inbox = self.inbox.lock();
        }
        let rows = match std::mem::replace(&mut inbox.pull, Pull::Waiting) {
            Pull::Chunk(chunk) => CallsText::of(&chunk, self.inbox.most_events),
            Pull::Text(text) => text,
            Pull::Ended => {
                inbox.pull = Pull::Ended;
                return inbox.end.clone();
            }
            Pull::Idle | Pull::Waiting => return None,
        };
        drop(inbox);
        // The next chunk is read while this one is handled.
        self.pull();
        Some(rows.into_text(self.subscription.head()))
    }

    fn pull(&self) {
        let inbox = self.inbox.clone();
        let ready = move |pulled| {
            inbox.put_encoded(pulled);
            inbox.wake();
        };
        if let Some(pulled) = self.subscription.pull(ready) {
            self.inbox.put(pulled);
        }
    }

    /// Tells whether the handler may be called; to be asked before each call.
    #[napi(catch_unwind)]
    pub fn enter(&self) -> bool {
        self.subscription.enter()
    }

    /// A call has succeeded.
    #[napi(catch_unwind)]
    pub fn processed(&self, position: f64) -> bool {
        self.subscription.processed(position as u64)
    }

    /// A call has failed.
    #[napi(catch_unwind)]
    pub fn failed(&self, position: f64, message: String) -> FailedCall {
        let error = StreamHandlerError::new(message);
        let (verdict, delay) = match self.subscription.failed(position as u64, error) {
            Verdict::GoOn => (0.0, 0.0),
            Verdict::RetryAfter(delay) => (1.0, delay.as_secs_f64() * 1_000.0),
            Verdict::Stop => (2.0, 0.0),
        };
        FailedCall { verdict, delay }
    }

    /// No `enter` succeeds from now on.
    #[napi(catch_unwind)]
    pub fn unsubscribe(&self) {
        self.subscription.unsubscribe();
    }

    /// Ends the stream although a handler call is running.
    #[napi(catch_unwind)]
    pub fn give_up(&self) {
        self.subscription.give_up();
    }

    /// A call has succeeded although it was given up.
    #[napi(catch_unwind)]
    pub fn processed_late(&self, position: f64) {
        self.subscription.processed_late(position as u64);
    }

    /// Tells whether the end can be taken.
    #[napi(catch_unwind)]
    pub fn has_ended(&self) -> bool {
        self.inbox.lock().end.is_some()
    }

    /// The newest sequence number that the stream is done with, 0 before the first.
    #[napi(catch_unwind)]
    pub fn position(&self) -> f64 {
        self.subscription.position() as f64
    }
}

/// What has come for a stream and was not taken yet: one chunk at most.
struct Inbox {
    state: Mutex<Arrived>,
    /// See `StreamRequest`.
    most_events: usize,
    id: f64,
    completions: Arc<Completions>,
}

#[derive(Default)]
struct Arrived {
    registered: bool,
    pull: Pull,
    /// The text for `take`.
    end: Option<String>,
}

/// The pull that is under way, or what it brought.
#[derive(Default)]
enum Pull {
    #[default]
    Idle,
    Waiting,
    Chunk(Chunk),
    Text(CallsText),
    Ended,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, pulled: Pulled) {
        self.lock().pull = match pulled {
            Pulled::Chunk(chunk) => Pull::Chunk(chunk),
            Pulled::Ended => Pull::Ended,
        };
    }

    /// On another thread, which has more time for a large chunk than the event loop has.
    fn put_encoded(&self, pulled: Pulled) {
        match pulled {
            Pulled::Chunk(chunk) if chunk.bytes() > SMALL_CHUNK => {
                let text = CallsText::of(&chunk, self.most_events);
                self.lock().pull = Pull::Text(text);
            }
            pulled => self.put(pulled),
        }
    }

    fn wake(&self) {
        self.completions.push(self.id, Answer::Woken);
    }
}

/// Calls of a handler as text.
struct CallsText {
    /// As the sink leaves them, still open.
    rows: String,
    /// Of each call, how many rows it takes and its position.
    calls: String,
}

impl CallsText {
    fn of(chunk: &Chunk, most_events: usize) -> Self {
        let mut sink = TextSink::default();
        let mut calls = String::from("[");
        let (mut rows, mut position) = (0, 0);
        for batch in chunk.batches() {
            if rows > 0 && rows + batch.len() > most_events {
                let _ = write!(calls, "{rows},{position},");
                rows = 0;
            }
            for row in batch.rows() {
                sink.push(row);
            }
            rows += batch.len();
            position = batch.position();
        }
        let _ = write!(calls, "{rows},{position}]");
        Self {
            rows: sink.into_rows(),
            calls,
        }
    }

    fn into_text(self, head: u64) -> String {
        format!("[0,{head},{}],{}]", self.rows, self.calls)
    }
}

fn end_text(end: &StreamEnd) -> String {
    let error = end.error.as_ref();
    json!([
        2,
        end.reason.as_str(),
        error.map(EventStoreError::code),
        error.map(ToString::to_string),
    ])
    .to_string()
}
