//! The stores that every contract test runs on.

use std::future::Future;
use std::sync::Arc;

use factstr::{EventStore, MemoryStore, SqliteStore};

/// Runs a test on each store, from empty.
#[allow(dead_code)]
pub fn on_every_store<F: Future<Output = ()>>(test: impl Fn(Arc<dyn EventStore>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(folder.path().join("new/store.db")).unwrap();
    let only = std::env::var("FACTSTR_TEST_STORE");
    let stores: [(&str, Arc<dyn EventStore>); 2] = [
        ("memory", Arc::new(MemoryStore::new())),
        ("sqlite", Arc::new(sqlite)),
    ];
    for (name, store) in stores {
        if only.as_ref().is_ok_and(|only| only != name) {
            continue;
        }
        println!("on the {name} store");
        runtime.block_on(test(store.clone()));
        runtime.block_on(store.close()).unwrap();
    }
}

/// Waits for a condition that has to become true.
#[allow(dead_code)]
pub async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), waiting)
        .await
        .expect("the condition became true within a minute");
}
