//! Writes a small store with factstr-sqlite or factstr-postgres 0.5.2, and prints nothing. The argument
//! is the path of a new file, or the URL of an empty database.
//!
//! `tests/fixtures/legacy-0.5.2.sql` is such a file as text: `sqlite3 store.db .dump`.
//! `tests/fixtures/legacy-0.5.2.postgres.sql` is such a database, for the schema that comes first in the
//! search path of who loads it: `pg_dump --inserts --no-owner --no-privileges --schema public $URL |
//! sed -E '/^(SET |SELECT pg_catalog|\\|--|CREATE SCHEMA|COMMENT|$)/d; s/\bpublic\.//g'`.

use factstr::{
    DurableStream, EventFilter, EventQuery, EventStore, EventStoreError, HandleStream, NewEvent,
};
use factstr_postgres::PostgresStore;
use factstr_sqlite::SqliteStore;
use serde_json::{Value, json};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let target = std::env::args()
        .nth(1)
        .ok_or("usage: legacy-store <path or URL>")?;
    if target.starts_with("postgres") {
        write_postgres(&PostgresStore::connect(&target)?)
    } else {
        write(
            &SqliteStore::open(&target)?,
            json!("ä\u{1F600} \"quoted\" \u{0}"),
        )
    }
}

/// What both have. `note` is the payload of one event.
fn write(store: &impl EventStore, note: Value) -> Outcome {
    store.append(vec![reserved("camera-1")])?;
    store.append(vec![
        reserved("camera-2"),
        NewEvent::new("note", note),
        NewEvent::new("", json!({ "z": [1, null, { "deep": true }], "a": {} })),
    ])?;
    run_durable(store, "read-model", None)?;
    let cameras = cameras();
    let version = store.query(&cameras)?.current_context_version;
    store.append_if(
        vec![reserved("camera-2"), reserved("tripod-1")],
        &cameras,
        version,
    )?;
    store.append(vec![reserved("camera-3")])?;
    Ok(())
}

/// More of what JSONB and the cursors of factstr-postgres may hold; U+0000 is not among it.
fn write_postgres(store: &PostgresStore) -> Outcome {
    run_durable(store, "registered before any event", None)?;
    write(store, json!("ä\u{1F600} \"quoted\""))?;
    let numbers = json!([
        0,
        -0.0,
        1.0,
        1.5,
        -7,
        0.1,
        1e25,
        1.5e-9,
        5e-324,
        u64::MAX,
        i64::MIN,
        9007199254740993u64
    ]);
    store.append(vec![
        NewEvent::new("numbers", numbers),
        NewEvent::new("x".repeat(600), Value::Null),
        NewEvent::new("empty", json!([{}, [], "", false])),
    ])?;
    store.append(vec![NewEvent::new(
        "keys",
        json!({ "long key": 1, "b": 2, "a": 3, "": 4 }),
    )])?;
    run_durable(store, "cameras", Some(cameras()))?;
    let kinds = EventFilter::for_event_types(["note", "item-reserved"]);
    let nothing = EventFilter::for_event_types(Vec::<String>::new());
    let several = EventQuery::all()
        .with_filters([kinds, nothing])
        .with_min_sequence_number(3);
    run_durable(store, "ünïcode name", Some(several))?;
    store.append(vec![reserved("camera-1"), reserved("camera-2")])?;
    Ok(())
}

/// Lets a durable stream catch up, and ends it.
fn run_durable(
    store: &impl EventStore,
    name: &str,
    query: Option<EventQuery>,
) -> Result<(), EventStoreError> {
    let stream = DurableStream::new(name);
    let handle = HandleStream::new(|_| async { Ok(()) });
    match query {
        None => store.stream_all_durable(&stream, handle)?,
        Some(query) => store.stream_to_durable(&stream, &query, handle)?,
    }
    .unsubscribe();
    Ok(())
}

fn reserved(item: &str) -> NewEvent {
    NewEvent::new("item-reserved", json!({ "item_id": item, "days": 2.0 }))
}

fn cameras() -> EventQuery {
    EventQuery::all().with_filters([EventFilter::for_event_types(["item-reserved"])
        .with_payload_predicates([json!({ "item_id": "camera-2" })])])
}
