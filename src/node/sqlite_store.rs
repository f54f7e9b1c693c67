use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::Function;
use napi_derive::napi;

use super::append_of;
use super::completions::{Answer, Answers, Completions};
use super::page::{INLINE_PAGE_BYTES, PageOptions};
use super::streams::NativeStreams;
use crate::contract::{AppendResult, EventStoreError};
use crate::payload::CompiledQuery;
use crate::selection::ContextVersions;
use crate::selection::PAGE_BYTES;
use crate::sqlite::{Durability, LogSnapshot, SqliteStore, SqliteStoreOptions};

/// The SQLite store for `index.js`. Every call returns at once; its answer comes later, under the id
/// that it was given.
#[napi]
pub struct NativeSqliteStore {
    store: Arc<OnceLock<SqliteStore>>,
    completions: Arc<Completions>,
}

/// How to open the file; all is set by `index.js`.
#[napi(object)]
pub struct OpenOptions {
    /// `synchronous=NORMAL` instead of `FULL`.
    pub normal: bool,
    /// Milliseconds.
    pub busy_timeout: f64,
    /// Opens an existing store for reading only.
    pub read_only: bool,
}

#[napi]
impl NativeSqliteStore {
    /// `on_answers` is called when there are answers to be taken.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: Env, on_answers: Function<'_, (), ()>) -> napi::Result<Self> {
        let completions = Completions::new(&on_answers)?;
        let store = Arc::new(OnceLock::<SqliteStore>::new());
        // A worker that is terminated leaves no thread behind that could still write.
        let weak = Arc::downgrade(&store);
        env.add_env_cleanup_hook(weak, |weak| {
            if let Some(store) = weak.upgrade()
                && let Some(store) = store.get()
            {
                store.begin_close();
            }
        })?;
        Ok(Self { store, completions })
    }

    /// Opens the file.
    #[napi(catch_unwind)]
    pub fn open(&self, id: f64, path: String, options: OpenOptions) {
        let (store, completions) = (self.store.clone(), self.completions.clone());
        let failed = self.completions.clone();
        let opening = move || {
            let options = SqliteStoreOptions {
                durability: if options.normal {
                    Durability::Normal
                } else {
                    Durability::Full
                },
                busy_timeout: Duration::from_secs_f64(options.busy_timeout / 1_000.0),
                read_only: options.read_only,
            };
            let answer = match SqliteStore::open_with(path, options) {
                Ok(opened) => {
                    let _ = store.set(opened);
                    Answer::Done
                }
                Err(error) => Answer::Failed(error),
            };
            completions.push(id, answer);
        };
        if let Err(error) = thread::Builder::new()
            .name("factstr-open".to_owned())
            .spawn(opening)
        {
            let error =
                EventStoreError::BackendFailure(format!("a thread can't be started: {error}"));
            failed.push(id, Answer::Failed(error));
        }
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
        let options = PageOptions {
            after,
            before,
            backwards,
            max_rows,
            version,
        };
        let completions = self.completions.clone();
        let query = match CompiledQuery::from_json(&filters) {
            Ok(query) => query,
            Err(error) => return completions.push(id, Answer::Failed(error)),
        };
        let Some(store) = self.store.get() else {
            return completions.push(id, Answer::Failed(EventStoreError::StoreClosed));
        };
        let versions = store.versions().clone();
        store.submit_read(
            move |snapshot| take(snapshot, &query, options, PAGE_BYTES, &versions),
            move |page| completions.push(id, page.map_or_else(Answer::Failed, Answer::Page)),
        );
    }

    /// Reads the first page of a query at once if it is a short one; otherwise, or if anything is wrong,
    /// ask `page`.
    #[napi(catch_unwind)]
    pub fn page_inline(&self, filters: String, after: f64, max_rows: f64) -> Option<String> {
        let options = PageOptions {
            after,
            before: -1.0,
            backwards: false,
            max_rows,
            version: true,
        };
        let store = self.store.get()?;
        let query = CompiledQuery::from_json(&filters).ok()?;
        store.read_inline(|snapshot| {
            take(
                snapshot,
                &query,
                options,
                INLINE_PAGE_BYTES,
                store.versions(),
            )
        })
    }

    /// Tells the newest sequence number.
    #[napi(catch_unwind)]
    pub fn head(&self, id: f64) {
        let completions = self.completions.clone();
        let Some(store) = self.store.get() else {
            return completions.push(id, Answer::Failed(EventStoreError::StoreClosed));
        };
        store.submit_read(
            |snapshot| Ok(Some(snapshot.head).filter(|&head| head > 0)),
            move |head| completions.push(id, head.map_or_else(Answer::Failed, Answer::Number)),
        );
    }

    /// Opens the side of the streams, once the file is open; `on_answers` is called when there are
    /// answers to be taken.
    #[napi(catch_unwind)]
    pub fn streams(&self, on_answers: Function<'_, (), ()>) -> napi::Result<NativeStreams> {
        match self.store.get() {
            Some(store) => NativeStreams::new(store.delivery(), self.store.clone(), &on_answers),
            None => Err(napi::Error::from_reason("the file is not open")),
        }
    }

    /// Finishes what is queued, ends the streams when their handlers have settled, and releases everything.
    #[napi(catch_unwind)]
    pub fn close(&self, id: f64) {
        let completions = self.completions.clone();
        match self.store.get() {
            Some(store) => store.close_then(move |closed| {
                completions.push(id, closed.map_or_else(Answer::Failed, |()| Answer::Done));
            }),
            None => completions.push(id, Answer::Done),
        }
    }

    /// Hands over what was asked for since the last time. Nothing is begun before.
    #[napi(catch_unwind)]
    pub fn flush(&self) {
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

/// Takes a page's text, and remembers the version for the condition that will follow.
fn take(
    snapshot: &mut LogSnapshot,
    query: &CompiledQuery,
    options: PageOptions,
    max_bytes: usize,
    versions: &ContextVersions,
) -> Result<String, EventStoreError> {
    let page = options.take(snapshot, query, max_bytes)?;
    if options.version {
        versions.remember(query, page.version, snapshot.head);
    }
    Ok(page.text)
}
