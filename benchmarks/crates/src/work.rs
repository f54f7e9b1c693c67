//! The commands.

use std::sync::atomic::{AtomicU64, Ordering};

use factstr::{AppendResult, EventStoreError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::events::{context_of, decision, growing, hashes, item_name, unrelated};
use crate::measure::{self, Figures, Step};
use crate::{Outcome, Store, speedrun};

const FILLERS: usize = 64;
const FILL_BATCH: u64 = 100;
/// From one item to the next, as in benchmarks/loops.mjs.
const STRIDE: u64 = 7919;

#[derive(Deserialize)]
#[serde(
    tag = "command",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub(crate) enum Command {
    Append {
        callers: usize,
        seconds: f64,
        fresh: u64,
        #[serde(default = "one")]
        batch: u64,
    },
    Loop {
        callers: usize,
        seconds: f64,
        items: u64,
        fresh: u64,
        #[serde(default)]
        start: u64,
    },
    Query {
        callers: usize,
        seconds: f64,
        items: u64,
        #[serde(default)]
        start: u64,
    },
    Fill {
        from: u64,
        to: u64,
        deadline_seconds: f64,
    },
    Speedrun {
        seconds: f64,
    },
    Check {
        first: u64,
        count: u64,
        items: u64,
    },
}

fn one() -> u64 {
    1
}

pub(crate) fn run(store: &Store, command: &Command) -> Outcome<Value> {
    match *command {
        Command::Append {
            callers,
            seconds,
            fresh,
            batch,
        } => append(store, callers, seconds, fresh, batch),
        Command::Loop {
            callers,
            seconds,
            items,
            fresh,
            start,
        } => {
            let wandering = Wandering::over(items, start)?;
            loops(store, callers, seconds, fresh, &wandering)
        }
        Command::Query {
            callers,
            seconds,
            items,
            start,
        } => query(store, callers, seconds, &Wandering::over(items, start)?),
        Command::Fill {
            from,
            to,
            deadline_seconds,
        } => fill(store, from, to, deadline_seconds),
        Command::Speedrun { seconds } => Ok(speedrun::run(store, seconds)?.told()),
        Command::Check {
            first,
            count,
            items,
        } if items > 0 && count >= 10 => Ok(hashes(first, count, items)),
        Command::Check { .. } => Err("check needs an item, and ten events".to_owned()),
    }
}

/// Every step the number of another item, far from the one before.
struct Wandering {
    items: u64,
    at: AtomicU64,
}

impl Wandering {
    fn over(items: u64, start: u64) -> Outcome<Self> {
        if items == 0 {
            return Err("there has to be an item".to_owned());
        }
        Ok(Self {
            items,
            at: AtomicU64::new(start % items),
        })
    }

    fn next(&self) -> String {
        let before = self.at.fetch_add(STRIDE, Ordering::Relaxed);
        item_name((before + STRIDE) % self.items)
    }
}

/// Conflicts are answers, and so is it when a store gives up waiting; the rest is an error.
pub(crate) fn committed(done: Result<AppendResult, EventStoreError>) -> Outcome<Step> {
    match done {
        Ok(_) => Ok(Step::Done(1)),
        Err(EventStoreError::ConditionalAppendConflict { .. }) => Ok(Step::Conflict),
        Err(error) => refused(&error),
    }
}

fn refused(error: &EventStoreError) -> Outcome<Step> {
    let said = error.to_string();
    if said.contains("database is locked") || said.contains("pool timed out") {
        Ok(Step::Refused)
    } else {
        Err(said)
    }
}

fn told(figures: Figures, next: u64) -> Value {
    let (conflicts, refused) = (figures.conflicts, figures.refused);
    let mut answer = figures.told();
    answer["conflicts"] = json!(conflicts);
    answer["refused"] = json!(refused);
    answer["next"] = json!(next);
    answer
}

fn append(store: &Store, callers: usize, seconds: f64, fresh: u64, batch: u64) -> Outcome<Value> {
    let next = AtomicU64::new(fresh);
    let figures = measure::run(callers, seconds, |_| {
        || {
            let first = next.fetch_add(batch, Ordering::Relaxed);
            committed(store.append((first..first + batch).map(unrelated).collect()))
        }
    })?;
    Ok(told(figures, next.into_inner()))
}

fn loops(
    store: &Store,
    callers: usize,
    seconds: f64,
    fresh: u64,
    wandering: &Wandering,
) -> Outcome<Value> {
    let next = AtomicU64::new(fresh);
    let figures = measure::run(callers, seconds, |_| {
        || {
            let context = context_of(&wandering.next());
            let found = match store.query(&context) {
                Ok(found) => found,
                Err(error) => return refused(&error),
            };
            let n = next.fetch_add(1, Ordering::Relaxed);
            let fact = decision(found.event_records.len(), n);
            committed(store.append_if(vec![fact], &context, found.current_context_version))
        }
    })?;
    Ok(told(figures, next.into_inner()))
}

fn query(store: &Store, callers: usize, seconds: f64, wandering: &Wandering) -> Outcome<Value> {
    let events = AtomicU64::new(0);
    let figures = measure::run(callers, seconds, |_| {
        || match store.query(&context_of(&wandering.next())) {
            Ok(found) => {
                events.fetch_add(found.event_records.len() as u64, Ordering::Relaxed);
                Ok(Step::Done(1))
            }
            Err(error) => refused(&error),
        }
    })?;
    let refused = figures.refused;
    let mut answer = figures.told();
    answer["refused"] = json!(refused);
    answer["events"] = json!(events.into_inner());
    Ok(answer)
}

fn fill(store: &Store, from: u64, to: u64, deadline_seconds: f64) -> Outcome<Value> {
    if to < from + 10 {
        return Err("a store is filled with ten events or more".to_owned());
    }
    let at = AtomicU64::new(from);
    let figures = measure::run(FILLERS, deadline_seconds, |_| {
        let (at, mut again) = (&at, None);
        move || {
            // What was refused is asked for again.
            let first = again
                .take()
                .unwrap_or_else(|| at.fetch_add(FILL_BATCH, Ordering::Relaxed));
            if first >= to {
                return Ok(Step::Nothing);
            }
            let last = to.min(first + FILL_BATCH);
            let batch = (first..last).map(|n| growing(from, to, n)).collect();
            Ok(match committed(store.append(batch))? {
                Step::Done(_) => Step::Done(last - first),
                other => {
                    again = Some(first);
                    other
                }
            })
        }
    })?;
    let (is_done, refused) = (figures.count == to - from, figures.refused);
    let mut answer = figures.told();
    answer["done"] = json!(is_done);
    answer["refused"] = json!(refused);
    Ok(answer)
}
