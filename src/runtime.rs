//! The crate's own runtimes, for those who have none.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::contract::EventStoreError;

/// Threads of each runtime.
const THREADS: usize = 1;

/// A runtime that starts with its first use, and never ends.
pub(crate) struct OwnRuntime {
    name: &'static str,
    runtime: OnceLock<Result<Runtime, String>>,
}

/// Where the connections to servers live.
#[cfg(feature = "postgres")]
pub(crate) static CONNECTIONS: OwnRuntime = OwnRuntime::new("factstr-connections");

/// Where handlers run. What they do, even if it blocks, does not hold up a connection.
pub(crate) static HANDLERS: OwnRuntime = OwnRuntime::new("factstr-handlers");

impl OwnRuntime {
    const fn new(name: &'static str) -> Self {
        let runtime = OnceLock::new();
        Self { name, runtime }
    }

    pub(crate) fn handle(&self) -> Result<Handle, EventStoreError> {
        let runtime = self.runtime.get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(THREADS)
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
