use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::contract::EventStoreError;
use crate::delivery::Reply;
use crate::sqlite::failure::{Result, guarded};
use crate::sqlite::reader_pool::ReaderPool;
use crate::sqlite::readers::{ReadJob, Shared};
use crate::sqlite::snapshot::LogSnapshot;

/// Reads for streams, so few at a time that a reader is left for everything else.
pub(super) struct StreamReads {
    readers: Arc<ReaderPool<ReadJob>>,
    shared: Arc<Shared>,
    at_once: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    waiting: VecDeque<ReadJob>,
    /// There are no readers any more.
    ended: bool,
}

impl StreamReads {
    pub(super) fn new(
        readers: Arc<ReaderPool<ReadJob>>,
        shared: Arc<Shared>,
        at_once: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            readers,
            shared,
            at_once,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn job<T: 'static>(
        &self,
        read: impl FnOnce(&mut LogSnapshot) -> Result<T> + Send + 'static,
        reply: Reply<T>,
    ) -> ReadJob {
        let shared = self.shared.clone();
        Box::new(move |snapshot| {
            let database = &shared.database;
            let answer = snapshot.and_then(|snapshot| guarded(|| read(snapshot)));
            let answer = database.refuse_changes().and(answer);
            reply(answer.map_err(|error| error.at(&database.path)));
        })
    }

    /// For what is quick.
    pub(super) fn at_once<T: 'static>(
        &self,
        read: impl FnOnce(&mut LogSnapshot) -> Result<T> + Send + 'static,
        reply: Reply<T>,
    ) {
        self.submit(self.job(read, reply));
    }

    /// For pages.
    pub(super) fn in_turn<T: 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&mut LogSnapshot) -> Result<T> + Send + 'static,
        reply: Reply<T>,
    ) {
        let job = self.job(read, reply);
        let mut state = self.lock();
        if state.ended {
            drop(state);
            return job(Err(EventStoreError::StoreClosed));
        }
        if state.running >= self.at_once {
            state.waiting.push_back(job);
            return;
        }
        state.running += 1;
        drop(state);
        self.take_turn(job);
    }

    fn take_turn(self: &Arc<Self>, job: ReadJob) {
        let turn = Turn(self.clone());
        self.submit(Box::new(move |snapshot| {
            job(snapshot);
            drop(turn);
        }));
    }

    fn submit(&self, job: ReadJob) {
        for refused in self.readers.submit(vec![job]) {
            self.lock().ended = true;
            refused(Err(EventStoreError::StoreClosed));
        }
    }
}

/// Ends with a job, however that ends.
struct Turn(Arc<StreamReads>);

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.ended {
            let refused = std::mem::take(&mut state.waiting);
            drop(state);
            for job in refused {
                job(Err(EventStoreError::StoreClosed));
            }
        } else if let Some(next) = state.waiting.pop_front() {
            drop(state);
            self.0.take_turn(next);
        } else {
            state.running -= 1;
        }
    }
}
