use std::any::Any;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::Function;
use napi_derive::napi;
use serde_json::{Map, Value, json};

use super::completions::{Answer, Answers, Completions};
use super::stream::NativeStream;
use super::{Failure, failure};
use crate::contract::{DurableStreamInfo, EventQuery, EventStoreError, IfActive, RetryPolicy};
use crate::delivery::{Delivery, Durable, Registration, check_name};
use crate::payload::CompiledQuery;

/// The streams of one store for `index.js`. Every call returns at once; answers come later, under
/// the id that was given.
#[napi]
pub struct NativeStreams {
    delivery: Arc<Delivery>,
    completions: Arc<Completions>,
    /// Its streams go on when nobody holds the store itself any more.
    _store: Arc<dyn Any + Send + Sync>,
}

/// A stream to be registered; -1 stands for a default. All is set by `index.js`.
#[napi(object)]
pub struct StreamRequest {
    /// JSON text of the query's filters.
    pub filters: String,
    /// Of a durable stream; none: a live one.
    pub name: Option<String>,
    /// Stands by while the name is active.
    pub wait: bool,
    /// The most events of batches that are merged into one call; 0: every batch has its own.
    pub max_events_per_call: f64,
    /// Tries in all.
    pub attempts: f64,
    /// Milliseconds.
    pub initial_delay_ms: f64,
    /// Milliseconds.
    pub max_delay_ms: f64,
}

impl StreamRequest {
    fn registration(self) -> Result<Registration, EventStoreError> {
        let query = CompiledQuery::from_json(&self.filters)?;
        let retry = self.retry();
        let if_active = if self.wait {
            IfActive::Wait
        } else {
            IfActive::Reject
        };
        let durable = self.name.map(|name| Durable {
            name,
            retry,
            if_active,
        });
        Ok(Registration { query, durable })
    }

    fn retry(&self) -> RetryPolicy {
        let mut policy = RetryPolicy::default();
        if self.attempts >= 0.0 {
            // More than fit are for ever.
            policy.attempts = Some(self.attempts)
                .filter(|&attempts| attempts < f64::from(u32::MAX))
                .and_then(|attempts| NonZeroU32::new(attempts as u32));
        }
        if self.initial_delay_ms >= 0.0 {
            policy.initial_delay = Duration::from_secs_f64(self.initial_delay_ms / 1_000.0);
        }
        if self.max_delay_ms >= 0.0 {
            policy.max_delay = Duration::from_secs_f64(self.max_delay_ms / 1_000.0);
        }
        policy
    }
}

#[napi]
impl NativeStreams {
    pub(super) fn new(
        delivery: &Arc<Delivery>,
        store: Arc<dyn Any + Send + Sync>,
        on_answers: &Function<'_, (), ()>,
    ) -> napi::Result<Self> {
        Ok(Self {
            delivery: delivery.clone(),
            completions: Completions::new(on_answers)?,
            _store: store,
        })
    }

    /// Starts a stream; an answer with its id tells that it has something to take.
    #[napi(catch_unwind)]
    pub fn register(&self, id: f64, request: StreamRequest) -> Result<NativeStream, Failure> {
        let most_events = request.max_events_per_call as usize;
        request
            .registration()
            .and_then(|registration| self.delivery.register(registration))
            .map(|subscription| {
                NativeStream::new(subscription, most_events, id, self.completions.clone())
            })
            .map_err(|error| failure(&error))
    }

    /// Lists the durable streams as JSON text.
    #[napi(catch_unwind)]
    pub fn list(&self, id: f64) {
        let completions = self.completions.clone();
        self.delivery.list(Box::new(move |streams| {
            let answer = streams.map(|streams| Answer::Text(list_to_json(&streams)));
            completions.push(id, answer.unwrap_or_else(Answer::Failed));
        }));
    }

    /// Moves an inactive stream's cursor.
    #[napi(catch_unwind)]
    pub fn reset(&self, id: f64, name: String, after: f64) {
        match check_name(&name) {
            Ok(()) => self.delivery.reset(&name, after as u64, self.reply(id)),
            Err(error) => self.completions.push(id, Answer::Failed(error)),
        }
    }

    /// Forgets an inactive stream.
    #[napi(catch_unwind)]
    pub fn delete(&self, id: f64, name: String) {
        match check_name(&name) {
            Ok(()) => self.delivery.delete(&name, self.reply(id)),
            Err(error) => self.completions.push(id, Answer::Failed(error)),
        }
    }

    fn reply(&self, id: f64) -> Box<dyn FnOnce(Result<(), EventStoreError>) + Send> {
        let completions = self.completions.clone();
        Box::new(move |done| {
            completions.push(id, done.map_or_else(Answer::Failed, |()| Answer::Done));
        })
    }

    /// Takes the answers that are ready.
    #[napi(catch_unwind)]
    pub fn take_answers(&self) -> Answers {
        self.completions.take()
    }

    /// Keeps the event loop alive while there is something to wait for.
    #[napi(catch_unwind)]
    pub fn hold(&self, env: Env, alive: bool) {
        self.completions.hold(env, alive);
    }
}

fn list_to_json(streams: &[DurableStreamInfo]) -> String {
    let streams = streams.iter().map(|stream| {
        json!({
            "name": stream.name,
            "query": { "filters": filters_to_json(&stream.query) },
            "position": stream.position,
            "head": stream.head_sequence_number.unwrap_or(0),
            "active": stream.active,
        })
    });
    streams.collect::<Value>().to_string()
}

fn filters_to_json(query: &EventQuery) -> Value {
    let Some(filters) = &query.filters else {
        return Value::Null;
    };
    let filters = filters.iter().map(|filter| {
        let mut members = Map::new();
        if let Some(types) = &filter.event_types {
            members.insert("event_types".to_owned(), json!(types));
        }
        if let Some(predicates) = &filter.payload_predicates {
            members.insert("payload_predicates".to_owned(), json!(predicates));
        }
        Value::Object(members)
    });
    filters.collect()
}
