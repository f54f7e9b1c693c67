use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::contract::EventStoreError;
use crate::sqlite::reader_pool::ReaderPool;
use crate::sqlite::readers::ReadJob;

/// Reads for streams, so few at a time that a reader is left for everything else.
pub(super) struct StreamReads {
    readers: Arc<ReaderPool<ReadJob>>,
    at_once: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    waiting: VecDeque<ReadJob>,
}

impl StreamReads {
    pub(super) fn new(readers: Arc<ReaderPool<ReadJob>>, at_once: usize) -> Arc<Self> {
        Arc::new(Self {
            readers,
            at_once,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For what is quick.
    pub(super) fn at_once(&self, job: ReadJob) {
        if let Err(refused) = self.readers.submit(job) {
            refused(Err(EventStoreError::StoreClosed));
        }
    }

    /// For pages.
    pub(super) fn in_turn(self: &Arc<Self>, job: ReadJob) {
        let mut state = self.lock();
        if state.running >= self.at_once {
            state.waiting.push_back(job);
            return;
        }
        state.running += 1;
        drop(state);
        self.submit(job);
    }

    fn submit(self: &Arc<Self>, job: ReadJob) {
        let turn = Turn(self.clone());
        self.at_once(Box::new(move |snapshot| {
            job(snapshot);
            drop(turn);
        }));
    }
}

/// Ends with a job, however that ends.
struct Turn(Arc<StreamReads>);

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.running -= 1;
        }
        drop(state);
        if let Some(next) = next {
            self.0.submit(next);
        }
    }
}
