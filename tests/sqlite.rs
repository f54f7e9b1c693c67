//! What only the SQLite store has: a file, its format, and others who use it.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

use std::fmt::Debug;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use factstr::{
    EventFilter, EventQuery, EventStore, EventStoreError, NewEvent, ReadOptions, SqliteStore,
    SqliteStoreOptions,
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

/// Users may have put objects of their own beside ours; none is lost, changed or broken.
#[tokio::test]
async fn a_migration_keeps_what_users_have_added() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    write_legacy(&path);
    let objects = |path: &Path| -> Vec<(String, String, Option<String>)> {
        let connection = Connection::open(path).unwrap();
        let mut rows = connection
            .prepare(
                "SELECT type, name, sql FROM sqlite_schema
                 WHERE name LIKE 'my%' OR name LIKE 'sqlite_autoindex_my%' ORDER BY name",
            )
            .unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.unwrap().map(Result::unwrap).collect()
    };
    tamper(
        &path,
        r#"CREATE VIEW my_notes AS SELECT payload FROM events WHERE event_type = 'note';
           CREATE VIEW my_numbers (n) AS SELECT e.sequence_number FROM "events" AS e;
           CREATE INDEX my_items ON events (json_extract(payload, '$.item_id'));
           CREATE TABLE my_audit (n INTEGER PRIMARY KEY, what TEXT UNIQUE);
           CREATE TRIGGER my_trigger AFTER INSERT ON Events BEGIN
             INSERT INTO my_audit VALUES (new.sequence_number, new.event_type || new.sequence_number);
           END;
           CREATE TRIGGER my_other AFTER DELETE ON my_audit BEGIN
             SELECT count(*) FROM events;
           END;
           CREATE TRIGGER my_instead INSTEAD OF INSERT ON my_notes BEGIN
             SELECT 1;
           END;
           CREATE TABLE my_children (
             id INTEGER PRIMARY KEY,
             event INTEGER NOT NULL REFERENCES events (sequence_number) ON DELETE CASCADE
           );
           INSERT INTO my_children (event) SELECT sequence_number FROM events;"#,
    );
    let before = objects(&path);
    assert_eq!(before.len(), 9);

    let store = SqliteStore::open(&path).unwrap();
    let event = vec![NewEvent::new("note", json!("later"))];
    assert_eq!(store.append(event).await.unwrap().last_sequence_number, 8);
    store.close().await.unwrap();
    assert_eq!(objects(&path), before);
    let connection = Connection::open(&path).unwrap();
    let count = |sql: &str| -> u64 { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(count("SELECT count(*) FROM my_notes"), 2);
    assert_eq!(count("SELECT count(*) FROM my_numbers"), 8);
    // The trigger has seen the new event, and no old one again.
    assert_eq!(count("SELECT count(*) FROM my_audit"), 1);
    assert_eq!(count("SELECT count(*) FROM my_children"), 7);
    assert_eq!(count("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    let by_index = "SELECT count(*) FROM events INDEXED BY my_items
                    WHERE json_extract(payload, '$.item_id') = 'camera-2'";
    assert_eq!(count(by_index), 2);
    assert_eq!(
        count("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'idx_%'"),
        0
    );
    let check: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
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

#[tokio::test]
async fn foreign_and_newer_files_are_refused_untouched() {
    let sqlite_files = [
        ("newer", true, "PRAGMA user_version = 1000"),
        ("unknown", true, "DELETE FROM store_metadata"),
        ("broken", true, "UPDATE store_metadata SET value = 'x'"),
        ("in part", true, "DROP TABLE append_batches"),
        ("table", false, "CREATE TABLE events (x)"),
        ("view", false, "CREATE VIEW v AS SELECT 1"),
        (
            "wal",
            false,
            "PRAGMA journal_mode = WAL; CREATE TABLE t (x)",
        ),
        ("id", false, "PRAGMA application_id = 7"),
        ("version", false, "PRAGMA user_version = 7"),
        (
            "view in wal",
            false,
            "PRAGMA journal_mode = WAL; CREATE VIEW v AS SELECT 1",
        ),
    ];
    let other_files: [(&str, &[u8]); 4] = [
        ("one byte", b"x"),
        ("text", b"SQLite format 2, and much more than a header"),
        ("long text", &[b'x'; 10_000]),
        (
            "damaged",
            &[b"SQLite format 3\0".as_slice(), &[7; 5_000]].concat(),
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, is_store, sql) in sqlite_files {
        let path = folder.path().join(name);
        if is_store {
            fill(&path, 3).await;
        }
        tamper(&path, sql);
    }
    for (name, content) in other_files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let before = contents(folder.path());
    assert_eq!(before.len(), sqlite_files.len() + other_files.len());
    for (path, _) in &before {
        for options in [SqliteStoreOptions::default(), read_only()] {
            let opened = SqliteStore::open_with(path, options);
            let error = opened.expect_err(&path.display().to_string());
            let refused = matches!(
                error,
                EventStoreError::StoreFormatUnsupported(_) | EventStoreError::BackendFailure(_)
            );
            assert!(refused, "{error}");
            let message = error.to_string();
            assert!(message.contains(&path.display().to_string()), "{message}");
            assert_eq!(contents(folder.path()), before, "{message}");
        }
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

fn read_only() -> SqliteStoreOptions {
    SqliteStoreOptions {
        read_only: true,
        ..SqliteStoreOptions::default()
    }
}

/// Appends numbered events and closes the store.
async fn fill(path: &Path, events: u64) {
    let store = SqliteStore::open(path).unwrap();
    for batch in (1..=events).collect::<Vec<_>>().chunks(10_000) {
        let batch = batch
            .iter()
            .map(|n| NewEvent::new("n", json!({ "n": n, "third": n % 3 })))
            .collect();
        store.append(batch).await.unwrap();
    }
    store.close().await.unwrap();
}

/// Names and contents of a folder's files.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn tamper(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[track_caller]
fn assert_fails(result: Result<impl Debug, EventStoreError>, path: &Path, says: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), "BackendFailure", "{error}");
    let message = error.to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    assert!(message.contains(says), "{message}");
}

#[tokio::test]
async fn a_log_that_has_lost_its_end_is_refused_untouched() {
    for (events, kept) in [(5_000, 100), (5_000, 0), (20_000, 100), (90_000, 60_000)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        fill(&path, events).await;
        tamper(
            &path,
            &format!("DELETE FROM events WHERE sequence_number > {kept}"),
        );
        let before = fs::read(&path).unwrap();
        for options in [SqliteStoreOptions::default(), read_only()] {
            let opened = SqliteStore::open_with(&path, options);
            assert_fails(opened, &path, &format!("the log ends with event {kept}"));
        }
        assert!(fs::read(&path).unwrap() == before);
    }
}

#[tokio::test]
async fn a_log_that_loses_its_end_in_use_fails_every_operation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    fill(&path, 5_000).await;
    let store = SqliteStore::open(&path).unwrap();
    tamper(&path, "DELETE FROM events WHERE sequence_number > 100");
    let says = "the log ends with event 100";
    let all = EventQuery::all();
    let event = || vec![NewEvent::new("n", json!(1))];
    assert_fails(store.query(&all).await, &path, says);
    assert_fails(store.head_sequence_number().await, &path, says);
    assert_fails(store.append(event()).await, &path, says);
    assert_fails(store.append_if(event(), &all, None).await, &path, says);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_index_is_reported() {
    let damages = [
        ("DROP TABLE index_state", "index_state"),
        ("DELETE FROM index_state", "index_state"),
        ("UPDATE index_state SET indexed_through = -1", ""),
        ("UPDATE index_state SET indexed_through = 1", "runs"),
        ("DELETE FROM facet_runs", "runs"),
        (
            "UPDATE facet_runs SET first_sequence_number = 2 WHERE run_id = 1",
            "runs",
        ),
        ("UPDATE facet_runs SET fences = x'00'", "fences"),
        ("DELETE FROM facet_blocks", "block"),
        ("UPDATE facet_blocks SET entries = x''", "block"),
        ("UPDATE facet_blocks SET entries = 'text'", ""),
    ];
    for (damage, says) in damages {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        fill(&path, 5_000).await;
        tamper(&path, damage);
        let third = EventQuery::all().with_filters([
            EventFilter::default().with_payload_predicates([json!({ "third": 1 })])
        ]);
        for options in [SqliteStoreOptions::default(), read_only()] {
            match SqliteStore::open_with(&path, options) {
                Ok(store) => {
                    assert_fails(store.query(&third).await, &path, says);
                    store.close().await.unwrap();
                }
                failed => assert_fails(failed, &path, says),
            }
        }
    }
}

#[tokio::test]
async fn damaged_events_are_reported() {
    let damages = [
        "payload = '{\"n\":'",
        "payload = x'ff'",
        "payload = CAST(x'22ff22' AS TEXT)",
        "event_type = x'00'",
    ];
    for damage in damages {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        fill(&path, 5_000).await;
        let damage = format!("UPDATE events SET {damage} WHERE sequence_number = 3");
        tamper(&path, &damage);
        let store = SqliteStore::open(&path).unwrap();
        let named = EventQuery::for_event_types(["n"]);
        for query in [EventQuery::all(), named] {
            assert_fails(store.query(&query).await, &path, "event 3");
        }
        // The rest can still be read.
        let rest = EventQuery::all().with_min_sequence_number(3);
        let page = store.read(&rest, ReadOptions::default()).await.unwrap();
        assert_eq!(page.event_records[0].sequence_number, 4);
        store.close().await.unwrap();
    }
    // An index that knows an event which is gone.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    fill(&path, 5_000).await;
    tamper(&path, "DELETE FROM events WHERE sequence_number = 3");
    let store = SqliteStore::open(&path).unwrap();
    let named = EventQuery::for_event_types(["n"]);
    assert_fails(store.query(&named).await, &path, "event 3 is missing");
}

#[tokio::test]
async fn every_call_of_close_waits_for_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = Arc::new(SqliteStore::open(&path).unwrap());
    let appends: Vec<_> = (0..40)
        .map(|n| {
            let store = store.clone();
            let batch = (0..2_000).map(|k| NewEvent::new("n", json!({ "n": n, "k": k })));
            let batch = batch.collect();
            tokio::spawn(async move { store.append(batch).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let closes: Vec<_> = (0..4)
        .map(|_| {
            let (store, path) = (store.clone(), path.clone());
            tokio::spawn(async move {
                store.close().await.unwrap();
                // The last connection takes the log of SQLite away.
                path.with_extension("db-wal").exists()
            })
        })
        .collect();
    for close in closes {
        assert!(!close.await.unwrap());
    }
    for append in appends {
        drop(append.await.unwrap());
    }
    store.close().await.unwrap();
}

/// Short contexts are read by the thread that asks, others are not; nobody can tell by the answer.
#[tokio::test]
async fn contexts_of_every_length_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).unwrap();
    let text = |length: usize| "x".repeat(length);
    for length in [1, 10_000, 60_000, 70_000, 1_000_000] {
        let name = length.to_string();
        let payloads: Vec<Value> = (0..3)
            .map(|n| json!({ "counter": name, "n": n, "text": text(length) }))
            .collect();
        let events = payloads
            .iter()
            .map(|payload| NewEvent::new("a", payload.clone()));
        store.append(events.collect()).await.unwrap();
        // Once from the file, once from what was kept of it.
        for _ in 0..2 {
            let found = store.query(&counter(&name)).await.unwrap();
            let found: Vec<Value> = found
                .event_records
                .into_iter()
                .map(|record| record.payload)
                .collect();
            assert_eq!(found, payloads);
        }
    }
    store.close().await.unwrap();
}

/// Threads that read by themselves are not in the way of those who close the store.
#[test]
fn a_store_may_be_closed_while_many_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let runtime = runtime();
    let store = Arc::new(SqliteStore::open(&path).unwrap());
    let event = |n: u64| NewEvent::new("counted", json!({ "counter": n % 10 }));
    let batch = (0..1_000).map(event).collect();
    runtime.block_on(store.append(batch)).unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (store, read) = (store.clone(), read.clone());
            runtime.spawn(async move {
                let context = EventQuery::for_event_types(["counted"]);
                loop {
                    match store
                        .query_with_limit(&context, NonZeroUsize::new(10))
                        .await
                    {
                        Ok(found) => assert_eq!(found.event_records.len(), 10),
                        Err(error) => return error,
                    }
                    read.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while read.load(Ordering::Relaxed) < 1_000 {
        std::thread::yield_now();
    }
    runtime.block_on(store.close()).unwrap();
    // Whoever closes a file last takes away what SQLite keeps beside it.
    assert!(!folder.path().join("store.db-wal").exists());
    for reader in readers {
        assert_eq!(
            runtime.block_on(reader).unwrap(),
            EventStoreError::StoreClosed
        );
    }
}

/// A file that is gone, or another one by its name, splits a store in two: what is appended to the
/// one can't be found in the other.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_moved_away_takes_no_appends() {
    let event = || vec![NewEvent::new("n", json!(1))];
    for replaced in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(&path).unwrap();
        store.append(event()).await.unwrap();
        for suffix in ["", "-wal", "-shm"] {
            let file = folder.path().join(format!("store.db{suffix}"));
            fs::rename(&file, folder.path().join(format!("moved.db{suffix}"))).unwrap();
        }
        let second = replaced.then(|| SqliteStore::open(&path).unwrap());
        if let Some(second) = &second {
            second.append([event(), event()].concat()).await.unwrap();
        }
        let says = "deleted or replaced";
        assert_fails(store.append(event()).await, &path, says);
        let all = EventQuery::all();
        assert_fails(store.append_if(event(), &all, Some(1)).await, &path, says);
        // No reader has looked at the file before.
        assert_fails(store.query(&all).await, &path, says);
        store.close().await.unwrap();
        if let Some(second) = second {
            second.append(event()).await.unwrap();
            assert_eq!(second.head_sequence_number().await.unwrap(), Some(3));
            second.close().await.unwrap();
        }
        let moved = SqliteStore::open(folder.path().join("moved.db")).unwrap();
        assert_eq!(moved.head_sequence_number().await.unwrap(), Some(1));
    }
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("folder")).unwrap();
    let link = std::os::unix::fs::symlink::<&str, PathBuf>;
    link("loop", at("loop")).unwrap();
    link("nowhere", at("broken")).unwrap();
    link("folder", at("link")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(at("fifo"))
        .status();
    assert!(made.unwrap().success());
    let long = |length: usize| "x".repeat(length);
    let deep = std::iter::repeat_n(long(100), 6).collect::<PathBuf>();
    for (path, says) in [
        (PathBuf::new(), "empty"),
        (":memory:".into(), "memory"),
        ("/dev/null".into(), "no regular file"),
        (at("fifo"), "no regular file"),
        (at("folder"), "folder"),
        (at("link"), "folder"),
        (at("store.db/"), "folder"),
        (at("file/"), "folder"),
        (at("new/.."), "names no file"),
        ("/".into(), ""),
        (at("file/store.db"), "no folder"),
        (at("file/new/store.db"), "no folder"),
        (at("loop"), "can't be followed"),
        (at("loop/store.db"), "no folder"),
        (at("broken/store.db"), "no folder"),
        (at("broken/new/store.db"), "no folder"),
        (at(&long(256)), "too long"),
        (at(&long(250)), "too long"),
        (at(&long(300)).join("store.db"), "too long"),
        (folder.path().join(deep).join("store.db"), "too long"),
    ] {
        for options in [SqliteStoreOptions::default(), read_only()] {
            let error = SqliteStore::open_with(&path, options).unwrap_err();
            let shown = format!("{}: {error}", path.display());
            assert_eq!(error.code(), "InvalidOptions", "{shown}");
            assert!(error.to_string().starts_with("path: "), "{shown}");
            assert!(error.to_string().contains(says), "{shown}");
        }
    }
    for fine in [
        at("file"),
        at("broken"),
        at("folder/../new/store.db"),
        at(&long(247)),
    ] {
        let store = SqliteStore::open(&fine).unwrap();
        runtime().block_on(store.close()).unwrap();
    }
}

/// Takes what a process leaves behind that dies in the middle of a transaction of rollback mode.
#[tokio::test]
async fn a_hot_journal_is_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    write_legacy(&path);
    let crashed = folder.path().join("crashed.db");
    let writer = Connection::open(&path).unwrap();
    writer
        .execute_batch(
            "PRAGMA cache_size = 1;
             CREATE TABLE filler (x);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO filler SELECT i || hex(zeroblob(100)) FROM n;
             BEGIN IMMEDIATE;
             UPDATE events SET payload = '\"never\"';
             UPDATE filler SET x = x || 'y';",
        )
        .unwrap();
    for suffix in ["", "-journal"] {
        let file = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        fs::copy(file(&path), file(&crashed)).unwrap();
    }
    assert_fails(SqliteStore::open_with(&crashed, read_only()), &crashed, "");
    let store = SqliteStore::open(&crashed).unwrap();
    let all = store.query(&EventQuery::all()).await.unwrap().event_records;
    assert_eq!(all.len(), 7);
    assert!(all.iter().all(|record| record.payload != json!("never")));
}

/// Runs as an unprivileged user, whom write protection binds.
#[cfg(unix)]
#[tokio::test]
async fn write_protection_is_met_when_opening() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    let protect = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let path = folder.path().join("store?#% ü.db");
    fill(&path, 5_000).await;
    protect(&path, 0o444);
    if fs::OpenOptions::new().append(true).open(&path).is_ok() {
        let test = std::env::current_exe().unwrap();
        let name = "write_protection_is_met_when_opening";
        let mut again = std::process::Command::new(test);
        again.args(["--exact", name, "--nocapture"]);
        match again.uid(NOBODY).gid(NOBODY).status() {
            Ok(status) => assert!(status.success()),
            Err(error) => println!("skipped: {error}"),
        }
        return;
    }

    assert_fails(SqliteStore::open(&path), &path, "write-protected");
    let third = EventQuery::all()
        .with_filters([EventFilter::default().with_payload_predicates([json!({ "third": 1 })])]);
    protect(folder.path(), 0o555);
    for _ in 0..2 {
        let store = SqliteStore::open_with(&path, read_only()).unwrap();
        let found = store.query(&third).await.unwrap();
        assert_eq!(found.current_context_version, Some(4_999));
        assert_eq!(found.event_records.len(), 1_667);
        store.close().await.unwrap();
    }

    // Only the folder is protected: nothing can be written, and somebody else may write.
    protect(&path, 0o644);
    assert_fails(SqliteStore::open(&path), &path, "or the folder");
    let store = SqliteStore::open_with(&path, read_only()).unwrap();
    store.query(&third).await.unwrap();
    protect(folder.path(), 0o755);
    let writer = SqliteStore::open(&path).unwrap();
    let event = vec![NewEvent::new("n", json!({ "third": 1 }))];
    writer.append(event).await.unwrap();
    let says = "another process writes";
    assert_fails(store.query(&third).await, &path, says);
    writer.close().await.unwrap();
    assert_fails(store.query(&third).await, &path, says);
    store.close().await.unwrap();
    let again = SqliteStore::open_with(&path, read_only()).unwrap();
    let found = again.query(&third).await.unwrap();
    assert_eq!(found.current_context_version, Some(5_001));

    protect(&path, 0o000);
    assert_fails(SqliteStore::open(&path), &path, "");
    assert_fails(SqliteStore::open_with(&path, read_only()), &path, "");
}

/// What [`processes_may_open_at_once`] starts, in processes of their own.
#[tokio::test]
async fn one_of_several_processes() {
    let Some(path) = std::env::var_os("FACTSTR_TEST_STORE").map(PathBuf::from) else {
        return;
    };
    // They wait for each other as closely as they can.
    while !path.with_extension("go").exists() {
        std::hint::spin_loop();
    }
    let store = SqliteStore::open(&path).unwrap();
    for _ in 0..20 {
        store
            .append(vec![NewEvent::new(
                "opened",
                json!({ "by": "one of several" }),
            )])
            .await
            .unwrap();
    }
    store.close().await.unwrap();
}

/// One of them creates or migrates the file, and the others wait for it.
#[tokio::test]
async fn processes_may_open_at_once() {
    const PROCESSES: u64 = 6;
    const OLD: u64 = 20_007;
    for legacy in [false, true, false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        if legacy {
            write_legacy(&path);
            tamper(
                &path,
                "WITH RECURSIVE n (i) AS (SELECT 8 UNION ALL SELECT i + 1 FROM n WHERE i < 20007)
                 INSERT INTO events
                 SELECT i, '2026-11-23T21:24:50.665248504Z', 'old', '{\"by\":\"me\"}' FROM n",
            );
        }
        let processes: Vec<_> = (0..PROCESSES)
            .map(|_| {
                std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "one_of_several_processes", "--nocapture"])
                    .env("FACTSTR_TEST_STORE", &path)
                    .spawn()
                    .unwrap()
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        fs::write(path.with_extension("go"), "").unwrap();
        for mut process in processes {
            assert!(process.wait().unwrap().success());
        }
        let before = if legacy { OLD } else { 0 };
        let store = SqliteStore::open(&path).unwrap();
        let head = store.head_sequence_number().await.unwrap();
        assert_eq!(head, Some(before + 20 * PROCESSES));
        let mine =
            EventQuery::all()
                .with_filters([EventFilter::default()
                    .with_payload_predicates([json!({ "by": "one of several" })])]);
        let found = store.query(&mine).await.unwrap().event_records;
        let numbers = found.iter().map(|record| record.sequence_number);
        assert!(numbers.eq(before + 1..=before + 20 * PROCESSES));
        store.close().await.unwrap();
    }
}

/// On POSIX systems a process loses its locks on a file when it closes any descriptor of it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_second_handle_leaves_the_locks_of_the_first_one() {
    use std::os::unix::fs::MetadataExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let first = SqliteStore::open(&path).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let locked = || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let file = format!(":{inode} ");
        locks.lines().any(|line| line.contains(&file))
    };
    if !locked() {
        println!("skipped: /proc/locks does not tell");
        return;
    }
    for options in [SqliteStoreOptions::default(), read_only()] {
        let second = SqliteStore::open_with(&path, options).unwrap();
        assert!(locked());
        second.close().await.unwrap();
        assert!(locked());
    }
    first.close().await.unwrap();
    assert!(!locked());
}
