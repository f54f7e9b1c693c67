//! The PostgreSQL server of the tests, which `npm test` starts.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use factstr::{PostgresStore, PostgresStoreOptions};
use tokio_postgres::{Client, Config, NoTls};

const URL: &str = "FACTSTR_TEST_POSTGRES_URL";

/// A database of the server, which tests share: each keeps to a schema of its own.
pub fn server_url() -> String {
    std::env::var(URL).unwrap_or_else(|_| {
        panic!(
            "{URL} must name a PostgreSQL server on which schemas, databases and roles may be \
             created. `npm test` starts one and sets it"
        )
    })
}

/// How tests ask the server themselves.
pub fn config() -> Config {
    let parsed = server_url().parse();
    parsed.unwrap_or_else(|error| panic!("{URL} can't be read: {error}"))
}

pub async fn client_of(config: &Config) -> Client {
    let connected = config.connect(NoTls).await;
    let (client, connection) =
        connected.unwrap_or_else(|error| panic!("the server of {URL} can't be used: {error}"));
    tokio::spawn(connection);
    client
}

pub async fn client() -> Client {
    client_of(&config()).await
}

/// Runs statements as the owner of the server.
pub async fn sql(statements: &str) {
    client().await.batch_execute(statements).await.unwrap();
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name that nothing on the server has.
pub fn new_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    format!(
        "test {:x} {:x} {number}",
        now.as_nanos(),
        std::process::id()
    )
}

/// Runs something to its end, in whatever context.
pub fn wait_for<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(work)
        });
        waiting.join().expect("the server did what it was told")
    })
}

/// Runs statements when it is dropped.
pub struct Afterwards(pub String);

impl Drop for Afterwards {
    fn drop(&mut self) {
        let statements: Vec<&str> = self.0.split(";\n").collect();
        wait_for(async {
            let client = client().await;
            for statement in statements {
                let done = client.batch_execute(statement).await;
                // A test that fails must tell its own failure.
                if !std::thread::panicking() {
                    done.unwrap();
                }
            }
        });
    }
}

/// A schema that is not there yet. It goes with this.
pub struct Schema {
    pub name: String,
    pub url: String,
    _afterwards: Afterwards,
}

impl Schema {
    pub fn new() -> Self {
        Self::named(&new_name())
    }

    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: server_url(),
            _afterwards: Afterwards(format!("DROP SCHEMA IF EXISTS {} CASCADE", quoted(name))),
        }
    }

    /// The name, quoted.
    pub fn quoted(&self) -> String {
        quoted(&self.name)
    }

    pub fn options(&self) -> PostgresStoreOptions {
        PostgresStoreOptions {
            schema: self.name.clone(),
            ..PostgresStoreOptions::default()
        }
    }

    pub async fn try_open(&self) -> Result<PostgresStore, factstr::EventStoreError> {
        PostgresStore::connect_with(&self.url, self.options()).await
    }

    pub async fn open(&self) -> PostgresStore {
        self.try_open().await.unwrap()
    }

    /// A client that finds the schema's tables by their names.
    pub async fn client(&self) -> Client {
        let client = client().await;
        let path = format!("SET search_path TO {}", self.quoted());
        client.batch_execute(&path).await.unwrap();
        client
    }

    /// Creates the schema, and runs statements in it.
    pub async fn with(self, statements: &str) -> Self {
        sql(&format!("CREATE SCHEMA {}", self.quoted())).await;
        self.client().await.batch_execute(statements).await.unwrap();
        self
    }
}
