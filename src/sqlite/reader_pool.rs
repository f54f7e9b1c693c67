//! Hands jobs to threads, the one that was busy last first: its connection's page cache is warm.

use std::collections::VecDeque;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// A thread without work looks for more this long before it sleeps: waking it takes the caller
/// some 10 microseconds, and a caller that reads in a loop is back by then.
const ALERT: Duration = Duration::from_micros(25);

/// The queue of jobs and the threads that wait for one.
#[derive(Debug)]
pub(super) struct ReaderPool<J> {
    state: Mutex<State<J>>,
}

/// A moment in the order of submissions: what was submitted before it has a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

#[derive(Debug)]
struct State<J> {
    jobs: VecDeque<(Moment, J)>,
    now: Moment,
    /// The last one has worked last.
    idle: Vec<Arc<Idle<J>>>,
    ended: bool,
}

#[derive(Debug)]
struct Idle<J> {
    thread: Thread,
    woken: AtomicBool,
    job: Mutex<Option<J>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<J> Default for ReaderPool<J> {
    fn default() -> Self {
        let state = State {
            jobs: VecDeque::new(),
            now: Moment(0),
            idle: Vec::new(),
            ended: false,
        };
        Self {
            state: Mutex::new(state),
        }
    }
}

impl<J> ReaderPool<J> {
    /// Gives jobs to idle threads, and queues the others. They come back if the pool has ended.
    pub(super) fn submit(&self, jobs: Vec<J>) -> Vec<J> {
        let mut woken = Vec::new();
        let mut state = lock(&self.state);
        if state.ended {
            return jobs;
        }
        for job in jobs {
            match state.idle.pop() {
                None => {
                    let now = state.now;
                    state.jobs.push_back((now, job));
                    state.now = Moment(now.0 + 1);
                }
                Some(idle) => {
                    *lock(&idle.job) = Some(job);
                    woken.push(idle);
                }
            }
        }
        drop(state);
        for idle in woken {
            idle.wake();
        }
        Vec::new()
    }

    /// Returns the next queued job if it was submitted before `moment`.
    pub(super) fn next_before(&self, moment: Moment) -> Option<J> {
        let mut state = lock(&self.state);
        let (submitted, _) = state.jobs.front()?;
        if *submitted >= moment {
            return None;
        }
        state.jobs.pop_front().map(|(_, job)| job)
    }

    /// Returns the next job for this thread, and the moment after which no job has been submitted yet;
    /// `None` when the pool has ended and all jobs are taken.
    pub(super) fn next(&self) -> Option<(J, Moment)> {
        let idle = {
            let mut state = lock(&self.state);
            if let Some((_, job)) = state.jobs.pop_front() {
                return Some((job, state.now));
            }
            if state.ended {
                return None;
            }
            let idle = Arc::new(Idle {
                thread: thread::current(),
                woken: AtomicBool::new(false),
                job: Mutex::new(None),
            });
            state.idle.push(idle.clone());
            idle
        };
        let since = Instant::now();
        while !idle.woken.load(Ordering::Acquire) {
            if since.elapsed() < ALERT {
                spin_loop();
            } else {
                thread::park();
            }
        }
        // Woken without a job: the pool has ended, and its queue was empty then.
        let job = lock(&idle.job).take()?;
        Some((job, lock(&self.state).now))
    }

    /// Lets the threads finish what is queued and end.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        for idle in state.idle.drain(..) {
            idle.wake();
        }
    }
}

impl<J> Idle<J> {
    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
