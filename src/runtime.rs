//! The crate's own runtimes, for those who have none.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::contract::EventStoreError;

/// A runtime that starts with its first use, and never ends.
pub(crate) struct OwnRuntime {
    name: &'static str,
    threads: usize,
    runtime: OnceLock<Result<Runtime, String>>,
}

/// Where the connections to servers live. What happens to one connection happens in several tasks, and waking
/// another thread for each would take longer than they do.
#[cfg(feature = "postgres")]
pub(crate) static CONNECTIONS: OwnRuntime = OwnRuntime::new("factstr-connections", 1);

/// Where handlers run. What they do, even if it blocks, does not hold up a connection.
pub(crate) static HANDLERS: OwnRuntime = OwnRuntime::new("factstr-handlers", 2);

impl OwnRuntime {
    const fn new(name: &'static str, threads: usize) -> Self {
        Self {
            name,
            threads,
            runtime: OnceLock::new(),
        }
    }

    pub(crate) fn handle(&self) -> Result<Handle, EventStoreError> {
        let runtime = self.runtime.get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(self.threads)
                .thread_name(self.name)
                .enable_all()
                .build()
                .map_err(|error| format!("the runtime {} can't be started: {error}", self.name))
        });
        match runtime {
            Ok(runtime) => Ok(runtime.handle().clone()),
            Err(error) => Err(EventStoreError::BackendFailure(error.clone())),
        }
    }
}

/// Texts that take more than some milliseconds to be gone through, in bytes.
#[cfg(feature = "postgres")]
const LONG: usize = 1024 * 1024;

/// Does work of a task in `CONNECTIONS` that goes through `bytes` of text. If that takes long, the connections go
/// on in another thread meanwhile.
#[cfg(feature = "postgres")]
pub(crate) fn beside_connections<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes < LONG {
        work()
    } else {
        tokio::task::block_in_place(work)
    }
}
