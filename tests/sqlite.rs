//! What only the SQLite store has: a file, its format, and others who use it.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use factstr::{
    EventFilter, EventQuery, EventStore, EventStoreError, NewEvent, SqliteStore, SqliteStoreOptions,
};
use rusqlite::Connection;
use serde_json::{Value, json};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .unwrap()
}

fn counter(name: &str) -> EventQuery {
    EventQuery::all().with_filters([
        EventFilter::default().with_payload_predicates([json!({ "counter": name })])
    ])
}

/// 3.51.3 is the first without the corruption bug of the WAL reset.
#[test]
fn bundles_a_sound_sqlite() {
    assert!(
        rusqlite::version_number() >= 3_051_003,
        "{}",
        rusqlite::version()
    );
}

fn write_legacy(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(include_str!("fixtures/legacy-0.5.2.sql"))
        .unwrap();
}

#[tokio::test]
async fn a_store_of_factstr_sqlite_0_5_2_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    write_legacy(&path);
    let read_only = SqliteStoreOptions {
        read_only: true,
        ..SqliteStoreOptions::default()
    };
    let refused = SqliteStore::open_with(&path, read_only).unwrap_err();
    assert_eq!(refused.code(), "StoreFormatUnsupported");

    for _ in 0..2 {
        let store = SqliteStore::open(&path).unwrap();
        let all = store.query(&EventQuery::all()).await.unwrap().event_records;
        let first_seven: Vec<(u64, &str, Value)> = all
            .iter()
            .take(7)
            .map(|record| {
                (
                    record.sequence_number,
                    record.event_type.as_str(),
                    record.payload.clone(),
                )
            })
            .collect();
        assert_eq!(
            first_seven,
            [
                (
                    1,
                    "item-reserved",
                    json!({ "item_id": "camera-1", "days": 2.0 })
                ),
                (
                    2,
                    "item-reserved",
                    json!({ "item_id": "camera-2", "days": 2.0 })
                ),
                (3, "note", json!("ä\u{1F600} \"quoted\" \u{0}")),
                (4, "", json!({ "z": [1, null, { "deep": true }], "a": {} })),
                (
                    5,
                    "item-reserved",
                    json!({ "item_id": "camera-2", "days": 2.0 })
                ),
                (
                    6,
                    "item-reserved",
                    json!({ "item_id": "tripod-1", "days": 2.0 })
                ),
                (
                    7,
                    "item-reserved",
                    json!({ "item_id": "camera-3", "days": 2.0 })
                ),
            ]
        );
        assert_eq!(
            all[0].occurred_at.unix_timestamp_nanos(),
            1_795_469_090_665_248_000
        );
        let camera = EventQuery::all()
            .with_filters([EventFilter::for_event_types(["item-reserved"])
                .with_payload_predicates([json!({ "item_id": "camera-2", "days": 2 })])]);
        let context = store.query(&camera).await.unwrap();
        assert_eq!(context.current_context_version, Some(5));
        assert_eq!(context.event_records.len(), 2);
        let head = store.head_sequence_number().await.unwrap().unwrap();
        let next = vec![NewEvent::new("note", json!("later"))];
        let appended = store.append_if(next, &camera, Some(5)).await.unwrap();
        assert_eq!(appended.first_sequence_number, head + 1);
        store.close().await.unwrap();
    }

    let connection = Connection::open(&path).unwrap();
    let mut batches = connection
        .prepare("SELECT * FROM append_batches ORDER BY 1")
        .unwrap();
    let batches: Vec<(i64, i64)> = batches
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    assert_eq!(batches, [(2, 4), (5, 6)]);
    let cursor: (String, i64) = connection
        .query_row(
            "SELECT subscriber_id, last_processed_sequence_number FROM subscriber_cursors",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(cursor, ("read-model".to_owned(), 4));
}

#[test]
fn a_migration_that_fails_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    write_legacy(&path);
    let connection = Connection::open(&path).unwrap();
    connection
        .execute(
            "UPDATE events SET occurred_at = 'yesterday' WHERE sequence_number = 7",
            [],
        )
        .unwrap();
    let dump = |connection: &Connection| -> Vec<(i64, String)> {
        let mut rows = connection
            .prepare("SELECT sequence_number, occurred_at FROM events")
            .unwrap();
        let rows = rows
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    };
    let before = dump(&connection);
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!(error.code(), "StoreFormatUnsupported");
    assert!(error.to_string().contains("event 7"), "{error}");
    assert_eq!(dump(&connection), before);
}

#[test]
fn foreign_and_newer_files_are_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let newer = folder.path().join("newer.db");
    drop(SqliteStore::open(&newer).map(|store| runtime().block_on(store.close())));
    let connection = Connection::open(&newer).unwrap();
    connection.execute_batch("PRAGMA user_version = 4").unwrap();
    drop(connection);

    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE events (x)")
        .unwrap();

    let text = folder.path().join("text.db");
    fs::write(&text, "SQLite format 2, and much more than a header").unwrap();

    let damaged = folder.path().join("damaged.db");
    fs::write(
        &damaged,
        [b"SQLite format 3\0".as_slice(), &[7; 5_000]].concat(),
    )
    .unwrap();

    for path in [newer, foreign, text, damaged] {
        let before = fs::read(&path).unwrap();
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(
            matches!(
                error,
                EventStoreError::StoreFormatUnsupported(_) | EventStoreError::BackendFailure(_)
            ),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), before, "{}", path.display());
    }
}

#[tokio::test]
async fn a_lock_is_waited_for_as_long_as_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let busy_timeout = Duration::from_millis(30);
    let options = SqliteStoreOptions {
        busy_timeout,
        ..SqliteStoreOptions::default()
    };
    let store = SqliteStore::open_with(&path, options).unwrap();
    let event = || vec![NewEvent::new("a", json!(1))];
    store.append(event()).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.append(event()).await.unwrap_err();
    assert_eq!(error.code(), "BackendFailure");
    assert!(error.to_string().contains("locked"), "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(
        store.append(event()).await.unwrap().first_sequence_number,
        2
    );
}

/// Several handles behave like several processes: they share nothing but the file.
#[test]
fn racers_on_several_handles_lose_no_update() {
    const HANDLES: usize = 3;
    const TASKS: usize = 8;
    const ROUNDS: usize = 25;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let runtime = runtime();
    let stores: Vec<Arc<SqliteStore>> = (0..HANDLES)
        .map(|_| Arc::new(SqliteStore::open(&path).unwrap()))
        .collect();
    let racers: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = stores[task % HANDLES].clone();
            runtime.spawn(async move {
                let mut wins = 0;
                while wins < ROUNDS {
                    let context = store.query(&counter("one")).await.unwrap();
                    let count = context.event_records.len();
                    let next =
                        NewEvent::new("counted", json!({ "counter": "one", "to": count + 1 }));
                    let version = context.current_context_version;
                    match store.append_if(vec![next], &counter("one"), version).await {
                        Ok(_) => wins += 1,
                        Err(EventStoreError::ConditionalAppendConflict { actual, .. }) => {
                            assert!(actual > version);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for racer in racers {
        runtime.block_on(racer).unwrap();
    }
    let end = runtime
        .block_on(stores[0].query(&EventQuery::all()))
        .unwrap();
    assert_eq!(end.event_records.len(), TASKS * ROUNDS);
    for (record, number) in end.event_records.iter().zip(1..) {
        assert_eq!(record.sequence_number, number);
        assert_eq!(record.payload["to"], number);
    }
}

/// One handle indexes and merges while the other has a tail of its own.
#[tokio::test]
async fn handles_see_each_others_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let one = SqliteStore::open(&path).unwrap();
    let two = SqliteStore::open(&path).unwrap();
    let mut total = 0_u64;
    for round in 0..60_u64 {
        let store = if round % 7 < 4 { &one } else { &two };
        let batch: Vec<NewEvent> = (0..1_500)
            .map(|n| {
                let name = if n == round {
                    "rare".to_owned()
                } else {
                    format!("{}", n % 50)
                };
                NewEvent::new("counted", json!({ "counter": name, "round": round }))
            })
            .collect();
        total += 1_500;
        assert_eq!(
            store.append(batch).await.unwrap().last_sequence_number,
            total
        );
        let rare: Vec<u64> = (0..=round)
            .map(|earlier| earlier * 1_500 + earlier + 1)
            .collect();
        for reader in [&one, &two] {
            let found = reader.query(&counter("rare")).await.unwrap();
            let numbers: Vec<u64> = found
                .event_records
                .iter()
                .map(|record| record.sequence_number)
                .collect();
            assert_eq!(numbers, rare, "round {round}");
        }
        let stale = EventQuery::all();
        let refused = two
            .append_if(vec![NewEvent::new("a", json!(1))], &stale, Some(1))
            .await;
        let conflict = EventStoreError::ConditionalAppendConflict {
            expected: Some(1),
            actual: Some(total),
        };
        assert_eq!(refused, Err(conflict));
    }
    one.close().await.unwrap();
    two.close().await.unwrap();
}
