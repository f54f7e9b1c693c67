use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::Function;
use napi_derive::napi;

use super::append_of;
use super::completions::{Answer, Answers, Completions};
use super::page::{PageOptions, TextSink};
use super::streams::NativeStreams;
use crate::contract::{AppendResult, EventStoreError};
use crate::payload::CompiledQuery;
use crate::postgres::{PostgresStore, PostgresStoreOptions, TlsOptions};
use crate::runtime::CONNECTIONS;
use crate::selection::PAGE_BYTES;

/// The PostgreSQL store for `index.js`. Every call returns at once; its answer comes later, under the id
/// that it was given.
#[napi]
pub struct NativePostgresStore {
    store: Arc<OnceLock<PostgresStore>>,
    completions: Arc<Completions>,
    /// What was asked for in this turn. Who asks the same gets the same answer.
    pages: Mutex<HashMap<PageKey, Vec<f64>>>,
}

/// The filters, and the options as the bits of their numbers.
type PageKey = (String, [u64; 3], bool, bool);

/// How to connect; all but the names and the TLS texts is set by `index.js`.
#[napi(object)]
pub struct ConnectOptions {
    /// Creates this database unless it exists; the URL is then one of its server.
    pub database_name: Option<String>,
    pub schema: Option<String>,
    pub max_connections: f64,
    /// Milliseconds.
    pub connect_timeout: f64,
    /// Milliseconds, 0: none.
    pub statement_timeout: f64,
    pub application_name: Option<String>,
    /// Milliseconds.
    pub poll_interval: f64,
    /// PEM.
    pub ca: Option<String>,
    /// PEM.
    pub cert: Option<String>,
    /// PEM.
    pub key: Option<String>,
    pub server_name: Option<String>,
}

impl ConnectOptions {
    fn into_options(self) -> (Option<String>, PostgresStoreOptions) {
        let millis = |millis: f64| Duration::from_millis(millis as u64);
        let defaults = PostgresStoreOptions::default();
        let options = PostgresStoreOptions {
            schema: self.schema.unwrap_or(defaults.schema),
            max_connections: self.max_connections as usize,
            connect_timeout: millis(self.connect_timeout),
            statement_timeout: millis(self.statement_timeout),
            application_name: self.application_name,
            poll_interval: millis(self.poll_interval),
            tls: TlsOptions {
                ca: self.ca.map(String::into_bytes),
                cert: self.cert.map(String::into_bytes),
                key: self.key.map(String::into_bytes),
                server_name: self.server_name,
            },
        };
        (self.database_name, options)
    }
}

#[napi]
impl NativePostgresStore {
    /// `on_answers` is called when there are answers to be taken.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: Env, on_answers: Function<'_, (), ()>) -> napi::Result<Self> {
        let completions = Completions::new(&on_answers)?;
        let store = Arc::new(OnceLock::<PostgresStore>::new());
        // A worker that is terminated leaves nothing behind that still writes.
        let weak = Arc::downgrade(&store);
        env.add_env_cleanup_hook(weak, |weak| {
            if let Some(store) = weak.upgrade()
                && let Some(store) = store.get()
            {
                store.begin_close();
            }
        })?;
        let pages = Mutex::default();
        Ok(Self {
            store,
            completions,
            pages,
        })
    }

    /// Connects, and prepares the schema.
    #[napi(catch_unwind)]
    pub fn open(&self, id: f64, url: String, options: ConnectOptions) {
        let (store, completions) = (self.store.clone(), self.completions.clone());
        let runtime = match CONNECTIONS.handle() {
            Ok(runtime) => runtime,
            Err(error) => return completions.push(id, Answer::Failed(error)),
        };
        let (database, options) = options.into_options();
        runtime.spawn(async move {
            let opened = match database {
                Some(name) => PostgresStore::bootstrap(&url, &name, options).await,
                None => PostgresStore::connect_with(&url, options).await,
            };
            let answer = match opened {
                Ok(opened) => {
                    let _ = store.set(opened);
                    Answer::Done
                }
                Err(error) => Answer::Failed(error),
            };
            completions.push(id, answer);
        });
    }

    /// Appends a batch; with filters, if their newest match is the expected one.
    #[napi(catch_unwind)]
    pub fn append(&self, id: f64, events: String, filters: Option<String>, expected: f64) {
        let completions = self.completions.clone();
        let reply = move |verdict: Result<AppendResult, EventStoreError>| {
            completions.push(id, Answer::of_append(verdict));
        };
        let prepared = append_of(&events, filters.as_deref(), expected);
        match (prepared, self.store.get()) {
            (Ok((batch, condition)), Some(store)) => store.submit_append(batch, condition, reply),
            (Ok(_), None) => reply(Err(EventStoreError::StoreClosed)),
            (Err(error), _) => reply(Err(error)),
        }
    }

    /// Reads one page.
    #[napi(catch_unwind)]
    #[allow(clippy::too_many_arguments)]
    pub fn page(
        &self,
        id: f64,
        filters: String,
        after: f64,
        before: f64,
        backwards: bool,
        max_rows: f64,
        version: bool,
    ) {
        let bits = [after, before, max_rows].map(f64::to_bits);
        let key = (filters, bits, backwards, version);
        self.pages().entry(key).or_default().push(id);
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<PageKey, Vec<f64>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a page for all who have asked for it.
    fn read_page(&self, key: PageKey, ids: Vec<f64>) {
        let (filters, bits, backwards, version) = key;
        let [after, before, max_rows] = bits.map(f64::from_bits);
        let options = PageOptions {
            after,
            before,
            backwards,
            max_rows,
            version,
        };
        let completions = self.completions.clone();
        let answer = move |page: Result<String, EventStoreError>| {
            for id in ids {
                let page = page.clone();
                completions.push(id, page.map_or_else(Answer::Failed, Answer::Page));
            }
        };
        let query = match CompiledQuery::from_json(&filters) {
            Ok(query) => query,
            Err(error) => return answer(Err(error)),
        };
        let Some(store) = self.store.get() else {
            return answer(Err(EventStoreError::StoreClosed));
        };
        let request = options.request(PAGE_BYTES);
        let sink = TextSink::with_room(PAGE_BYTES);
        store.submit_page(query, request, version, sink, move |page| {
            answer(page.map(|(sink, end, version)| sink.into_text(end, version)));
        });
    }

    /// Tells the newest sequence number.
    #[napi(catch_unwind)]
    pub fn head(&self, id: f64) {
        let completions = self.completions.clone();
        match self.store.get() {
            Some(store) => store.submit_head(move |head| {
                completions.push(id, head.map_or_else(Answer::Failed, Answer::Number));
            }),
            None => completions.push(id, Answer::Failed(EventStoreError::StoreClosed)),
        }
    }

    /// Opens the side of the streams, once the store is open; `on_answers` is called when there are
    /// answers to be taken.
    #[napi(catch_unwind)]
    pub fn streams(&self, on_answers: Function<'_, (), ()>) -> napi::Result<NativeStreams> {
        match self.store.get() {
            Some(store) => NativeStreams::new(store.delivery(), self.store.clone(), &on_answers),
            None => Err(napi::Error::from_reason("the store is not open")),
        }
    }

    /// Finishes what is queued, ends the streams when their handlers have settled, and releases everything.
    #[napi(catch_unwind)]
    pub fn close(&self, id: f64) {
        self.flush();
        let completions = self.completions.clone();
        match self.store.get() {
            Some(store) => store.close_then(move |closed| {
                completions.push(id, closed.map_or_else(Answer::Failed, |()| Answer::Done));
            }),
            None => completions.push(id, Answer::Done),
        }
    }

    /// Hands over the appends and pages that were asked for since the last time. None is begun before.
    #[napi(catch_unwind)]
    pub fn flush(&self) {
        let pages = std::mem::take(&mut *self.pages());
        for (key, ids) in pages {
            self.read_page(key, ids);
        }
        if let Some(store) = self.store.get() {
            store.flush_deferred();
        }
    }

    /// Takes the answers that are ready.
    #[napi(catch_unwind)]
    pub fn take_answers(&self) -> Answers {
        self.completions.take()
    }

    /// Keeps the event loop alive while there is something to wait for.
    #[napi(catch_unwind)]
    pub fn hold(&self, env: Env, alive: bool) {
        self.completions.hold(env, alive);
    }
}
