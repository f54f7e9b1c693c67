//! The stores that every contract test runs on.

#[allow(dead_code)]
pub mod postgres;

use std::future::Future;
use std::sync::Arc;

use factstr::{EventStore, MemoryStore, SqliteStore};

/// Where a store's data are. Those of some outlive the store; all go with the place.
#[allow(dead_code)]
pub enum Place {
    Memory,
    Sqlite(tempfile::TempDir),
    Postgres(postgres::Schema),
}

#[allow(dead_code)]
impl Place {
    pub fn new(name: &str) -> Self {
        match name {
            "memory" => Self::Memory,
            "sqlite" => Self::Sqlite(tempfile::tempdir().unwrap()),
            "postgres" => Self::Postgres(postgres::Schema::new()),
            _ => panic!("there is no store of the name {name}"),
        }
    }

    /// Whether several stores share it, and find what was there before.
    pub fn lasts(&self) -> bool {
        !matches!(self, Self::Memory)
    }

    pub async fn open(&self) -> Arc<dyn EventStore> {
        match self {
            Self::Memory => Arc::new(MemoryStore::new()),
            Self::Sqlite(folder) => {
                Arc::new(SqliteStore::open(folder.path().join("new/store.db")).unwrap())
            }
            Self::Postgres(schema) => Arc::new(schema.open().await),
        }
    }
}

/// Runs a test on each store, from empty.
#[allow(dead_code)]
pub fn on_every_store<F: Future<Output = ()>>(test: impl Fn(Arc<dyn EventStore>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let only = std::env::var("FACTSTR_TEST_STORE");
    for name in ["memory", "sqlite", "postgres"] {
        if only.as_ref().is_ok_and(|only| only != name) {
            continue;
        }
        println!("on the {name} store");
        let place = Place::new(name);
        let store = runtime.block_on(place.open());
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
