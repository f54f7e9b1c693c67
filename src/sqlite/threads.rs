use std::mem::{replace, take};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::failure::Result;
use crate::contract::EventStoreError;

/// Is told how the threads ended.
type Waiter = Box<dyn FnOnce(Result<()>) + Send>;

/// The threads of a store, and who waits for their end.
#[derive(Clone)]
pub(super) struct Threads {
    state: Arc<Mutex<State>>,
}

enum State {
    Running(Vec<JoinHandle<()>>),
    Ending {
        threads: Vec<JoinHandle<()>>,
        waiters: Vec<Waiter>,
    },
    Ended(Result<()>),
}

impl Threads {
    pub(super) fn new(threads: Vec<JoinHandle<()>>) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::Running(threads))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `waiter` when all threads, which have been told to end, have ended: every caller's.
    pub(super) fn when_ended(&self, waiter: impl FnOnce(Result<()>) + Send + 'static) {
        let mut state = self.lock();
        match &mut *state {
            State::Ended(result) => {
                let result = result.clone();
                drop(state);
                waiter(result);
            }
            State::Ending { waiters, .. } => waiters.push(Box::new(waiter)),
            State::Running(threads) => {
                let threads = take(threads);
                let waiters: Vec<Waiter> = vec![Box::new(waiter)];
                *state = State::Ending { threads, waiters };
                drop(state);
                let all = self.clone();
                let joiner = thread::Builder::new().name("factstr-close".to_owned());
                // Without a thread to wait in, the caller has to.
                if joiner.spawn(move || all.join()).is_err() {
                    self.join();
                }
            }
        }
    }

    fn join(&self) {
        let threads = match &mut *self.lock() {
            State::Ending { threads, .. } => take(threads),
            State::Running(_) | State::Ended(_) => return,
        };
        let panicked = threads.into_iter().map(JoinHandle::join);
        let result = if panicked.fold(false, |any, end| any | end.is_err()) {
            let message = "a thread of the store panicked".to_owned();
            Err(EventStoreError::BackendFailure(message))
        } else {
            Ok(())
        };
        let before = replace(&mut *self.lock(), State::Ended(result.clone()));
        if let State::Ending { waiters, .. } = before {
            for waiter in waiters {
                waiter(result.clone());
            }
        }
    }
}
