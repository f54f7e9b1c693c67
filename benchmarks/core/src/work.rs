//! The commands.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;

use factstr::{EventQuery, HandleStream, NewEvent, ReadOptions};
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::events::{context_of, decision, growing, hashes, item_name, unrelated};
use crate::{Outcome, Store, allocations, measure};

const FILLERS: u64 = 64;
const FILL_BATCH: u64 = 100;
/// From one item to the next, as in benchmarks/loops.mjs.
const STRIDE: u64 = 7919;
/// Above what stores are filled with.
const FRESH: u64 = 100_000_000;

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Command {
    Fill {
        to: u64,
    },
    Measure {
        work: Work,
        seconds: f64,
        #[serde(default = "one")]
        callers: usize,
        #[serde(default = "one")]
        batch: usize,
        items: u64,
    },
    Count {
        work: Work,
        steps: usize,
        #[serde(default = "one")]
        batch: usize,
        items: u64,
    },
    Check {
        first: u64,
        count: u64,
        items: u64,
    },
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Work {
    Append,
    Decide,
    Query,
    Read,
    Deliver,
}

fn one() -> usize {
    1
}

pub(crate) async fn run(store: &Store, command: Command) -> Outcome<Value> {
    match command {
        Command::Fill { to } => fill(store, to).await,
        Command::Measure {
            work,
            seconds,
            callers,
            batch,
            items,
        } => {
            let job = Job::start(store, work, batch, items).await?;
            let found = measure::run(callers, seconds, async || {
                job.perform(job.prepare().await?).await
            });
            let found = found.await?;
            job.end().await;
            Ok(found)
        }
        Command::Count {
            work,
            steps,
            batch,
            items,
        } => {
            let job = Job::start(store, work, batch, items).await?;
            let counted = job.count(steps).await?;
            job.end().await;
            Ok(counted)
        }
        Command::Check {
            first,
            count,
            items,
        } => Ok(hashes(first, count, items)),
    }
}

/// What a step needs, made before it so that it need not be counted.
enum Input {
    Append(Vec<NewEvent>),
    AppendIf(Vec<NewEvent>, EventQuery, Option<u64>),
    Query(EventQuery),
    Read,
}

/// A work on a store, with a live stream if it takes one.
struct Job {
    store: Store,
    work: Work,
    batch: usize,
    items: u64,
    item: Cell<u64>,
    stream: Option<(factstr::EventStream, Arc<Notify>)>,
}

thread_local! {
    /// The next number of an event.
    static NEXT: Cell<u64> = const { Cell::new(FRESH) };
}

fn fresh() -> u64 {
    NEXT.replace(NEXT.get() + 1)
}

impl Job {
    async fn start(store: &Store, work: Work, batch: usize, items: u64) -> Outcome<Self> {
        let mut stream = None;
        if work == Work::Deliver {
            let handled = Arc::new(Notify::new());
            let telling = handled.clone();
            let handle = HandleStream::new(move |records| {
                black_box(records);
                telling.notify_one();
                async { Ok(()) }
            });
            stream = Some((store.stream_all(handle).await.map_err(said)?, handled));
        }
        Ok(Self {
            store: store.clone(),
            work,
            batch,
            items,
            item: Cell::new(0),
            stream,
        })
    }

    async fn end(self) {
        if let Some((stream, _)) = self.stream {
            stream.unsubscribe().await;
        }
    }

    /// Every time the context of another item, far from the one before.
    fn context(&self) -> EventQuery {
        self.item.set((self.item.get() + STRIDE) % self.items);
        context_of(&item_name(self.item.get()))
    }

    /// A decision reads its context here.
    async fn prepare(&self) -> Outcome<Input> {
        Ok(match self.work {
            Work::Append | Work::Deliver => {
                Input::Append((0..self.batch).map(|_| unrelated(fresh())).collect())
            }
            Work::Decide => {
                let context = self.context();
                let found = self.store.query(&context).await.map_err(said)?;
                let fact = decision(found.event_records.len(), fresh());
                Input::AppendIf(vec![fact], context, found.current_context_version)
            }
            Work::Query => Input::Query(self.context()),
            Work::Read => Input::Read,
        })
    }

    /// One step, and how many it did: appends, queries, or events that were read.
    async fn perform(&self, input: Input) -> Outcome<u64> {
        match input {
            Input::Append(events) => {
                self.store.append(events).await.map_err(said)?;
                if let Some((_, handled)) = &self.stream {
                    handled.notified().await;
                }
            }
            Input::AppendIf(events, context, version) => {
                let done = self.store.append_if(events, &context, version).await;
                done.map_err(said)?;
            }
            Input::Query(context) => {
                let found = self.store.query(&context).await.map_err(said)?;
                if found.event_records.len() < 10 {
                    return Err("events are missing".to_owned());
                }
                black_box(found);
            }
            Input::Read => return self.read().await,
        }
        Ok(1)
    }

    async fn read(&self) -> Outcome<u64> {
        let mut count = 0;
        let mut next = Some(ReadOptions::default());
        while let Some(options) = next {
            let page = self.store.read(&EventQuery::all(), options).await;
            let page = page.map_err(said)?;
            count += page.event_records.len() as u64;
            black_box(page.event_records);
            next = page.next;
        }
        Ok(count)
    }

    async fn count(&self, steps: usize) -> Outcome<Value> {
        // What is made once, and not for each step, is made by the first ones.
        for _ in 0..10 {
            if self.work != Work::Read {
                self.perform(self.prepare().await?).await?;
            }
        }
        let mut inputs = Vec::with_capacity(steps);
        for _ in 0..steps {
            inputs.push(self.prepare().await?);
        }
        let mut count = 0;
        allocations::start();
        for input in inputs {
            count += self.perform(input).await?;
        }
        let found = allocations::stop();
        Ok(json!({ "count": count, "allocations": found.count, "bytes": found.bytes }))
    }
}

/// As `map_err` takes it.
#[allow(clippy::needless_pass_by_value)]
fn said(error: factstr::EventStoreError) -> String {
    error.to_string()
}

/// Does nothing to a store that has been filled.
async fn fill(store: &Store, to: u64) -> Outcome<Value> {
    let has_some = store.head_sequence_number().await.map_err(said)?.is_some();
    let at = Cell::new(if has_some { to } else { 0 });
    let lane = async || {
        while at.get() < to {
            let first = at.replace(at.get() + FILL_BATCH);
            let last = to.min(first + FILL_BATCH);
            let batch = (first..last).map(|n| growing(0, to, n)).collect();
            store.append(batch).await.map_err(said)?;
        }
        Ok::<(), String>(())
    };
    try_join_all((0..FILLERS).map(|_| lane())).await?;
    Ok(json!({}))
}
