//! Callers that take steps for some time, and the figures that come of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;
use crate::program::told;

static IS_STOPPED: AtomicBool = AtomicBool::new(false);

/// Ends whatever is measured after the steps that were begun.
pub(crate) fn stop() {
    IS_STOPPED.store(true, Ordering::Relaxed);
}

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many were done.
    Done(u64),
    Conflict,
    /// The store gave up waiting for a connection or a lock.
    Refused,
    /// Nothing is left to do, for this caller.
    Nothing,
}

#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) count: u64,
    pub(crate) conflicts: u64,
    pub(crate) refused: u64,
    pub(crate) elapsed: Duration,
    times: Vec<Duration>,
}

impl Figures {
    pub(crate) fn add(&mut self, step: Step, took: Duration) {
        match step {
            Step::Done(count) => self.count += count,
            Step::Conflict => self.conflicts += 1,
            Step::Refused => self.refused += 1,
            Step::Nothing => return,
        }
        self.times.push(took);
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.conflicts += other.conflicts;
        self.refused += other.refused;
        self.times.extend(other.times);
    }

    /// What every answer has.
    pub(crate) fn told(mut self) -> Value {
        self.times.sort_unstable();
        let percentile = |hundredth: usize| {
            let at = self.times.len() * hundredth / 100;
            self.times.get(at).map(|time| time.as_secs_f64() * 1e6)
        };
        json!({
            "rate": self.count as f64 / self.elapsed.as_secs_f64(),
            "count": self.count,
            "latencies": { "p50": percentile(50), "p90": percentile(90), "p99": percentile(99) },
        })
    }
}

/// Keeps `callers` threads at work for some seconds. `caller` makes what one of them does over and over.
pub(crate) fn run<F>(
    callers: usize,
    seconds: f64,
    caller: impl Fn(usize) -> F + Sync,
) -> Outcome<Figures>
where
    F: FnMut() -> Outcome<Step>,
{
    let limit = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    let has_failed = AtomicBool::new(false);
    let start = Instant::now();
    let lane = |which: usize| {
        let mut step = caller(which);
        let mut figures = Figures::default();
        while start.elapsed() < limit && !is_stopped() && !has_failed.load(Ordering::Relaxed) {
            let began = Instant::now();
            let done = step().inspect_err(|_| has_failed.store(true, Ordering::Relaxed))?;
            figures.add(done, began.elapsed());
            if done == Step::Nothing {
                break;
            }
        }
        Ok(figures)
    };
    let lane = &lane;
    let all = thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|which| scope.spawn(move || lane(which)))
            .collect();
        let results: Vec<Outcome<Figures>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| Err(told(&*panic))))
            .collect();
        results
    });
    let mut total = Figures {
        elapsed: start.elapsed(),
        ..Figures::default()
    };
    for figures in all {
        total.merge(figures?);
    }
    Ok(total)
}

pub(crate) fn is_stopped() -> bool {
    IS_STOPPED.load(Ordering::Relaxed)
}
