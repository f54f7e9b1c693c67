//! Random histories of streams on every store: each durable stream sees exactly its matching batches,
//! in order, through failures, resets, other holders and reopening.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

#[allow(dead_code)]
mod oracle;
mod stores;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use factstr::{
    DurableStream, DurableStreamOptions, EventFilter, EventQuery, EventStore, EventStream,
    HandleStream, IfActive, NewEvent, RetryPolicy, StreamEndReason, StreamHandlerError,
};
use oracle::matches;
use serde_json::json;
use stores::{Place, until};

/// Knuth's MMIX constants.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A durable stream: what it was asked to deliver, and what it did.
struct Subject {
    query: EventQuery,
    /// Where it was reset to: the end of a batch.
    base: u64,
    /// The handler's successes since then: the sequence numbers of each.
    delivered: Arc<Mutex<Vec<Vec<u64>>>>,
    /// How often the handler will fail from now on.
    failures: Arc<AtomicU32>,
    stream: Option<EventStream>,
    retries: bool,
}

struct World {
    place: Place,
    store: Arc<dyn EventStore>,
    /// Another store of the same place.
    other: Option<Arc<dyn EventStore>>,
    log: Vec<Vec<NewEvent>>,
    subjects: BTreeMap<String, Subject>,
    random: Random,
}

fn queries() -> Vec<EventQuery> {
    let having = |predicate| {
        EventQuery::all()
            .with_filters([EventFilter::default().with_payload_predicates([predicate])])
    };
    vec![
        EventQuery::all(),
        EventQuery::for_event_types(["type-1", "type-2"]),
        having(json!({ "third": 0 })),
        having(json!({ "tags": ["rare"] })),
        EventQuery::all().with_filters([
            EventFilter::for_event_types(["type-0"])
                .with_payload_predicates([json!({ "third": 1 }), json!({ "third": 2.0 })]),
            EventFilter::for_event_types(["type-3"]),
        ]),
    ]
}

impl World {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn head(&self) -> u64 {
        self.log.iter().map(|batch| batch.len() as u64).sum()
    }

    fn new_batch(&mut self) -> Vec<NewEvent> {
        let most = if self.below(12) == 0 { 400 } else { 5 };
        let count = 1 + self.below(most);
        (0..count)
            .map(|_| {
                let tag = if self.below(20) == 0 { "rare" } else { "usual" };
                let third = self.below(3);
                let event_type = format!("type-{}", self.below(4));
                NewEvent::new(event_type, json!({ "third": third, "tags": ["all", tag] }))
            })
            .collect()
    }

    /// What a stream has to deliver after `base`.
    fn expected(&self, query: &EventQuery, base: u64) -> Vec<Vec<u64>> {
        let mut expected = Vec::new();
        let mut number = 0;
        for batch in &self.log {
            let mut matching = Vec::new();
            for event in batch {
                number += 1;
                if number > base && matches(query, &event.event_type, &event.payload) {
                    matching.push(number);
                }
            }
            if !matching.is_empty() {
                expected.push(matching);
            }
        }
        expected
    }

    fn check(&self, name: &str, complete: bool) {
        let subject = &self.subjects[name];
        let expected = self.expected(&subject.query, subject.base);
        let delivered = subject.delivered.lock().unwrap();
        let known = if complete {
            &expected[..]
        } else {
            &expected[..delivered.len().min(expected.len())]
        };
        assert_eq!(*delivered, known, "{name}");
    }

    async fn append(&mut self) {
        let batches: Vec<Vec<NewEvent>> = (0..=self.below(6)).map(|_| self.new_batch()).collect();
        let by_other = self.other.clone().filter(|_| self.below(3) == 0);
        let store = by_other.unwrap_or_else(|| self.store.clone());
        for batch in batches {
            store.append(batch.clone()).await.unwrap();
            self.log.push(batch);
        }
    }

    fn pick(&mut self) -> String {
        let index = self.below(self.subjects.len() as u64) as usize;
        self.subjects.keys().nth(index).unwrap().clone()
    }

    fn handler(subject: &Subject) -> HandleStream {
        let (delivered, failures) = (subject.delivered.clone(), subject.failures.clone());
        HandleStream::new(move |batch| {
            let (delivered, failures) = (delivered.clone(), failures.clone());
            async move {
                let one_less = |left: u32| left.checked_sub(1);
                if failures
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
                    .is_ok()
                {
                    return Err(StreamHandlerError::new("told to fail"));
                }
                if batch[0].sequence_number.is_multiple_of(5) {
                    tokio::task::yield_now().await;
                }
                let numbers = batch.iter().map(|record| record.sequence_number);
                delivered.lock().unwrap().push(numbers.collect());
                Ok(())
            }
        })
    }

    async fn register(&mut self) {
        let name = self.pick();
        self.settle(&name).await;
        let retries = self.below(2) == 0;
        let by_other = self.other.clone().filter(|_| self.below(3) == 0);
        let store = by_other.unwrap_or_else(|| self.store.clone());
        let stream = DurableStream::new(name.as_str());
        let subject = self.subjects.get_mut(&name).unwrap();
        let handler = Self::handler(subject);
        if subject.stream.is_some() {
            let mut wrong = subject.query.clone();
            wrong
                .filters
                .get_or_insert_default()
                .push(EventFilter::for_event_types(["wrong"]));
            let refused = store
                .stream_to_durable(&stream, &wrong, handler.clone())
                .await;
            let code = refused.unwrap_err().code();
            assert_eq!(code, "DurableStreamQueryMismatch");
            let refused = store
                .stream_to_durable(&stream, &subject.query, handler)
                .await;
            assert_eq!(refused.unwrap_err().code(), "DurableStreamActive");
            return;
        }
        let attempts = if retries { 4 } else { 1 };
        let options = DurableStreamOptions::default()
            .with_if_active(IfActive::Wait)
            .with_retry(RetryPolicy {
                attempts: NonZeroU32::new(attempts),
                initial_delay: Duration::from_micros(100),
                max_delay: Duration::from_millis(1),
            });
        let before = subject.delivered.lock().unwrap().len();
        subject.retries = retries;
        let query = subject.query.clone();
        match store
            .stream_to_durable_with(&stream, &query, handler, options)
            .await
        {
            Ok(running) => {
                self.subjects.get_mut(&name).unwrap().stream = Some(running);
                // Nobody appends meanwhile: the replay was all there is.
                self.check(&name, true);
            }
            Err(error) => {
                assert_eq!(error.code(), "StreamHandlerFailed", "{error}");
                self.check(&name, false);
                assert!(!retries || before == self.subjects[&name].delivered.lock().unwrap().len());
            }
        }
    }

    async fn unsubscribe(&mut self) {
        let name = self.pick();
        let Some(stream) = self.subjects.get_mut(&name).unwrap().stream.take() else {
            return;
        };
        if self.below(2) == 0 {
            self.append().await;
        }
        stream.unsubscribe().await;
        self.check(&name, false);
        self.check_cursor(&name, Some(&stream)).await;
    }

    /// The stored cursor stands where the handler's successes end.
    async fn check_cursor(&self, name: &str, stream: Option<&EventStream>) {
        let listed = self.store.list_durable_streams().await.unwrap();
        let info = listed.iter().find(|info| info.name == name).unwrap();
        let subject = &self.subjects[name];
        let rest = self.expected(&subject.query, subject.base);
        let delivered = subject.delivered.lock().unwrap().len();
        assert_eq!(info.query, subject.query);
        assert!(!info.active);
        assert!(info.position <= self.head());
        assert_eq!(
            self.expected(&subject.query, info.position),
            rest[delivered..],
            "{name} stands at {}",
            info.position
        );
        if let Some(stream) = stream {
            assert_eq!(stream.position(), info.position);
        }
    }

    async fn fail(&mut self) {
        let name = self.pick();
        let failures = 1 + self.below(3) as u32;
        self.subjects[&name]
            .failures
            .store(failures, Ordering::SeqCst);
        self.append().await;
        self.settle(&name).await;
    }

    async fn reset(&mut self) {
        let name = self.pick();
        self.settle(&name).await;
        let after = self.below(self.head() + 1);
        let stream = DurableStream::new(name.as_str());
        let result = self.store.reset_durable_stream(&stream, after).await;
        if self.subjects[&name].stream.is_some() {
            assert_eq!(result.unwrap_err().code(), "DurableStreamActive");
            return;
        }
        if let Err(error) = result {
            assert_eq!(error.code(), "DurableStreamNotFound");
            return;
        }
        let mut border = 0;
        for batch in &self.log {
            if border + batch.len() as u64 > after {
                break;
            }
            border += batch.len() as u64;
        }
        let subject = self.subjects.get_mut(&name).unwrap();
        subject.base = border;
        subject.delivered.lock().unwrap().clear();
    }

    async fn delete(&mut self) {
        let name = self.pick();
        self.settle(&name).await;
        let stream = DurableStream::new(name.as_str());
        let result = self.store.delete_durable_stream(&stream).await;
        let subject = self.subjects.get_mut(&name).unwrap();
        if subject.stream.is_some() {
            assert_eq!(result.unwrap_err().code(), "DurableStreamActive");
        } else if result.is_ok() {
            subject.base = 0;
            subject.delivered.lock().unwrap().clear();
        }
    }

    async fn reopen(&mut self) {
        if !self.place.lasts() {
            return;
        }
        self.store.close().await.unwrap();
        let ends: Vec<(String, EventStream)> = self
            .subjects
            .iter_mut()
            .filter_map(|(name, subject)| Some((name.clone(), subject.stream.take()?)))
            .collect();
        if let Some(other) = self.other.take() {
            other.close().await.unwrap();
        }
        self.store = self.place.open().await;
        self.other = Some(self.place.open().await);
        for (name, stream) in ends {
            let reason = stream.closed().await.reason;
            assert!(
                matches!(
                    reason,
                    StreamEndReason::StoreClosed | StreamEndReason::HandlerFailed
                ),
                "{reason:?}"
            );
            self.check(&name, false);
            self.check_cursor(&name, None).await;
        }
    }

    /// Waits until a stream has caught up, or has ended with a failure.
    async fn settle(&mut self, name: &str) {
        let subject = &self.subjects[name];
        let Some(stream) = subject.stream.clone() else {
            return;
        };
        let head = self.head();
        let closed = Arc::new(Mutex::new(false));
        let (told, ended) = (closed.clone(), stream.clone());
        let waiting = tokio::spawn(async move {
            ended.closed().await;
            *told.lock().unwrap() = true;
        });
        until(|| stream.position() == head || *closed.lock().unwrap()).await;
        waiting.abort();
        let failed = *closed.lock().unwrap();
        self.check(name, !failed);
        if failed {
            self.subjects.get_mut(name).unwrap().stream = None;
            self.check_cursor(name, Some(&stream)).await;
        }
    }

    async fn settle_all(&mut self) {
        let names: Vec<String> = self.subjects.keys().cloned().collect();
        for name in names {
            self.settle(&name).await;
        }
    }

    async fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            match self.below(20) {
                0..=5 => self.append().await,
                6..=10 => self.register().await,
                11..=12 => self.unsubscribe().await,
                13..=14 => self.fail().await,
                15 => self.reset().await,
                16 => self.delete().await,
                17 => self.reopen().await,
                _ => self.settle_all().await,
            }
        }
        for subject in self.subjects.values() {
            subject.failures.store(0, Ordering::SeqCst);
        }
        self.settle_all().await;
        let names: Vec<String> = self.subjects.keys().cloned().collect();
        for name in names {
            let subject = self.subjects.get_mut(&name).unwrap();
            if let Some(stream) = subject.stream.take() {
                stream.unsubscribe().await;
            }
            let query = subject.query.clone();
            let stream = DurableStream::new(name.as_str());
            let handler = Self::handler(subject);
            let stream = self.store.stream_to_durable(&stream, &query, handler).await;
            stream.unwrap().unsubscribe().await;
            self.check(&name, true);
        }
    }
}

fn run(seed: u64, place: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    println!("seed {seed} on the {place} store");
    let place = Place::new(place);
    runtime.block_on(async {
        let subjects = queries().into_iter().enumerate().map(|(index, query)| {
            let subject = Subject {
                query,
                base: 0,
                delivered: Arc::default(),
                failures: Arc::default(),
                stream: None,
                retries: false,
            };
            (format!("stream-{index}"), subject)
        });
        let mut world = World {
            store: place.open().await,
            other: if place.lasts() {
                Some(place.open().await)
            } else {
                None
            },
            place,
            log: Vec::new(),
            subjects: subjects.collect(),
            random: Random(seed),
        };
        world.run(60).await;
        world.store.close().await.unwrap();
        if let Some(other) = world.other {
            other.close().await.unwrap();
        }
    });
}

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("FACTSTR_TEST_SEEDS").ok();
    let first = 20_261_124;
    first..first + count.map_or(12, |count| count.parse().unwrap())
}

#[test]
fn durable_streams_of_the_memory_store_see_exactly_their_batches() {
    for seed in seeds() {
        run(seed, "memory");
    }
}

#[test]
fn durable_streams_of_the_sqlite_store_see_exactly_their_batches() {
    for seed in seeds() {
        run(seed, "sqlite");
    }
}

#[test]
fn durable_streams_of_the_postgres_store_see_exactly_their_batches() {
    for seed in seeds() {
        run(seed, "postgres");
    }
}
