//! Random histories of the pull API: runners that prefetch, fail, and are stopped at any point, on a log
//! that others append to as well and that answers when it likes. One thread does everything, so a seed
//! is a history.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::{
    BatchPage, BatchRequest, CommittedBatch, Delivery, Durable, LeaseRequest, LogSource, Pulled,
    Registration, Reply, Subscription, Taken, Verdict, Wake, lock,
};
use crate::contract::{DurableStreamInfo, IfActive, NewEvent, RetryPolicy, StreamHandlerError};
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

/// A memory store's log, whose answers wait for their turn.
struct Deferred {
    log: Arc<dyn LogSource>,
    later: Arc<Mutex<VecDeque<Wake>>>,
}

impl Deferred {
    fn defer<T: Send + 'static>(&self, reply: Reply<T>) -> Reply<T> {
        let later = self.later.clone();
        Box::new(move |result| lock(&later).push_back(Box::new(move || reply(result))))
    }
}

impl LogSource for Deferred {
    fn head(&self, reply: Reply<u64>) {
        self.log.head(self.defer(reply));
    }

    fn read_batches(&self, request: BatchRequest, reply: Reply<BatchPage>) {
        self.log.read_batches(request, self.defer(reply));
    }

    fn take_lease(&self, request: LeaseRequest, reply: Reply<Taken>) {
        self.log.take_lease(request, self.defer(reply));
    }

    fn list(&self, reply: Reply<Vec<DurableStreamInfo>>) {
        self.log.list(self.defer(reply));
    }

    fn reset(&self, name: &str, after: u64, reply: Reply<()>) {
        self.log.reset(name, after, self.defer(reply));
    }

    fn delete(&self, name: &str, reply: Reply<()>) {
        self.log.delete(name, self.defer(reply));
    }
}

/// A log, the batches that a query has to find in it, and an engine on it.
struct World {
    store: MemoryStore,
    delivery: Arc<Delivery>,
    later: Arc<Mutex<VecDeque<Wake>>>,
    query: CompiledQuery,
    expected: Vec<Vec<u64>>,
    head: u64,
    /// Committed by this store's writer, which publishes in a moment.
    unpublished: VecDeque<CommittedBatch>,
    random: Random,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let filters = [
            "null",
            r#"[{"payload_predicates":[{"n":1}]}]"#,
            r#"[{"event_types":["rare"]}]"#,
        ][random.below(3) as usize];
        let store = MemoryStore::new();
        let later: Arc<Mutex<VecDeque<Wake>>> = Arc::default();
        let log = store.source();
        Self {
            delivery: Delivery::new(Arc::new(Deferred {
                log,
                later: later.clone(),
            })),
            store,
            later,
            query: CompiledQuery::from_json(filters).unwrap(),
            expected: Vec::new(),
            head: 0,
            unpublished: VecDeque::new(),
            random,
        }
    }

    /// Appends a batch, here or elsewhere.
    fn append(&mut self, here: bool) {
        let events: Vec<NewEvent> = (0..=self.random.below(3))
            .map(|_| {
                let event_type = ["usual", "rare"][usize::from(self.random.below(6) == 0)];
                NewEvent::new(event_type, json!({ "n": self.random.below(3) }))
            })
            .collect();
        let batch = PreparedBatch::from_events(&events).unwrap();
        let matching: Vec<u64> = (self.head + 1..)
            .zip(batch.events())
            .filter(|(_, event)| self.query.matches(event.event_type, event.payload))
            .map(|(number, _)| number)
            .collect();
        if !matching.is_empty() {
            self.expected.push(matching);
        }
        let copy = PreparedBatch::from_events(&events).unwrap();
        let result = self.store.append_prepared(batch, None).unwrap();
        self.head = result.last_sequence_number;
        if here {
            self.unpublished.push_back(CommittedBatch {
                first: result.first_sequence_number,
                occurred_at: 0,
                batch: copy,
            });
        }
    }

    fn publish(&mut self) {
        let batches = std::mem::take(&mut self.unpublished);
        self.delivery.publish(batches).fire();
    }

    fn observe(&self) {
        self.delivery.observe(self.head).fire();
    }

    /// Gives one of the answers that wait.
    fn answer(&self) -> bool {
        let next = lock(&self.later).pop_front();
        next.map(|answer| answer()).is_some()
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
            assert!(chunk.batches().next().is_some());
            for batch in chunk.batches() {
                let numbers: Vec<u64> = batch.rows().map(|row| row.sequence_number).collect();
                assert_eq!(numbers.len(), batch.len());
                inbox.batches.push_back((numbers, batch.position()));
            }
        }
    }
}

impl Runner {
    fn start(world: &World) -> Self {
        Self::register(
            world,
            Some(Durable {
                name: "one".to_owned(),
                retry: RetryPolicy::default(),
                if_active: IfActive::Wait,
            }),
        )
    }

    fn register(world: &World, durable: Option<Durable>) -> Self {
        let registration = Registration {
            query: world.query.clone(),
            durable,
        };
        let stream = world.delivery.register(registration).unwrap();
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

/// Two may stand by, and either one may be the one who takes over.
fn swap_if_taken_over(runner: &mut Runner, heir: &mut Option<Runner>) {
    if let Some(heir) = heir
        && heir.stream.lock().lease.is_some()
    {
        std::mem::swap(runner, heir);
    }
}

/// A live stream, and the heads between which it was registered.
struct Live {
    runner: Runner,
    handled: Vec<Vec<u64>>,
    asked_at: u64,
    registered_at: Option<u64>,
}

impl Live {
    fn start(world: &World) -> Self {
        Self {
            runner: Runner::register(world, None),
            handled: Vec::new(),
            asked_at: world.head,
            registered_at: None,
        }
    }

    fn step(&mut self, world: &World) {
        self.runner.pull();
        self.runner.step(false, &mut self.handled);
        self.note(world);
    }

    fn note(&mut self, world: &World) {
        if lock(&self.runner.registered).is_some() {
            self.registered_at.get_or_insert(world.head);
        }
    }

    /// It has to deliver whatever was committed after its registration, maybe some of what was
    /// committed meanwhile, and nothing from before.
    fn check(&self, expected: &[Vec<u64>], seed: u64) {
        let first = self.handled.first().map_or(u64::MAX, |batch| batch[0]);
        let rest = expected.partition_point(|batch| batch[0] < first);
        assert!(first > self.asked_at, "seed {seed}");
        assert_eq!(self.handled, expected[rest..], "seed {seed}");
        let missed = rest.checked_sub(1).map_or(0, |last| expected[last][0]);
        assert!(missed <= self.registered_at.unwrap(), "seed {seed}");
    }
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    let mut live: Option<Live> = None;
    let mut handled = Vec::new();
    let mut runner = Runner::start(&world);
    let mut heir: Option<Runner> = None;
    for _ in 0..400 {
        match world.random.below(18) {
            0..=3 => {
                // Now and then more than the ring holds.
                let batches = [1, 1_100][usize::from(world.random.below(60) == 0)];
                let here = world.random.below(3) > 0;
                (0..batches).for_each(|_| world.append(here));
                if world.random.below(3) > 0 {
                    world.publish();
                }
            }
            4..=6 => runner.pull(),
            7..=10 => runner.step(world.random.below(30) == 0, &mut handled),
            11 if world.random.below(3) == 0 => runner.stream.unsubscribe(),
            12 if heir.is_none() => heir = Some(Runner::start(&world)),
            13 => world.observe(),
            14 => world.publish(),
            15 => match &mut live {
                Some(live) => live.step(&world),
                None => live = Some(Live::start(&world)),
            },
            _ => drop(world.answer()),
        }
        if let Some(live) = &mut live {
            live.note(&world);
        }
        swap_if_taken_over(&mut runner, &mut heir);
        let position = runner.stream.position();
        // What is not handled lies after the position, what is handled before it.
        let next = world.expected.get(handled.len());
        assert!(next.is_none_or(|batch| position < batch[0]), "seed {seed}");
        let running = lock(&runner.registered).is_some() && !*lock(&runner.closed);
        if let Some(last) = handled.last().filter(|_| running) {
            assert!(position >= *last.last().unwrap(), "seed {seed}");
        }
        if *lock(&runner.closed) {
            assert!(!runner.calling);
            runner = heir.take().unwrap_or_else(|| Runner::start(&world));
        } else if running {
            assert!(heir.as_ref().is_none_or(|heir| !heir.stream.enter()));
        }
    }
    let mut rounds = 0;
    while handled.len() < world.expected.len() || lock(&runner.registered).is_none() {
        rounds += 1;
        assert!(rounds < 100_000, "seed {seed}: it does not get on");
        world.publish();
        world.observe();
        runner.pull();
        runner.step(false, &mut handled);
        if *lock(&runner.closed) {
            runner = heir.take().unwrap_or_else(|| Runner::start(&world));
        }
        world.answer();
        swap_if_taken_over(&mut runner, &mut heir);
    }
    assert_eq!(handled, world.expected, "seed {seed}");
    world.publish();
    world.observe();
    runner.pull();
    while world.answer() {
        runner.pull();
    }
    if let Some(mut live) = live {
        while live.runner.stream.position() < world.head && live.handled.last() != handled.last() {
            live.step(&world);
            world.answer();
        }
        live.step(&world);
        live.check(&world.expected, seed);
    }
    assert_eq!(runner.stream.position(), world.head, "seed {seed}");
    let closed = Arc::new(Mutex::new(false));
    let told = closed.clone();
    world.delivery.close_then(move || *lock(&told) = true);
    while world.answer() {}
    assert_eq!(*lock(&closed), !runner.calling, "seed {seed}");
}

#[test]
fn whatever_a_runner_does_each_batch_is_handled_once_in_order() {
    for seed in 0..400 {
        history(seed);
    }
}
