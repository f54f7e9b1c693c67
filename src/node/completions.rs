//! Answers of other threads on their way to JavaScript: many per wake-up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use napi::bindgen_prelude::{Float64Array, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Status, sys};
use napi_derive::napi;

use super::optional;
use crate::contract::{AppendResult, EventStoreError};

/// Text handed over in one turn of the event loop, in bytes; the rest waits for the next one.
const TEXT_PER_TURN: usize = 256 * 1024;

/// Answers as parallel lists: four numbers each (kind, id and two more), and their texts in order.
#[napi(object)]
pub struct Answers {
    /// `[kind, id, …]`, see `Answer`.
    pub numbers: Float64Array,
    /// A page and a text have one, a failure two (code and message).
    pub texts: Vec<String>,
}

/// One operation's outcome.
pub(super) enum Answer {
    /// Kind 0: first and last.
    Appended(AppendResult),
    /// Kind 1: the actual version.
    Conflict(Option<u64>),
    /// Kind 2: one text.
    Page(String),
    /// Kind 3.
    Number(Option<u64>),
    /// Kind 4.
    Done,
    /// Kind 5; two texts.
    Failed(EventStoreError),
    /// Kind 6; one text.
    Text(String),
    /// Kind 7: a stream has something to take; the id is the stream's.
    Woken,
}

impl Answer {
    pub(super) fn of_append(verdict: Result<AppendResult, EventStoreError>) -> Self {
        match verdict {
            Ok(result) => Self::Appended(result),
            Err(EventStoreError::ConditionalAppendConflict { actual, .. }) => {
                Self::Conflict(actual)
            }
            Err(error) => Self::Failed(error),
        }
    }
}

type Wake = ThreadsafeFunction<(), (), (), Status, false, true>;

/// The queue of answers of one store, and the way to wake its JavaScript side.
pub(super) struct Completions {
    queue: Mutex<Queue>,
    wake: Wake,
}

#[derive(Default)]
struct Queue {
    answers: VecDeque<(f64, Answer)>,
    /// JavaScript was called, or has got answers and comes back for more in a later turn of the event
    /// loop. It is not called meanwhile: calls that wait are all made in one turn.
    expected: bool,
}

impl Completions {
    /// `on_answers` is called, without arguments, when there are answers to be taken.
    pub(super) fn new(on_answers: &Function<'_, (), ()>) -> napi::Result<Arc<Self>> {
        let wake = on_answers
            .build_threadsafe_function::<()>()
            .weak::<true>()
            .build()?;
        Ok(Arc::new(Self {
            queue: Mutex::default(),
            wake,
        }))
    }

    pub(super) fn push(&self, id: f64, answer: Answer) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.answers.push_back((id, answer));
        if !queue.expected {
            queue.expected = true;
            // After the environment has ended nobody is left to be told.
            let _ = self.wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    /// Takes the answers, or so many that the event loop is not held up. Who gets any comes back, or
    /// lets the event loop end.
    pub(super) fn take(&self) -> Answers {
        let mut numbers = Vec::new();
        let mut texts = Vec::new();
        let mut bytes = 0;
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while bytes < TEXT_PER_TURN {
            let Some((id, answer)) = queue.answers.pop_front() else {
                break;
            };
            numbers.extend(match answer {
                Answer::Appended(result) => [
                    0.0,
                    id,
                    result.first_sequence_number as f64,
                    result.last_sequence_number as f64,
                ],
                Answer::Conflict(actual) => [1.0, id, optional(actual), 0.0],
                Answer::Page(text) => {
                    bytes += text.len();
                    texts.push(text);
                    [2.0, id, 0.0, 0.0]
                }
                Answer::Number(number) => [3.0, id, optional(number), 0.0],
                Answer::Done => [4.0, id, 0.0, 0.0],
                Answer::Failed(error) => {
                    texts.push(error.code().to_owned());
                    texts.push(error.to_string());
                    [5.0, id, 0.0, 0.0]
                }
                Answer::Text(text) => {
                    bytes += text.len();
                    texts.push(text);
                    [6.0, id, 0.0, 0.0]
                }
                Answer::Woken => [7.0, id, 0.0, 0.0],
            });
        }
        queue.expected = !numbers.is_empty();
        Answers {
            numbers: Float64Array::new(numbers),
            texts,
        }
    }

    /// Keeps the event loop alive, or lets it end when nothing is in flight any more.
    pub(super) fn hold(&self, env: Env, alive: bool) {
        if !alive {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.expected = !queue.answers.is_empty();
            if queue.expected {
                // A stream that does not keep the event loop alive has something to take.
                let _ = self.wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
            }
        }
        let function = self.wake.raw();
        // SAFETY: called on the environment's own thread, while `self.wake` owns the function.
        unsafe {
            if alive {
                sys::napi_ref_threadsafe_function(env.raw(), function);
            } else {
                sys::napi_unref_threadsafe_function(env.raw(), function);
            }
        }
    }
}
