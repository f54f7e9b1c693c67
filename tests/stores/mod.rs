//! The stores that every contract test runs on.

use std::future::Future;
use std::sync::Arc;

use factstr::{EventStore, MemoryStore, SqliteStore};

/// Runs a test on each store, from empty.
pub fn on_every_store<F: Future<Output = ()>>(test: impl Fn(Arc<dyn EventStore>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(folder.path().join("new/store.db")).unwrap();
    let stores: [(&str, Arc<dyn EventStore>); 2] = [
        ("memory", Arc::new(MemoryStore::new())),
        ("sqlite", Arc::new(sqlite)),
    ];
    for (name, store) in stores {
        println!("on the {name} store");
        runtime.block_on(test(store.clone()));
        runtime.block_on(store.close()).unwrap();
    }
}
