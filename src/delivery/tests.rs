//! Random histories of the pull API: runners that prefetch, fail, and are stopped at any point. On the
//! memory store everything happens inline, so a seed is a history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::{Durable, Pulled, Registration, Subscription, Verdict, lock};
use crate::contract::{IfActive, NewEvent, RetryPolicy, StreamHandlerError};
use crate::memory::MemoryStore;
use crate::payload::{CompiledQuery, PreparedBatch};

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

/// The matching sequence numbers of a batch, and its position.
type Batch = (Vec<u64>, u64);

#[derive(Default)]
struct Inbox {
    batches: VecDeque<Batch>,
    pulling: bool,
    ended: bool,
}

/// What Node.js and Rust do, one step at a time.
struct Runner {
    stream: Arc<Subscription>,
    inbox: Arc<Mutex<Inbox>>,
    /// A call is under way.
    calling: bool,
    stopped: bool,
    closed: Arc<Mutex<bool>>,
    registered: Arc<Mutex<Option<bool>>>,
}

fn receive(inbox: &Mutex<Inbox>, pulled: Pulled) {
    let mut inbox = lock(inbox);
    assert!(inbox.pulling);
    inbox.pulling = false;
    match pulled {
        Pulled::Ended => inbox.ended = true,
        Pulled::Chunk(chunk) => {
            assert!(chunk.len() > 0);
            for batch in chunk.batches() {
                let numbers: Vec<u64> = batch.rows().map(|row| row.sequence_number).collect();
                assert_eq!(numbers.len(), batch.len());
                inbox.batches.push_back((numbers, batch.position()));
            }
        }
    }
}

impl Runner {
    fn start(store: &MemoryStore, filters: &str, name: &str) -> Self {
        let registration = Registration {
            query: CompiledQuery::from_json(filters).unwrap(),
            durable: Some(Durable {
                name: name.to_owned(),
                retry: RetryPolicy::default(),
                if_active: IfActive::Wait,
            }),
        };
        let stream = store.delivery().register(registration).unwrap();
        let runner = Self {
            inbox: Arc::default(),
            calling: false,
            stopped: false,
            closed: Arc::default(),
            registered: Arc::default(),
            stream,
        };
        let closed = runner.closed.clone();
        runner.stream.closed_then(move |_| *lock(&closed) = true);
        let registered = runner.registered.clone();
        runner
            .stream
            .registered_then(move |outcome| *lock(&registered) = Some(outcome.is_ok()));
        runner
    }

    fn pull(&self) {
        {
            let mut inbox = lock(&self.inbox);
            if inbox.pulling || inbox.ended || inbox.batches.len() > 1 {
                return;
            }
            inbox.pulling = true;
        }
        let inbox = self.inbox.clone();
        if let Some(pulled) = self.stream.pull(move |pulled| receive(&inbox, pulled)) {
            receive(&self.inbox, pulled);
        }
    }

    /// Begins a call, or ends the one under way.
    fn step(&mut self, fails: bool, handled: &mut Vec<Vec<u64>>) {
        let next = lock(&self.inbox).batches.front().cloned();
        let (Some((numbers, position)), false) = (next, self.stopped) else {
            return;
        };
        if !self.calling {
            self.calling = self.stream.enter();
            self.stopped = !self.calling;
            return;
        }
        self.calling = false;
        assert!(!*lock(&self.closed), "its handler has not settled");
        if fails {
            let error = StreamHandlerError::new("told to fail");
            assert_eq!(self.stream.failed(position, error), Verdict::Stop);
            self.stopped = true;
        } else {
            lock(&self.inbox).batches.pop_front();
            handled.push(numbers);
            self.stopped = !self.stream.processed(position);
        }
    }
}

fn history(seed: u64) {
    let mut random = Random(seed);
    let store = MemoryStore::new();
    let filters = [
        "null",
        r#"[{"payload_predicates":[{"n":1}]}]"#,
        r#"[{"event_types":["rare"]}]"#,
    ][random.below(3) as usize];
    let query = CompiledQuery::from_json(filters).unwrap();
    let (mut expected, mut handled) = (Vec::new(), Vec::new());
    let mut runner = Runner::start(&store, filters, "one");
    let mut heir: Option<Runner> = None;
    let mut head = 0;
    for _ in 0..400 {
        match random.below(14) {
            0..=3 => {
                // Now and then more than the ring holds.
                let batches = if random.below(60) == 0 { 1_100 } else { 1 };
                for _ in 0..batches {
                    let events: Vec<NewEvent> = (0..1 + random.below(3))
                        .map(|_| {
                            let event_type = ["usual", "rare"][usize::from(random.below(6) == 0)];
                            NewEvent::new(event_type, json!({ "n": random.below(3) }))
                        })
                        .collect();
                    let batch = PreparedBatch::from_events(&events).unwrap();
                    let matching: Vec<u64> = (head + 1..)
                        .zip(batch.events())
                        .filter(|(_, event)| query.matches(event.event_type, event.payload))
                        .map(|(number, _)| number)
                        .collect();
                    if !matching.is_empty() {
                        expected.push(matching);
                    }
                    head = store
                        .append_prepared(batch, None)
                        .unwrap()
                        .last_sequence_number;
                }
            }
            4..=6 => runner.pull(),
            7..=10 => runner.step(random.below(30) == 0, &mut handled),
            11 => runner.stream.unsubscribe(),
            12 if heir.is_none() => heir = Some(Runner::start(&store, filters, "one")),
            _ => {}
        }
        assert!(handled.len() <= expected.len());
        let done = handled.len();
        let position = runner.stream.position();
        // What is not handled lies after the position, what is handled before it.
        assert!(
            expected.get(done).is_none_or(|batch| position < batch[0]),
            "seed {seed}: {position}"
        );
        if let Some(last) = handled.last().filter(|_| !*lock(&runner.closed)) {
            assert!(position >= *last.last().unwrap(), "seed {seed}");
        }
        if *lock(&runner.closed) {
            assert!(!runner.calling);
            runner = heir
                .take()
                .unwrap_or_else(|| Runner::start(&store, filters, "one"));
        }
        assert!(heir.as_ref().is_none_or(|heir| !heir.stream.enter()));
    }
    while handled.len() < expected.len() || lock(&runner.registered).is_none() {
        runner.pull();
        runner.step(false, &mut handled);
        if runner.stopped || *lock(&runner.closed) {
            assert!(*lock(&runner.closed), "seed {seed}");
            runner = heir
                .take()
                .unwrap_or_else(|| Runner::start(&store, filters, "one"));
        }
    }
    assert_eq!(handled, expected, "seed {seed}");
    runner.pull();
    assert_eq!(runner.stream.position(), head, "seed {seed}");
    if let Some(heir) = heir {
        heir.stream.unsubscribe();
        assert!(*lock(&heir.closed));
    }
    let closed = Arc::new(Mutex::new(false));
    let told = closed.clone();
    store.close_then(move || *lock(&told) = true);
    assert_eq!(*lock(&closed), !runner.calling);
}

#[test]
fn whatever_a_runner_does_each_batch_is_handled_once_in_order() {
    for seed in 0..400 {
        history(seed);
    }
}
