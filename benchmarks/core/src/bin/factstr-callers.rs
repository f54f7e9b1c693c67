//! The crate `factstr` as a side of the benchmark beside other stores in Rust: measured by the code that measures
//! those, benchmarks/crates, whose main.rs tells the commands. A caller is a thread that waits for its future.
//!
//! Started as `factstr-callers memory` or `sqlite <path>`.

#[path = "../../../crates/src/events.rs"]
mod events;
#[path = "../../../crates/src/measure.rs"]
mod measure;
#[path = "../../../crates/src/program.rs"]
mod program;
#[path = "../../../crates/src/speedrun.rs"]
mod speedrun;
#[path = "../../../crates/src/work.rs"]
mod work;

use std::io;

use factstr::{
    AppendResult, EventQuery, EventStore, EventStoreError, MemoryStore, NewEvent, QueryResult,
    SqliteStore,
};
use futures_executor::block_on;

/// A reason, as it is answered.
type Outcome<T> = Result<T, String>;

/// What a store is to those who measure it.
struct Store(Box<dyn EventStore>);

impl Store {
    fn append(&self, events: Vec<NewEvent>) -> Result<AppendResult, EventStoreError> {
        block_on(self.0.append(events))
    }

    fn append_if(
        &self,
        events: Vec<NewEvent>,
        context: &EventQuery,
        expected: Option<u64>,
    ) -> Result<AppendResult, EventStoreError> {
        block_on(self.0.append_if(events, context, expected))
    }

    fn query(&self, context: &EventQuery) -> Result<QueryResult, EventStoreError> {
        block_on(self.0.query(context))
    }
}

fn main() -> io::Result<()> {
    program::serve(open)
}

fn open(arguments: &[&str]) -> Outcome<Store> {
    let store: Result<Box<dyn EventStore>, _> = match *arguments {
        ["memory"] => Ok(Box::new(MemoryStore::new())),
        ["sqlite", path] => SqliteStore::open(path).map(|store| Box::new(store) as _),
        _ => {
            return Err("usage: factstr-callers memory | sqlite <path>".to_owned());
        }
    };
    store.map(Store).map_err(|error| error.to_string())
}
