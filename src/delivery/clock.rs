//! Things to be done later: one thread for the whole process, which sleeps while there are none.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Wake, lock};

struct Due {
    at: Instant,
    wake: Wake,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The earliest one is the greatest.
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

static DUE: Mutex<BinaryHeap<Due>> = Mutex::new(BinaryHeap::new());
static CHANGED: Condvar = Condvar::new();
static STARTED: Once = Once::new();

/// Calls `wake`, which must be quick, after a delay.
pub(super) fn after(delay: Duration, wake: impl FnOnce() + Send + 'static) {
    // A delay beyond all clocks is as good as none.
    let at = Instant::now()
        .checked_add(delay)
        .unwrap_or_else(|| Instant::now() + Duration::from_secs(365 * 24 * 3_600));
    let wake: Wake = Box::new(wake);
    lock(&DUE).push(Due { at, wake });
    CHANGED.notify_one();
    STARTED.call_once(|| {
        let clock = thread::Builder::new().name("factstr-clock".to_owned());
        if let Err(error) = clock.spawn(run) {
            tracing::error!(%error, "the clock of the streams can't be started");
        }
    });
}

fn run() {
    let mut due = lock(&DUE);
    loop {
        let now = Instant::now();
        match due.peek().map(|next| next.at) {
            Some(at) if at <= now => {
                let next = due.pop();
                drop(due);
                if let Some(next) = next {
                    (next.wake)();
                }
                due = lock(&DUE);
            }
            Some(at) => {
                let waited = CHANGED.wait_timeout(due, at - now);
                due = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            None => due = CHANGED.wait(due).unwrap_or_else(PoisonError::into_inner),
        }
    }
}
