//! Streams in a file: formats, other writers, other holders, and holders that die.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

mod stores;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use factstr::{
    DurableStream, DurableStreamOptions, EventFilter, EventQuery, EventStore, HandleStream,
    IfActive, NewEvent, SqliteStore, SqliteStoreOptions, StreamEndReason,
};
use rusqlite::Connection;
use serde_json::json;
use stores::until;

fn events(count: usize) -> Vec<NewEvent> {
    (0..count)
        .map(|n| NewEvent::new("counted", json!({ "n": n })))
        .collect()
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Vec<u64>>>>);

impl Seen {
    fn handler(&self) -> HandleStream {
        let seen = self.clone();
        HandleStream::new(move |batch| {
            let numbers = batch.iter().map(|record| record.sequence_number);
            seen.0.lock().unwrap().push(numbers.collect());
            async { Ok(()) }
        })
    }

    fn calls(&self) -> Vec<Vec<u64>> {
        self.0.lock().unwrap().clone()
    }
}

fn waits() -> DurableStreamOptions {
    DurableStreamOptions::default().with_if_active(IfActive::Wait)
}

fn write_fixture(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

async fn replay(store: &SqliteStore, name: &str, query: &EventQuery) -> Vec<Vec<u64>> {
    let seen = Seen::default();
    let stream = store
        .stream_to_durable(&DurableStream::new(name), query, seen.handler())
        .await
        .unwrap();
    stream.unsubscribe().await;
    seen.calls()
}

#[tokio::test]
async fn cursors_of_factstr_sqlite_0_5_2_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    write_fixture(&path, include_str!("fixtures/legacy-0.5.2.sql"));
    let store = SqliteStore::open(&path).unwrap();
    let listed = store.list_durable_streams().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].name, "read-model");
    assert_eq!(listed[0].query, EventQuery::all());
    assert_eq!((listed[0].position, listed[0].active), (4, false));
    let seen = replay(&store, "read-model", &EventQuery::all()).await;
    assert_eq!(seen, [vec![5, 6], vec![7]]);
}

#[tokio::test]
async fn a_store_of_format_2_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    write_fixture(&path, include_str!("fixtures/format-2.sql"));
    let read_only = SqliteStoreOptions {
        read_only: true,
        ..SqliteStoreOptions::default()
    };
    let refused = SqliteStore::open_with(&path, read_only).unwrap_err();
    assert_eq!(refused.code(), "StoreFormatUnsupported");
    let cameras = EventQuery::all().with_filters([
        EventFilter::for_event_types(["item-reserved"])
            .with_payload_predicates([json!({ "item_id": "camera-2" })]),
        EventFilter::default(),
    ]);
    for round in 0..2 {
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.head_sequence_number().await.unwrap(), Some(10));
        let listed = store.list_durable_streams().await.unwrap();
        let names: Vec<&str> = listed.iter().map(|info| info.name.as_str()).collect();
        assert_eq!(names, ["cameras", "read-model"]);
        let everything = replay(&store, "read-model", &EventQuery::all()).await;
        let filtered = replay(&store, "cameras", &cameras).await;
        if round == 0 {
            assert_eq!((listed[0].position, &listed[0].query), (7, &cameras));
            assert_eq!(everything, [vec![5, 6], vec![7], vec![8, 9], vec![10]]);
            assert_eq!(filtered, [vec![8, 9], vec![10]]);
        } else {
            assert!(everything.is_empty() && filtered.is_empty());
        }
        store.close().await.unwrap();
    }
    let connection = Connection::open(&path).unwrap();
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    assert_eq!(version.unwrap(), 3);
}

#[tokio::test]
async fn a_migration_with_an_unreadable_cursor_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    write_fixture(&path, include_str!("fixtures/format-2.sql"));
    let connection = Connection::open(&path).unwrap();
    connection
        .execute("UPDATE subscriber_cursors SET event_query = 'all'", [])
        .unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!(error.code(), "StoreFormatUnsupported");
    assert!(error.to_string().contains("read-model"), "{error}");
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%stream%'";
    let tables: i64 = connection.query_row(tables, [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 0);
}

/// Handles share nothing but the file, like processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_other_writers_are_delivered_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let stores: Vec<Arc<SqliteStore>> = (0..3)
        .map(|_| Arc::new(SqliteStore::open(&path).unwrap()))
        .collect();
    stores[1].append(events(2)).await.unwrap();
    let live = Seen::default();
    stores[0].stream_all(live.handler()).await.unwrap();
    let second = Seen::default();
    stores[2].stream_all(second.handler()).await.unwrap();
    let durable = Seen::default();
    let stream = stores[0]
        .stream_all_durable(&DurableStream::new("all"), durable.handler())
        .await
        .unwrap();
    let writers: Vec<_> = stores
        .iter()
        .enumerate()
        .map(|(index, store)| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..120_usize {
                    store.append(events(1 + (round + index) % 4)).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    // More at once than the ring of newest batches holds.
    stores[1].append(events(3_000)).await.unwrap();
    let head = stores[1].head_sequence_number().await.unwrap().unwrap();
    until(|| stream.position() == head).await;
    let all = replay(&stores[1], "reference", &EventQuery::all()).await;
    assert_eq!(all.concat(), (1..=head).collect::<Vec<u64>>());
    assert_eq!(all.len(), 362);
    assert_eq!(durable.calls(), all);
    until(|| live.calls().len() >= 361 && second.calls().len() >= 361).await;
    assert_eq!(live.calls(), all[1..]);
    assert_eq!(second.calls(), all[1..]);
    for store in stores {
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_name_runs_once_over_all_stores() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let one = SqliteStore::open(&path).unwrap();
    let two = Arc::new(SqliteStore::open(&path).unwrap());
    let name = DurableStream::new("one");
    let seen = Seen::default();
    let first = one.stream_all_durable(&name, seen.handler()).await.unwrap();
    let refused = two.stream_all_durable(&name, seen.handler()).await;
    assert_eq!(refused.unwrap_err().code(), "DurableStreamActive");
    let refused = two.reset_durable_stream(&name, 0).await;
    assert_eq!(refused.unwrap_err().code(), "DurableStreamActive");
    assert!(two.list_durable_streams().await.unwrap()[0].active);
    let heir = tokio::spawn({
        let (two, name, seen) = (two.clone(), name.clone(), seen.clone());
        async move {
            two.stream_all_durable_with(&name, seen.handler(), waits())
                .await
        }
    });
    for _ in 0..30 {
        one.append(events(1)).await.unwrap();
    }
    first.unsubscribe().await;
    let second = heir.await.unwrap().unwrap();
    for _ in 0..30 {
        one.append(events(2)).await.unwrap();
    }
    until(|| second.position() == 90).await;
    assert_eq!(seen.calls().concat(), (1..=90).collect::<Vec<u64>>());
    // Closing gives the lease back, too.
    two.close().await.unwrap();
    assert!(replay(&one, "one", &EventQuery::all()).await.is_empty());
}

fn now_in_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

#[tokio::test]
async fn a_holder_without_a_sign_of_life_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    for _ in 0..5 {
        store.append(events(1)).await.unwrap();
    }
    replay(&store, "one", &EventQuery::all()).await;
    let connection = Connection::open(&path).unwrap();
    let hold = |age: i64| {
        connection
            .execute_batch(&format!(
                "UPDATE durable_streams SET owner = 7, position = 3, fencing = 9;
                 INSERT OR REPLACE INTO stream_owners VALUES (7, {});",
                now_in_millis() - age
            ))
            .unwrap();
    };
    let name = DurableStream::new("one");
    hold(0);
    let refused = store
        .stream_all_durable(&name, Seen::default().handler())
        .await;
    assert_eq!(refused.unwrap_err().code(), "DurableStreamActive");
    // Nearly expired: the one who waits gets it without any word of the holder.
    hold(3_500);
    let seen = Seen::default();
    let stream = store
        .stream_all_durable_with(&name, seen.handler(), waits())
        .await
        .unwrap();
    assert_eq!(seen.calls(), [[4], [5]]);
    stream.unsubscribe().await;
    // A time far ahead is no sign of life either: somebody has set the clock.
    hold(-3_600_000);
    assert!(!store.list_durable_streams().await.unwrap()[0].active);
    let fencing = "SELECT fencing FROM durable_streams";
    assert_eq!(replay(&store, "one", &EventQuery::all()).await.len(), 2);
    let fencing: i64 = connection.query_row(fencing, [], |row| row.get(0)).unwrap();
    assert_eq!(fencing, 10);
}

#[tokio::test]
async fn a_holder_that_lost_its_lease_ends_and_stores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let seen = Seen::default();
    let stream = store
        .stream_all_durable(&DurableStream::new("one"), seen.handler())
        .await
        .unwrap();
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("UPDATE durable_streams SET owner = 7, fencing = fencing + 1, position = 0")
        .unwrap();
    store.append(events(1)).await.unwrap();
    let end = stream.closed().await;
    assert_eq!(end.reason, StreamEndReason::BackendFailed);
    assert!(end.error.unwrap().to_string().contains("taken over"));
    let row = connection.query_row("SELECT owner, position FROM durable_streams", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    });
    assert_eq!(row.unwrap(), (7, 0));
}

/// A store that waits only a moment for the file's lock.
fn impatient(path: &Path) -> SqliteStore {
    let options = SqliteStoreOptions {
        busy_timeout: Duration::from_millis(20),
        ..SqliteStoreOptions::default()
    };
    SqliteStore::open_with(path, options).unwrap()
}

/// Ends a stream that has handled 3 events, of which the file knows nothing: somebody else has its lock,
/// which is given back. The store goes on holding another lease.
async fn end_while_locked(store: &SqliteStore, path: &Path, name: &DurableStream) {
    let running = DurableStream::new("running");
    if store.list_durable_streams().await.unwrap().is_empty() {
        let running = store.stream_all_durable(&running, Seen::default().handler());
        running.await.unwrap();
    }
    let (open, opened) = tokio::sync::watch::channel(false);
    let handle = HandleStream::new(move |_| {
        let mut opened = opened.clone();
        async move {
            opened.wait_for(|open| *open).await.unwrap();
            Ok(())
        }
    });
    let stream = store.stream_all_durable(name, handle).await.unwrap();
    store.append(events(3)).await.unwrap();
    let lock = Connection::open(path).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    open.send_replace(true);
    until(|| stream.position() == 3).await;
    stream.unsubscribe().await;
    let end = stream.closed().await;
    assert_eq!(end.reason, StreamEndReason::BackendFailed);
    assert!(end.error.unwrap().to_string().contains("locked"));
    lock.execute_batch("ROLLBACK").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_could_not_be_given_back_is_given_back_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = impatient(&path);
    let name = DurableStream::new("ended");
    end_while_locked(&store, &path, &name).await;
    // This one has no way to know, and the holder has given signs of life all the time.
    let other = SqliteStore::open(&path).unwrap();
    let seen = Seen::default();
    let heir = other.stream_all_durable_with(&name, seen.handler(), waits());
    let heir = tokio::time::timeout(Duration::from_secs(60), heir);
    let heir = heir.await.expect("the name became free").unwrap();
    assert_eq!((heir.position(), seen.calls()), (3, vec![]));
    store.close().await.unwrap();
    other.append(events(1)).await.unwrap();
    until(|| seen.calls() == [[4]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_could_not_be_given_back_can_be_had_by_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = impatient(&path);
    let name = DurableStream::new("ended");
    end_while_locked(&store, &path, &name).await;
    let seen = Seen::default();
    let stream = store
        .stream_all_durable(&name, seen.handler())
        .await
        .unwrap();
    assert_eq!((stream.position(), seen.calls()), (3, vec![]));
    // What could not be done before is not done to the new one.
    let other = SqliteStore::open(&path).unwrap();
    for _ in 0..20 {
        store.append(events(1)).await.unwrap();
        let refused = other.stream_all_durable(&name, seen.handler()).await;
        assert_eq!(refused.unwrap_err().code(), "DurableStreamActive");
    }
    until(|| stream.position() == 23).await;
    stream.unsubscribe().await;
    assert_eq!(stream.closed().await.reason, StreamEndReason::Unsubscribed);
    assert!(replay(&other, "ended", &EventQuery::all()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_could_not_be_given_back_is_given_back_by_close() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    for round in 0..5 {
        let store = impatient(&path);
        let name = DurableStream::new(format!("ended-{round}"));
        end_while_locked(&store, &path, &name).await;
        store.close().await.unwrap();
        let other = SqliteStore::open(&path).unwrap();
        let listed = other.list_durable_streams().await.unwrap();
        let ended = listed.iter().find(|info| info.name == name.name).unwrap();
        assert_eq!((ended.position, ended.active), (3, false));
        other.close().await.unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_when_their_file_is_gone() {
    let read_only = SqliteStoreOptions {
        read_only: true,
        ..SqliteStoreOptions::default()
    };
    for replace in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(&path).unwrap();
        store.append(events(1)).await.unwrap();
        let reading = SqliteStore::open_with(&path, read_only).unwrap();
        let seen = Seen::default();
        let live = store.stream_all(seen.handler()).await.unwrap();
        let name = DurableStream::new("one");
        let durable = store.stream_all_durable(&name, Seen::default().handler());
        let durable = durable.await.unwrap();
        let elsewhere = reading.stream_all(seen.handler()).await.unwrap();
        // Both stores look at the file by now.
        let other = SqliteStore::open(&path).unwrap();
        other.append(events(1)).await.unwrap();
        until(|| seen.calls().len() == 2).await;
        other.close().await.unwrap();
        std::fs::rename(&path, folder.path().join("moved.db")).unwrap();
        if replace {
            std::fs::write(&path, "another file").unwrap();
        }
        for stream in [live, durable, elsewhere] {
            let closed = tokio::time::timeout(Duration::from_secs(60), stream.closed());
            let end = closed.await.expect("it ended");
            assert_eq!(end.reason, StreamEndReason::BackendFailed);
            let error = end.error.unwrap();
            assert_eq!(error.code(), "BackendFailure");
            let message = error.to_string();
            assert!(message.contains("deleted or replaced"), "{message}");
            assert!(message.contains("store.db"), "{message}");
        }
        store.close().await.unwrap();
        reading.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_when_their_store_can_not_be_watched_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let seen = Seen::default();
    let stream = store.stream_all(seen.handler()).await.unwrap();
    let other = SqliteStore::open(&path).unwrap();
    let connection = Connection::open(&path).unwrap();
    // A failure that passes is none.
    for number in 1..=3 {
        connection
            .execute_batch("ALTER TABLE events RENAME TO gone; ALTER TABLE gone RENAME TO events")
            .unwrap();
        other.append(events(1)).await.unwrap();
        until(|| seen.calls().len() == number).await;
    }
    connection
        .execute_batch("ALTER TABLE events RENAME TO gone")
        .unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(60), stream.closed());
    let end = closed.await.expect("it ended");
    assert_eq!(end.reason, StreamEndReason::BackendFailed);
    let message = end.error.unwrap().to_string();
    assert!(message.contains("no such table"), "{message}");
    assert!(message.contains("store.db"), "{message}");
    connection
        .execute_batch("ALTER TABLE gone RENAME TO events")
        .unwrap();
    store.stream_all(seen.handler()).await.unwrap();
    other.append(events(1)).await.unwrap();
    until(|| seen.calls().len() == 4).await;
}

#[tokio::test]
async fn a_holder_ends_if_its_store_takes_the_name_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let name = DurableStream::new("one");
    let lost = Seen::default();
    let stream = store
        .stream_all_durable(&name, lost.handler())
        .await
        .unwrap();
    // Somebody else has had the name, which this store has not noticed.
    Connection::open(&path)
        .unwrap()
        .execute_batch("UPDATE durable_streams SET owner = NULL, fencing = fencing + 1")
        .unwrap();
    let seen = Seen::default();
    let anew = store
        .stream_all_durable(&name, seen.handler())
        .await
        .unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(60), stream.closed());
    let end = closed.await.expect("it ended");
    assert_eq!(end.reason, StreamEndReason::BackendFailed);
    store.append(events(1)).await.unwrap();
    until(|| anew.position() == 1).await;
    assert_eq!((lost.calls(), seen.calls()), (vec![], vec![vec![1]]));
    let refused = store.stream_all_durable(&name, seen.handler()).await;
    assert_eq!(refused.unwrap_err().code(), "DurableStreamActive");
    anew.unsubscribe().await;
    assert_eq!(anew.closed().await.reason, StreamEndReason::Unsubscribed);
}

#[tokio::test]
async fn cursors_are_stored_without_further_commits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let stream = store
        .stream_all_durable(&DurableStream::new("one"), Seen::default().handler())
        .await
        .unwrap();
    store.append(events(3)).await.unwrap();
    let connection = Connection::open(&path).unwrap();
    let position = || -> i64 {
        let sql = "SELECT position FROM durable_streams";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    until(|| position() == 3).await;
    assert_eq!(stream.position(), 3);
    // One that nothing concerns moves on, too, when it would have to look far back.
    let never = EventQuery::for_event_types(["never"]);
    stream.unsubscribe().await;
    store
        .delete_durable_stream(&DurableStream::new("one"))
        .await
        .unwrap();
    store
        .stream_to_durable(
            &DurableStream::new("idle"),
            &never,
            Seen::default().handler(),
        )
        .await
        .unwrap();
    store.append(events(2_000)).await.unwrap();
    until(|| position() == 2_003).await;
}

#[tokio::test]
async fn a_read_only_store_has_live_streams_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let writing = SqliteStore::open(&path).unwrap();
    writing.append(events(1)).await.unwrap();
    replay(&writing, "one", &EventQuery::all()).await;
    let read_only = SqliteStoreOptions {
        read_only: true,
        ..SqliteStoreOptions::default()
    };
    let reading = SqliteStore::open_with(&path, read_only).unwrap();
    let seen = Seen::default();
    reading.stream_all(seen.handler()).await.unwrap();
    writing.append(events(2)).await.unwrap();
    until(|| seen.calls().len() == 1).await;
    assert_eq!(seen.calls(), [[2, 3]]);
    let name = DurableStream::new("one");
    let refused = reading.stream_all_durable(&name, seen.handler()).await;
    assert_eq!(refused.unwrap_err().code(), "InvalidOptions");
    let refused = reading.reset_durable_stream(&name, 0).await;
    assert_eq!(refused.unwrap_err().code(), "InvalidOptions");
    let listed = reading.list_durable_streams().await.unwrap();
    assert_eq!((listed[0].position, listed[0].active), (1, false));
    reading.close().await.unwrap();
}

const CHILD: &str = "FACTSTR_TEST_HOLDER";

/// Not a test of its own: what the next one starts as a process, and kills.
#[test]
fn holder_process() {
    let Ok(folder) = std::env::var(CHILD) else {
        return;
    };
    let folder = Path::new(&folder);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Arc::new(SqliteStore::open(folder.join("store.db")).unwrap());
        let name = DurableStream::new("killed");
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder.join("handled"))
            .unwrap();
        let log = Arc::new(Mutex::new(log));
        let handle = HandleStream::new(move |batch| {
            let mut line = String::new();
            for record in batch {
                line.push_str(&record.sequence_number.to_string());
                line.push(' ');
            }
            line.push('\n');
            log.lock().unwrap().write_all(line.as_bytes()).unwrap();
            async { Ok(()) }
        });
        store
            .stream_all_durable_with(&name, handle, waits())
            .await
            .unwrap();
        loop {
            store.append(events(2)).await.unwrap();
        }
    });
}

/// Every batch is handled, in order; what repeats is what was handled just before a death.
#[test]
fn killed_holders_are_followed_without_gap() {
    let folder = tempfile::tempdir().unwrap();
    let handled = || -> Vec<u64> {
        let text = std::fs::read_to_string(folder.path().join("handled")).unwrap_or_default();
        text.split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect()
    };
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holder_process", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let wait_for = |count: usize| {
        let since = std::time::Instant::now();
        while handled().len() < count {
            assert!(since.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let mut children: Vec<_> = (0..2).map(|_| start()).collect();
    for round in 0..2 {
        wait_for(handled().len() + 200 * (round + 1));
        // One of the two holds the lease, the other stands by and appends, too.
        let mut child = children.remove(0);
        child.kill().unwrap();
        child.wait().unwrap();
        children.push(start());
        wait_for(handled().len() + 200);
    }
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let numbers = handled();
    let mut newest = 0;
    for pair in numbers.windows(2) {
        newest = newest.max(pair[0]);
        assert!(pair[1] <= newest + 1, "a gap after {newest}: {pair:?}");
    }
}
