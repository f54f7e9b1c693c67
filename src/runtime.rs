//! The crate's own runtime, for those who have none.

use std::sync::OnceLock;

use tokio::runtime::{Handle, Runtime};

use crate::contract::EventStoreError;

/// Threads of the runtime.
const THREADS: usize = 2;

/// The runtime that all stores of the process share. Starts with its first use, and never ends.
pub(crate) fn own_runtime() -> Result<Handle, EventStoreError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("factstr")
            .enable_all()
            .build()
            .map_err(|error| format!("the runtime can't be started: {error}"))
    });
    match runtime {
        Ok(runtime) => Ok(runtime.handle().clone()),
        Err(error) => Err(EventStoreError::BackendFailure(error.clone())),
    }
}
