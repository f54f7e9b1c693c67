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
mod program;
mod speedrun;
mod work;

use std::io;

use factstr::EventStore;
use factstr_memory::MemoryStore;
use factstr_postgres::PostgresStore;
use factstr_sqlite::SqliteStore;

/// What a store is to those who measure it.
type Store = Box<dyn EventStore + Send + Sync>;

/// A reason, as it is answered.
type Outcome<T> = Result<T, String>;

fn main() -> io::Result<()> {
    program::serve(open)
}

fn open(arguments: &[&str]) -> Outcome<Store> {
    match *arguments {
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
