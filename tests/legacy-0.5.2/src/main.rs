//! Writes a small store with factstr-sqlite 0.5.2 to the path given, and prints nothing.
//!
//! `tests/fixtures/legacy-0.5.2.sql` is such a store as text: `sqlite3 store.db .dump`.

use factstr::{DurableStream, EventFilter, EventQuery, EventStore, HandleStream, NewEvent};
use factstr_sqlite::SqliteStore;
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: legacy-store <path>")?;
    let store = SqliteStore::open(&path)?;
    let reserved = |item: &str| NewEvent::new("item-reserved", json!({ "item_id": item, "days": 2.0 }));
    store.append(vec![reserved("camera-1")])?;
    store.append(vec![
        reserved("camera-2"),
        NewEvent::new("note", json!("ä\u{1F600} \"quoted\" \u{0}")),
        NewEvent::new("", json!({ "z": [1, null, { "deep": true }], "a": {} })),
    ])?;
    let everything = store.stream_all_durable(
        &DurableStream::new("read-model"),
        HandleStream::new(|_| async { Ok(()) }),
    )?;
    everything.unsubscribe();
    let cameras = EventQuery::all().with_filters([EventFilter::for_event_types(["item-reserved"])
        .with_payload_predicates([json!({ "item_id": "camera-2" })])]);
    let version = store.query(&cameras)?.current_context_version;
    store.append_if(vec![reserved("camera-2"), reserved("tripod-1")], &cameras, version)?;
    store.append(vec![reserved("camera-3")])?;
    Ok(())
}
