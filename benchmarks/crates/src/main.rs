//! The crates factstr-memory, factstr-sqlite and factstr-postgres 0.5.2, and the stores `UmaDB` and tephra, as sides of the
//! benchmark, timed inside of this process.
//!
//! Started as `factstr-crates memory`, `sqlite <path>`, `postgres <url>`, `umadb <path>` or `tephra <folder>`. It prints `{"ready":true}` once
//! the store is open, reads commands as lines of JSON, answers each by one line, and ends when its input
//! does: what runs then ends early. Whatever fails is answered by `{"error":"..."}`.
//!
//! | command    | fields                               | one step, as often as `count` says                      |
//! | ---------- | ------------------------------------ | ------------------------------------------------------- |
//! | `append`   | callers, seconds, fresh, batch (1)   | one append of `batch` events that are `unrelated`       |
//! | `loop`     | callers, seconds, items, fresh, start (0) | a context is read, decided, appended if unchanged  |
//! | `query`    | callers, seconds, items, start (0)   | the events of one item are read                         |
//! | `fill`     | from, to, deadlineSeconds            | one event; they are `growing`, in batches of 100 by 64 callers |
//! | `speedrun` | seconds                              | one operation; iterations of 120 are not broken off     |
//! | `check`    | first, count, items                  | none: hashes of the events that are made                |
//!
//! Answers are `{ rate, count, latencies: { p50, p90, p99 } }`: steps a second, steps, and microseconds. A
//! caller is a thread. `append` and `loop` count what was committed, and also tell `conflicts`,
//! `refused` (how often a store gave up waiting for its turn) and `next`, the first number from `fresh` on
//! that made no event; latencies are those of every step, committed or not. `query` tells in `events` how
//! many it read; `fill` tells in `done` whether it came to the end, and its latencies are those of batches.

mod dcb;
mod events;
mod measure;
mod speedrun;
mod work;

use std::any::Any;
use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use factstr::EventStore;
use factstr_memory::MemoryStore;
use factstr_postgres::PostgresStore;
use factstr_sqlite::SqliteStore;
use serde_json::{Value, json};

use crate::work::Command;

/// What a store is to those who measure it.
type Store = Box<dyn EventStore + Send + Sync>;

/// A reason, as it is answered.
type Outcome<T> = Result<T, String>;

/// How long a step may go on that was begun before the input ended.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let store = match guarded(|| open(&arguments)) {
        Ok(store) => store,
        Err(error) => {
            answer(&json!({ "error": error }))?;
            std::process::exit(1);
        }
    };
    answer(&json!({ "ready": true }))?;
    for line in lines() {
        let done = guarded(|| {
            let command: Command =
                serde_json::from_str(&line).map_err(|error| error.to_string())?;
            work::run(&store, &command)
        });
        answer(&done.unwrap_or_else(|error| json!({ "error": error })))?;
    }
    Ok(())
}

fn open(arguments: &[String]) -> Outcome<Store> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["memory"] => Ok(Box::new(MemoryStore::new())),
        ["sqlite", path] => Ok(Box::new(
            SqliteStore::open(path).map_err(|error| error.to_string())?,
        )),
        ["postgres", url] => Ok(Box::new(
            PostgresStore::connect(url).map_err(|error| error.to_string())?,
        )),
        ["umadb", path] => dcb::umadb(path),
        ["tephra", path] => dcb::tephra(path),
        _ => Err(
            "usage: factstr-crates memory | sqlite <path> | postgres <url> | umadb <path> | tephra <folder>".to_owned(),
        ),
    }
}

/// Lines are read beside the work, so that the end of the input is seen while it runs.
fn lines() -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if !line.trim().is_empty() && sender.send(line).is_err() {
                return;
            }
        }
        measure::stop();
        drop(sender);
        thread::sleep(GRACE);
        std::process::exit(1);
    });
    receiver
}

fn answer(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

/// A panic is an error like any other.
fn guarded<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(told(&*panic)))
}

/// What a panic said.
fn told(panic: &(dyn Any + Send)) -> String {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", said.unwrap_or("nothing was said"))
}
