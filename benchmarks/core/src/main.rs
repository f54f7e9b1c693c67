//! The crate `factstr` as an application in Rust has it, for W12: what benchmarks/boundary.mjs does by way of
//! Node.js, done without.
//!
//! Started with a place in `FACTSTR_BENCH_PLACE` (`{"kind":"memory"}`, or with the `path` of a file or the `url` of a
//! database). It prints `{"ready":true}` once the store is open, reads commands as lines of JSON, answers each by one
//! line, and ends when its input does. Whatever fails is answered by `{"error":"..."}`.
//!
//! | command   | fields                                          | what is done                                    |
//! | --------- | ----------------------------------------------- | ----------------------------------------------- |
//! | `fill`    | to                                              | an empty store gets so many events              |
//! | `measure` | work, seconds, callers (1), batch (1), items    | the work, over and over, for some seconds       |
//! | `count`   | work, steps, batch (1), items                   | so many steps, of which allocations are counted |
//! | `check`   | first, count, items                             | hashes of the events that are made              |
//!
//! The works: `append`; `decide` (a context is read, and appended to on condition; what is counted is the append
//! alone); `query` of the ten events of an item; `read` of the whole log; `deliver` (one append, until a live stream
//! has handed it over). Whoever calls is one thread, as in Node.js: many callers are many futures on it.

mod allocations;
#[path = "../../crates/src/events.rs"]
mod events;
mod measure;
mod usage;
mod work;

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use factstr::{EventStore, MemoryStore, PostgresStore, PostgresStoreOptions, SqliteStore};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::work::Command;

/// A reason, as it is answered.
type Outcome<T> = Result<T, String>;

type Store = Arc<dyn EventStore>;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Place {
    Memory,
    Sqlite { path: String },
    Postgres { url: String },
}

fn main() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let store = match runtime.block_on(open()) {
        Ok(store) => store,
        Err(error) => {
            answer(&json!({ "error": error }))?;
            std::process::exit(1);
        }
    };
    answer(&json!({ "ready": true }))?;
    for line in io::stdin().lock().lines() {
        let done = match serde_json::from_str::<Command>(&line?) {
            Ok(command) => runtime.block_on(work::run(&store, command)),
            Err(error) => Err(error.to_string()),
        };
        answer(&done.unwrap_or_else(|error| json!({ "error": error })))?;
    }
    runtime.block_on(store.close()).map_err(io::Error::other)
}

async fn open() -> Outcome<Store> {
    let place = std::env::var("FACTSTR_BENCH_PLACE").map_err(|error| error.to_string())?;
    let place = serde_json::from_str(&place).map_err(|error| error.to_string())?;
    let opened: Result<Store, _> = match place {
        Place::Memory => Ok(Arc::new(MemoryStore::new()) as Store),
        Place::Sqlite { path } => SqliteStore::open(path).map(|store| Arc::new(store) as Store),
        Place::Postgres { url } => {
            let options = PostgresStoreOptions {
                schema: "factstr".to_owned(),
                ..PostgresStoreOptions::default()
            };
            PostgresStore::connect_with(&url, options)
                .await
                .map(|store| Arc::new(store) as Store)
        }
    };
    opened.map_err(|error| error.to_string())
}

fn answer(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}
