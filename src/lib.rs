//! An embeddable event store: facts in one append-only log, queried by what they say, and appended
//! only if the context of a decision has not changed.
//!
//! A command reads the facts that matter to it with an [`EventQuery`], decides, and appends its own
//! facts with [`EventStore::append_if`]. There are no aggregates, no streams per entity and no tags
//! to design: every scalar of a payload is indexed.
//!
//! ```
//! use factstr::{EventFilter, EventQuery, EventStore, MemoryStore, NewEvent};
//! use serde_json::json;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let store = MemoryStore::new();
//! let camera = EventQuery::all().with_filters([EventFilter::for_event_types(["item-reserved"])
//!     .with_payload_predicates([json!({ "item_id": "camera-1" })])]);
//!
//! let context = store.query(&camera).await?;
//! assert!(context.event_records.is_empty());
//!
//! let reserved = NewEvent::new("item-reserved", json!({ "item_id": "camera-1", "by": "ada" }));
//! store.append_if(vec![reserved.clone()], &camera, context.current_context_version).await?;
//!
//! // Whoever decided on the same context comes too late.
//! let late = store.append_if(vec![reserved], &camera, context.current_context_version).await;
//! assert_eq!(late.unwrap_err().code(), "ConditionalAppendConflict");
//! # Ok::<(), factstr::EventStoreError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Read models follow by a durable stream, which hands over every committed batch once, in order,
//! and goes on after a restart where it was:
//!
//! ```
//! use factstr::{DurableStream, EventQuery, EventStore, HandleStream, MemoryStore, NewEvent};
//! use serde_json::json;
//! use std::sync::{Arc, Mutex};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let store = MemoryStore::new();
//! store.append(vec![NewEvent::new("item-reserved", json!({ "item_id": "camera-1" }))]).await?;
//!
//! let reserved = Arc::new(Mutex::new(Vec::new()));
//! let model = reserved.clone();
//! let handle = HandleStream::new(move |batch| {
//!     let model = model.clone();
//!     async move {
//!         for record in batch {
//!             let item = record.payload["item_id"].clone();
//!             model.lock().expect("no panic").push(item);
//!         }
//!         Ok(())
//!     }
//! });
//! let query = EventQuery::for_event_types(["item-reserved"]);
//! let stream = store.stream_to_durable(&DurableStream::new("reserved"), &query, handle).await?;
//! assert_eq!(*reserved.lock().expect("no panic"), [json!("camera-1")]);
//! stream.unsubscribe().await;
//! # Ok::<(), factstr::EventStoreError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`MemoryStore`] serves tests and examples, [`SqliteStore`] is embedded and persistent, and
//! [`PostgresStore`] is shared by any number of processes on any number of machines. All keep one
//! contract, the one of [`EventStore`].
//!
//! ```no_run
//! use factstr::{EventStore, NewEvent, PostgresStore, PostgresStoreOptions};
//! use serde_json::json;
//!
//! # async fn example() -> Result<(), factstr::EventStoreError> {
//! let url = "postgres://shop:secret@db.example.com/shop?sslmode=verify-full";
//! let options = PostgresStoreOptions {
//!     schema: "facts".to_owned(),
//!     ..PostgresStoreOptions::default()
//! };
//! let store = PostgresStore::connect_with(url, options).await?;
//! let reserved = NewEvent::new("item-reserved", json!({ "item_id": "camera-1", "by": "ada" }));
//! let appended = store.append(vec![reserved]).await?;
//! println!("fact {} is committed", appended.first_sequence_number);
//! store.close().await?;
//! # Ok(())
//! # }
//! ```

// Some shared parts serve one store or the addon only; the build with all features checks them.
#![cfg_attr(not(feature = "node"), allow(dead_code, unused_imports))]

/// Compiles the example of the README.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod appending;
mod contract;
#[cfg(any(feature = "memory", feature = "sqlite", feature = "postgres"))]
mod delivery;
#[cfg(any(feature = "memory", feature = "sqlite", feature = "postgres"))]
mod index;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "node")]
mod node;
#[cfg(any(feature = "memory", feature = "sqlite", feature = "postgres"))]
mod payload;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "memory", feature = "sqlite", feature = "postgres"))]
mod runtime;
#[cfg(any(feature = "memory", feature = "sqlite", feature = "postgres"))]
mod selection;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use contract::{
    AppendResult, DurableStream, DurableStreamInfo, DurableStreamOptions, EventFilter, EventQuery,
    EventRecord, EventStore, EventStoreError, EventStream, HandleStream, IfActive, NewEvent,
    OnStreamError, OnStreamProgress, QueryResult, ReadOptions, ReadPage, RetryPolicy, StreamEnd,
    StreamEndReason, StreamHandlerError, StreamHandlerFuture, StreamOptions, StreamProgress,
};
#[cfg(feature = "memory")]
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresStore, PostgresStoreOptions, TlsOptions};
#[cfg(feature = "sqlite")]
pub use sqlite::{Durability, SqliteStore, SqliteStoreOptions};
