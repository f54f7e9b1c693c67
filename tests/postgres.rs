//! What only the PostgreSQL store has: a schema, its format, and a database with its settings.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

#[allow(dead_code)]
mod stores;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use factstr::{
    DurableStream, DurableStreamOptions, EventFilter, EventQuery, EventStore, EventStoreError,
    HandleStream, IfActive, NewEvent, PostgresStore, PostgresStoreOptions,
};
use serde_json::{Value, json};
use stores::postgres::{Afterwards, Schema, client_of, config, new_name, quoted, sql};
use stores::until;
use tokio_postgres::config::Host;
use tokio_postgres::{AsyncMessage, Client, NoTls};

const LEGACY: &str = include_str!("fixtures/legacy-0.5.2.postgres.sql");

/// What psql would show of a schema: its relations, their columns, its functions, indexes and triggers, and
/// the rows of its tables with the transactions that wrote them.
async fn dump(schema: &Schema) -> Vec<String> {
    let client = schema.client().await;
    let catalog = "
        SELECT 'relation ' || c.relname || ' ' || c.relkind::text || ' ' || c.xmin
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1
        UNION ALL SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND a.attnum > 0
        UNION ALL SELECT 'function ' || p.proname || ' ' || p.xmin
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1
        UNION ALL SELECT 'trigger ' || t.tgname || ' ' || t.xmin
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1
        UNION ALL SELECT 'schema ' || n.nspname || ' ' || n.xmin FROM pg_namespace n WHERE n.nspname = $1
        ORDER BY 1";
    let rows = client.query(catalog, &[&schema.name]).await.unwrap();
    let mut dump: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let tables =
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE n.nspname = $1 AND c.relkind = 'r' ORDER BY 1";
    for table in client.query(tables, &[&schema.name]).await.unwrap() {
        let table: String = table.get(0);
        let rows = format!(
            "SELECT t.xmin::text || ' ' || t::text FROM {} t ORDER BY 1",
            quoted(&table)
        );
        for row in client.query(&rows, &[]).await.unwrap() {
            dump.push(format!("row {table} {}", row.get::<_, String>(0)));
        }
    }
    dump
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

fn note(text: &str) -> Vec<NewEvent> {
    vec![NewEvent::new("note", json!({ "text": text }))]
}

fn having(predicate: Value) -> EventQuery {
    EventQuery::all().with_filters([EventFilter::default().with_payload_predicates([predicate])])
}

/// A URL of the same server for another user or database.
fn url_of(user: Option<(&str, &str)>, database: Option<&str>) -> String {
    let config = config();
    let quoted = |value: &str| {
        let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
        format!("'{escaped}'")
    };
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
    let password = config.get_password().map(String::from_utf8_lossy);
    let (user, password) = user.unwrap_or((
        config.get_user().unwrap_or("postgres"),
        password.as_deref().unwrap_or_default(),
    ));
    let database = database.or(config.get_dbname()).unwrap_or(user);
    let mut url = format!(
        "host={} user={} dbname={}",
        quoted(&hosts.join(",")),
        quoted(user),
        quoted(database)
    );
    if !ports.is_empty() {
        url = format!("{url} port={}", ports.join(","));
    }
    if !password.is_empty() {
        url = format!("{url} password={}", quoted(password));
    }
    url
}

/// A database of its own, which goes with this.
struct Database {
    name: String,
    _afterwards: Afterwards,
}

impl Database {
    async fn new(options: &str) -> Self {
        let name = new_name();
        let create = format!(
            "CREATE DATABASE {} TEMPLATE template0 {options}",
            quoted(&name)
        );
        sql(&create).await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", quoted(&name));
        Self {
            name,
            _afterwards: Afterwards(drop),
        }
    }

    fn url(&self) -> String {
        url_of(None, Some(&self.name))
    }

    async fn client(&self) -> Client {
        client_of(config().dbname(&self.name)).await
    }
}

/// A role that may log in, and nothing more. It goes with this, with what it owns and may do.
struct Role {
    name: String,
    password: String,
    _afterwards: Afterwards,
}

impl Role {
    async fn new() -> Self {
        let name = new_name();
        let password = "s3cr3t of 'a' role".to_owned();
        let role = quoted(&name);
        let literal = password.replace('\'', "''");
        sql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{literal}'")).await;
        Self {
            _afterwards: Afterwards(format!("DROP OWNED BY {role} CASCADE;\nDROP ROLE {role}")),
            name,
            password,
        }
    }

    fn url(&self, database: Option<&str>) -> String {
        url_of(Some((&self.name, &self.password)), database)
    }
}

/// Does all that a store can do, and hears of what another store does.
async fn exercise(one: &PostgresStore, two: &PostgresStore) {
    let head = one.head_sequence_number().await.unwrap().unwrap_or(0);
    let id = format!("exercise-{head}");
    let context = having(json!({ "text": id }));
    let name = DurableStream::new(id.as_str());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let handle = HandleStream::new(move |batch| {
        let numbers = batch.iter().map(|record| record.sequence_number);
        kept.lock().unwrap().extend(numbers);
        async { Ok(()) }
    });
    let stream = two.stream_to_durable(&name, &context, handle).await;
    let stream = stream.unwrap();
    let first = one.append_if(note(&id), &context, None).await.unwrap();
    let conflict = two.append_if(note(&id), &context, None).await.unwrap_err();
    assert_eq!(conflict.code(), "ConditionalAppendConflict");
    let expected = Some(first.last_sequence_number);
    let second = two.append_if(note(&id), &context, expected).await.unwrap();
    let found = one.query(&context).await.unwrap();
    assert_eq!(found.event_records.len(), 2);
    let newest = second.last_sequence_number;
    assert_eq!(found.current_context_version, Some(newest));
    until(|| seen.lock().unwrap().len() == 2).await;
    stream.unsubscribe().await;
    let listed = two.list_durable_streams().await.unwrap();
    assert!(listed.iter().any(|info| info.name == id && !info.active));
    one.reset_durable_stream(&name, 0).await.unwrap();
    one.delete_durable_stream(&name).await.unwrap();
}

#[tokio::test]
async fn ten_at_once_open_an_empty_schema() {
    let schema = Arc::new(Schema::new());
    let opened: Vec<_> = (0..10)
        .map(|number| {
            let schema = schema.clone();
            tokio::spawn(async move {
                let store = schema.open().await;
                store.append(note(&number.to_string())).await.unwrap();
                store
            })
        })
        .collect();
    let mut stores = Vec::new();
    for opening in opened {
        stores.push(opening.await.unwrap());
    }
    for store in &stores {
        assert_eq!(store.head_sequence_number().await.unwrap(), Some(10));
    }
    exercise(&stores[0], &stores[9]).await;
    let client = schema.client().await;
    let shown = "SELECT count(*) FROM facts WHERE payload ->> 'text' IN ('0', '9')";
    assert_eq!(count(&client, shown).await, 2);
    for store in stores {
        store.close().await.unwrap();
    }
}

/// The schema may be there, and may have tables that are nobody's business.
#[tokio::test]
async fn a_schema_is_shared_with_other_tables() {
    let schema = Schema::new()
        .with("CREATE TABLE customers (id integer); INSERT INTO customers VALUES (1)")
        .await;
    let store = schema.open().await;
    store.append(note("first")).await.unwrap();
    let client = schema.client().await;
    assert_eq!(count(&client, "SELECT count(*) FROM customers").await, 1);
    store.close().await.unwrap();
    let before = dump(&schema).await;
    let again = schema.open().await;
    assert_eq!(again.head_sequence_number().await.unwrap(), Some(1));
    again.close().await.unwrap();
    assert_eq!(dump(&schema).await, before);
}

#[tokio::test]
async fn newer_and_foreign_schemas_are_refused_untouched() {
    let stores = [
        "UPDATE store_metadata SET value = '1000' WHERE key = 'store_format_version'",
        "UPDATE store_metadata SET value = 'x' WHERE key = 'store_format_version'",
        "UPDATE store_metadata SET value = '0' WHERE key = 'store_format_version'",
        "DELETE FROM store_metadata WHERE key = 'store_format_version'",
        "DELETE FROM store_metadata",
        "DROP TABLE append_batches",
        "DROP TABLE store_metadata",
        "DROP TABLE events CASCADE",
    ];
    let others = [
        "CREATE TABLE events (id integer); INSERT INTO events VALUES (1)",
        "CREATE VIEW events AS SELECT 1 AS one",
        "CREATE MATERIALIZED VIEW events AS SELECT 1 AS one",
        "CREATE TABLE events (id integer) PARTITION BY RANGE (id)",
        "CREATE TABLE durable_streams (id integer)",
        "CREATE TABLE events (id integer); CREATE TABLE store_metadata (key text, value text);
         INSERT INTO store_metadata VALUES ('store_format_version', '2')",
        "CREATE TABLE events (id integer); CREATE TABLE append_batches (id integer);
         CREATE TABLE store_metadata (id integer)",
    ];
    let mut schemas = Vec::new();
    for tamper in stores {
        let schema = Schema::new();
        let store = schema.open().await;
        store.append(note("mine")).await.unwrap();
        store.close().await.unwrap();
        let client = schema.client().await;
        client.batch_execute(tamper).await.unwrap();
        schemas.push((schema, tamper));
    }
    for statements in others {
        schemas.push((Schema::new().with(statements).await, statements));
    }
    for (schema, statements) in schemas {
        let before = dump(&schema).await;
        let error = schema.try_open().await.expect_err(statements);
        let message = format!("{statements}: {error}");
        assert_eq!(error.code(), "StoreFormatUnsupported", "{message}");
        assert_eq!(dump(&schema).await, before, "{message}");
    }
}

/// What has one of the tables' names but is no table: the schema is refused, and left as it was.
#[tokio::test]
async fn names_that_are_taken_refuse_the_schema() {
    for statements in [
        "CREATE SEQUENCE events",
        "CREATE TYPE event_postings AS (x integer)",
        "CREATE TABLE mine (x integer); CREATE INDEX durable_streams ON mine (x)",
        "CREATE TABLE facts (x integer)",
        "CREATE FUNCTION factstr_page(bigint[], integer[], integer[], bigint, bigint, boolean, integer,
           bigint, boolean) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    ] {
        let schema = Schema::new().with(statements).await;
        let before = dump(&schema).await;
        let error = schema.try_open().await.expect_err(statements);
        assert_eq!(error.code(), "BackendFailure", "{statements}: {error}");
        assert_eq!(dump(&schema).await, before, "{statements}");
    }
    for statements in [
        "CREATE TABLE event_postings (mine integer)",
        "CREATE TABLE facts (mine integer)",
    ] {
        let schema = Schema::new().with(LEGACY).await;
        let client = schema.client().await;
        client.batch_execute(statements).await.unwrap();
        let before = dump(&schema).await;
        let error = schema.try_open().await.expect_err(statements);
        assert_eq!(error.code(), "BackendFailure", "{statements}: {error}");
        assert_eq!(dump(&schema).await, before, "{statements}");
    }
}

/// The functions serve every version of a format, so an older version leaves newer ones alone.
#[tokio::test]
async fn functions_are_renewed_and_never_taken_back() {
    let schema = Schema::new();
    schema.open().await.close().await.unwrap();
    let client = schema.client().await;
    // What an older revision had goes.
    let old = "CREATE FUNCTION factstr_append(bigint, bigint, integer[], text[], text[], bigint[],
        integer[], text[], integer[], integer[], integer[], bigint[], bigint[], text[], integer[],
        bigint[], bigint[], integer[], integer[], integer[]) RETURNS void LANGUAGE sql AS ''";
    client.batch_execute(old).await.unwrap();
    for (revision, is_newer) in [("1000", true), ("0", false)] {
        let set = format!(
            "UPDATE store_metadata SET value = '{revision}' WHERE key = 'functions_revision'"
        );
        client.batch_execute(&set).await.unwrap();
        let before = dump(&schema).await;
        let store = schema.open().await;
        assert_eq!(dump(&schema).await == before, is_newer);
        store.append(note("goes on")).await.unwrap();
        store.close().await.unwrap();
    }
    let appends = "SELECT count(*) FROM pg_proc WHERE proname = 'factstr_append'
                   AND pronamespace = quote_ident(current_schema())::regnamespace";
    assert_eq!(count(&client, appends).await, 1);
}

/// The schema's name stands in the functions: a log that ended gives its name to the next one.
#[tokio::test]
async fn a_renamed_schema_keeps_to_its_own_log() {
    let database = Database::new("").await;
    let client = database.client().await;
    let options = |schema: &str| PostgresStoreOptions {
        schema: schema.to_owned(),
        ..PostgresStoreOptions::default()
    };
    let open =
        async |schema: &str| PostgresStore::connect_with(&database.url(), options(schema)).await;
    let old = open("log").await.unwrap();
    old.append(note("old")).await.unwrap();
    old.close().await.unwrap();
    let rename = "ALTER SCHEMA log RENAME TO log_2025";
    client.batch_execute(rename).await.unwrap();
    let new = open("log").await.unwrap();
    for what in ["new", "newer"] {
        new.append(note(what)).await.unwrap();
    }
    let renamed = open("log_2025").await.unwrap();
    renamed.append(note("still old")).await.unwrap();
    let notes = async |store: &PostgresStore| {
        let found = store.query(&EventQuery::all()).await.unwrap();
        let records = found.event_records.iter();
        records
            .map(|record| record.payload.clone())
            .collect::<Vec<_>>()
    };
    let expected = async |notes: &[&str]| {
        notes
            .iter()
            .map(|what| note(what)[0].payload.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(notes(&renamed).await, expected(&["old", "still old"]).await);
    assert_eq!(notes(&new).await, expected(&["new", "newer"]).await);
    renamed.close().await.unwrap();
    new.close().await.unwrap();

    // Functions of a newer release are not taken back to be made anew.
    client
        .batch_execute(
            "ALTER SCHEMA log_2025 RENAME TO log_2026;
             UPDATE log_2026.store_metadata SET value = '1000' WHERE key = 'functions_revision'",
        )
        .await
        .unwrap();
    let error = open("log_2026").await.unwrap_err();
    assert_eq!(error.code(), "StoreFormatUnsupported", "{error}");
    assert!(error.to_string().contains("log_2025"), "{error}");
}

#[tokio::test]
async fn rights_on_the_schema_suffice() {
    // Nobody but its owner may create anything in the database.
    let database = Database::new("").await;
    let admin = database.client().await;
    let (owner, guest) = (Role::new().await, Role::new().await);
    let lock_up = format!(
        "REVOKE ALL ON DATABASE {0} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC;
         CREATE SCHEMA facts AUTHORIZATION {1}; GRANT CONNECT ON DATABASE {0} TO {1}, {2}",
        quoted(&database.name),
        quoted(&owner.name),
        quoted(&guest.name)
    );
    admin.batch_execute(&lock_up).await.unwrap();
    let options = || PostgresStoreOptions {
        schema: "facts".to_owned(),
        ..PostgresStoreOptions::default()
    };
    let connect = async |role: &Role, options| {
        PostgresStore::connect_with(&role.url(Some(&database.name)), options).await
    };
    let elsewhere = PostgresStoreOptions {
        schema: "elsewhere".to_owned(),
        ..PostgresStoreOptions::default()
    };
    let refused = [
        connect(&guest, options()).await.unwrap_err(),
        connect(&owner, elsewhere).await.unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.code(), "BackendFailure", "{error}");
        let message = error.to_string();
        assert!(message.contains("permission denied"), "{message}");
        assert!(!message.contains("s3cr3t"), "{message}");
    }
    let first = connect(&owner, options()).await.unwrap();
    exercise(&first, &first).await;

    // Another role uses what the owner has made.
    let grant = format!(
        "GRANT USAGE ON SCHEMA facts TO {0};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA facts TO {0}",
        quoted(&guest.name)
    );
    admin.batch_execute(&grant).await.unwrap();
    let used = connect(&guest, options()).await.unwrap();
    exercise(&first, &used).await;
    exercise(&used, &first).await;
    first.close().await.unwrap();
    used.close().await.unwrap();
    drop(database);
}

/// Whatever the name, a store works, and hears of commits by notifications: nobody polls here.
#[tokio::test]
async fn schemas_have_any_name() {
    let id = new_name();
    let id = &id[5..];
    let longest = |filler: &str| -> String {
        let room = 63 - id.len();
        filler.repeat(room / filler.len()) + &"x".repeat(room % filler.len())
    };
    let names = [
        " with spaces ",
        "UPPER and lower",
        "\"quoted\"\"twice",
        "it's a 'name'",
        "back\\slash \\' \\\"",
        "ünï-cödé \u{1F600}",
        "dots.and.more.",
        "{schema} {literal} {}",
        "$1 $$ $factstr",
        "%s %I ? :x @",
        "new\nline\ttab -- /* */",
        "select",
        &longest("x"),
        &longest("ü"),
    ];
    for name in names {
        let schema = Schema::named(&format!("{name}{id}"));
        let options = PostgresStoreOptions {
            poll_interval: Duration::from_secs(3_600),
            ..schema.options()
        };
        let open = || PostgresStore::connect_with(&schema.url, options.clone());
        let (one, two) = (open().await.unwrap(), open().await.unwrap());
        exercise(&one, &two).await;
        one.close().await.unwrap();
        two.close().await.unwrap();
        let client = schema.client().await;
        assert_eq!(count(&client, "SELECT count(*) FROM facts").await, 2);
    }
}

#[tokio::test]
async fn schemas_of_one_database_do_not_see_each_other() {
    let (one, two) = (Schema::new(), Schema::new());
    let (first, second) = (one.open().await, two.open().await);
    first.append(note("one")).await.unwrap();
    assert_eq!(second.head_sequence_number().await.unwrap(), None);
    let appended = second.append(note("two")).await.unwrap();
    assert_eq!(appended.first_sequence_number, 1);
    let everything = second.query(&EventQuery::all()).await.unwrap();
    assert_eq!(everything.event_records.len(), 1);
    assert_eq!(everything.event_records[0].payload["text"], "two");

    // One name is two streams.
    let name = DurableStream::new("model");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut streams = Vec::new();
    for (place, store) in [("one", &first), ("two", &second)] {
        let kept = seen.clone();
        let handle = HandleStream::new(move |batch| {
            for record in batch {
                let text = record.payload["text"].clone();
                kept.lock().unwrap().push(json!([place, text]));
            }
            async { Ok(()) }
        });
        streams.push(store.stream_all_durable(&name, handle).await.unwrap());
    }
    assert_eq!(
        *seen.lock().unwrap(),
        [json!(["one", "one"]), json!(["two", "two"])]
    );
    streams[0].unsubscribe().await;
    first.delete_durable_stream(&name).await.unwrap();
    let listed = second.list_durable_streams().await.unwrap();
    assert!(listed.len() == 1 && listed[0].active);

    // Who holds one's lock holds back the other's appends not.
    let mut holder = one.client().await;
    let transaction = holder.transaction().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock(1717658484, 'events'::regclass::oid::integer)";
    transaction.batch_execute(lock).await.unwrap();
    let first = Arc::new(first);
    let waiting = tokio::spawn({
        let first = first.clone();
        async move { first.append(note("waits")).await }
    });
    let watcher = one.client().await;
    let is_waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                      AND classid = 1717658484 AND objid = 'events'::regclass";
    while count(&watcher, is_waiting).await == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let appended = second.append(note("goes on")).await.unwrap();
    assert_eq!(appended.first_sequence_number, 2);
    assert!(!waiting.is_finished());
    transaction.commit().await.unwrap();
    let appended = waiting.await.unwrap().unwrap();
    assert_eq!(appended.first_sequence_number, 2);
    first.close().await.unwrap();
    second.close().await.unwrap();
}

/// Others would tell a store that is gone of commits, and look at its rows with every group.
#[tokio::test]
async fn a_closed_store_leaves_no_row_of_itself() {
    let schema = Schema::new();
    let live = async |store: &PostgresStore| {
        let handle = HandleStream::new(|_| async { Ok(()) });
        store.stream_all(handle).await.unwrap()
    };
    let durable = async |store: &PostgresStore| {
        let handle = HandleStream::new(|_| async { Ok(()) });
        let name = DurableStream::new("mine");
        store.stream_all_durable(&name, handle).await.unwrap()
    };
    schema.open().await.close().await.unwrap();
    let client = schema.client().await;
    let touched = "SELECT count(*) FROM stream_stores";
    let left = "SELECT (SELECT count(*) FROM stream_stores) + (SELECT count(*) FROM append_groups)";
    for (appends, is_durable, ends_before) in [
        (false, false, false),
        (false, true, false),
        (false, true, true),
        (true, false, true),
        (true, true, false),
    ] {
        let store = schema.open().await;
        if appends {
            store.append(note("mine")).await.unwrap();
        }
        let stream = if is_durable {
            durable(&store).await
        } else {
            live(&store).await
        };
        while count(&client, touched).await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if ends_before {
            stream.unsubscribe().await;
        }
        store.close().await.unwrap();
        assert_eq!(
            count(&client, left).await,
            0,
            "{appends} {is_durable} {ends_before}"
        );
    }

    // A sign of life is under way.
    let store = Arc::new(schema.open().await);
    let _stream = live(&store).await;
    while count(&client, touched).await == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut holder = schema.client().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE stream_stores IN SHARE MODE")
        .await
        .unwrap();
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE relation = 'stream_stores'::regclass AND NOT granted";
    while count(&client, waiting).await == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let closed = store.clone();
    let closing = tokio::spawn(async move { closed.close().await });
    while store.head_sequence_number().await != Err(EventStoreError::StoreClosed) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lock.commit().await.unwrap();
    closing.await.unwrap().unwrap();
    assert_eq!(count(&client, left).await, 0);
}

/// Each schema has a channel of its own, and commits are told there.
#[tokio::test]
async fn notifications_are_told_to_one_schema() {
    let (one, two) = (Schema::new(), Schema::new());
    let mut stores = Vec::new();
    let mut channels = Vec::new();
    let mut streams = Vec::new();
    for schema in [&one, &two] {
        let (listening, writing) = (schema.open().await, schema.open().await);
        let handle = HandleStream::new(|_| async { Ok(()) });
        streams.push(listening.stream_all(handle).await.unwrap());
        let channel = "SELECT 'factstr_' || 'events'::regclass::oid";
        let row = schema.client().await.query_one(channel, &[]).await.unwrap();
        channels.push(row.get::<_, String>(0));
        // A store tells of its commits once another one has given a sign of life.
        let client = schema.client().await;
        while count(&client, "SELECT count(*) FROM stream_stores").await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stores.push((listening, writing));
    }
    let (client, mut connection) = config().connect(NoTls).await.unwrap();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            if let AsyncMessage::Notification(notification) = message {
                let _ = told.send(notification.channel().to_owned());
            }
        }
    });
    for channel in &channels {
        let listen = format!("LISTEN {channel}");
        client.batch_execute(&listen).await.unwrap();
    }
    for (index, (_, writing)) in stores.iter().enumerate() {
        writing.append(note("told")).await.unwrap();
        let channel = tokio::time::timeout(Duration::from_secs(60), heard.recv()).await;
        assert_eq!(channel.unwrap().as_ref(), Some(&channels[index]));
    }
    for stream in streams {
        stream.unsubscribe().await;
    }
    for (listening, writing) in stores {
        listening.close().await.unwrap();
        writing.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let options = format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
        let database = Database::new(&options).await;
        let options = PostgresStoreOptions {
            schema: "facts".to_owned(),
            ..PostgresStoreOptions::default()
        };
        let refused = PostgresStore::connect_with(&database.url(), options).await;
        let error = refused.unwrap_err();
        assert_eq!(error.code(), "StoreFormatUnsupported");
        assert!(error.to_string().contains(encoding), "{error}");
        let client = database.client().await;
        let created = "SELECT count(*) FROM pg_namespace WHERE nspname = 'facts'";
        assert_eq!(count(&client, created).await, 0);
    }
}

/// Settings of a database are for its other users: appends are correct and durable all the same.
#[allow(clippy::too_many_lines)]
#[tokio::test]
async fn the_defaults_of_a_database_change_nothing() {
    const ROUNDS: u64 = 25;
    for defaults in [
        &["default_transaction_isolation = 'serializable'"][..],
        &["default_transaction_isolation = 'repeatable read'"],
        &["default_transaction_isolation = 'read uncommitted'"],
        &["synchronous_commit = off"],
        &[
            "default_transaction_isolation = 'serializable'",
            "synchronous_commit = off",
            "default_transaction_deferrable = on",
            "search_path = nowhere",
            "enable_indexscan = off",
            "standard_conforming_strings = off",
            "bytea_output = 'escape'",
            "extra_float_digits = 0",
            "DateStyle = 'German'",
            "IntervalStyle = 'iso_8601'",
            "timezone = 'Asia/Kathmandu'",
            "lc_numeric = 'C'",
            "row_security = off",
            "quote_all_identifiers = on",
            "transform_null_equals = on",
            "array_nulls = off",
            "xmloption = document",
            "session_replication_role = origin",
            "check_function_bodies = off",
        ],
    ] {
        println!("{defaults:?}");
        let database = Database::new("").await;
        let client = database.client().await;
        for default in defaults {
            let set = format!("ALTER DATABASE {} SET {default}", quoted(&database.name));
            client.batch_execute(&set).await.unwrap();
        }
        // All at once, so that each has to see what others have made while it waited.
        let opening: Vec<_> = (0..6)
            .map(|_| {
                let url = database.url();
                tokio::spawn(async move { PostgresStore::connect(&url).await })
            })
            .collect();
        let mut stores = Vec::new();
        for opening in opening {
            stores.push(Arc::new(opening.await.unwrap().unwrap()));
        }
        client
            .batch_execute(
                "CREATE TABLE used (flushed text, isolation text, read_only text);
                 CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   INSERT INTO public.used VALUES (current_setting('synchronous_commit'),
                     current_setting('transaction_isolation'), current_setting('transaction_read_only'));
                   RETURN NULL;
                 END $$;
                 CREATE TRIGGER look AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION look()",
            )
            .await
            .unwrap();
        let counter = having(json!({ "counter": 1 }));
        let counting = |store: Arc<PostgresStore>| {
            let counter = counter.clone();
            tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    loop {
                        let context = store.query(&counter).await.unwrap();
                        let count = context.event_records.len();
                        let next = NewEvent::new("counted", json!({ "counter": 1, "n": count }));
                        let version = context.current_context_version;
                        match store.append_if(vec![next], &counter, version).await {
                            Ok(_) => break,
                            Err(EventStoreError::ConditionalAppendConflict { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            })
        };
        let racers: Vec<_> = stores[..2]
            .iter()
            .flat_map(|store| [counting(store.clone()), counting(store.clone())])
            .collect();
        for racer in racers {
            racer.await.unwrap();
        }
        let context = stores[0].query(&counter).await.unwrap();
        let counts = context
            .event_records
            .iter()
            .map(|record| record.payload["n"].as_u64());
        assert!(counts.eq((0..4 * ROUNDS).map(Some)));
        exercise(&stores[0], &stores[1]).await;
        let used = client
            .query("SELECT DISTINCT * FROM used", &[])
            .await
            .unwrap();
        assert!(!used.is_empty());
        for row in used {
            let flushed: &str = row.get(0);
            assert!(
                ["on", "remote_write", "remote_apply", "local"].contains(&flushed),
                "{flushed}"
            );
            let isolation: &str = row.get(1);
            assert!(
                ["read committed", "read uncommitted"].contains(&isolation),
                "{isolation}"
            );
            assert_eq!(row.get::<_, &str>(2), "off");
        }
        for store in &stores {
            store.close().await.unwrap();
        }
    }
}

/// A database that is read-only unless asked otherwise either takes appends, or refuses in words.
#[tokio::test]
async fn a_database_that_is_read_only_by_default_is_told() {
    let database = Database::new("").await;
    let client = database.client().await;
    let store = PostgresStore::connect(&database.url()).await.unwrap();
    store.append(note("before")).await.unwrap();
    store.close().await.unwrap();
    let set = format!(
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        quoted(&database.name)
    );
    client.batch_execute(&set).await.unwrap();
    let options = PostgresStoreOptions {
        connect_timeout: Duration::from_millis(500),
        ..PostgresStoreOptions::default()
    };
    let opened = PostgresStore::connect_with(&database.url(), options.clone()).await;
    match opened {
        Ok(store) => {
            let all = store.query(&EventQuery::all()).await.unwrap();
            assert_eq!(all.event_records.len(), 1);
            match store.append(note("after")).await {
                Ok(appended) => assert_eq!(appended.first_sequence_number, 2),
                Err(error) => {
                    assert_eq!(error.code(), "BackendFailure", "{error}");
                    println!("an append says: {error}");
                    assert!(error.to_string().contains("read-only"), "{error}");
                }
            }
            store.close().await.unwrap();
        }
        Err(error) => {
            println!("connecting says: {error}");
            assert_eq!(error.code(), "BackendFailure", "{error}");
            assert!(error.to_string().contains("read-only"), "{error}");
        }
    }
    let allowed = format!(
        "{} options='-c default_transaction_read_only=off'",
        database.url()
    );
    let store = PostgresStore::connect_with(&allowed, options)
        .await
        .unwrap();
    let head = store.head_sequence_number().await.unwrap();
    let appended = store.append(note("at last")).await.unwrap();
    assert_eq!(Some(appended.first_sequence_number - 1), head);
    store.close().await.unwrap();
}

async fn collect(store: &PostgresStore, name: &str, query: &EventQuery) -> Vec<Vec<u64>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let handle = HandleStream::new(move |batch| {
        let numbers = batch.iter().map(|record| record.sequence_number);
        kept.lock().unwrap().push(numbers.collect::<Vec<u64>>());
        async { Ok(()) }
    });
    let options = DurableStreamOptions::default().with_if_active(IfActive::Wait);
    let stream = DurableStream::new(name);
    let stream = store.stream_to_durable_with(&stream, query, handle, options);
    stream.await.unwrap().unsubscribe().await;
    let seen = seen.lock().unwrap();
    seen.clone()
}

async fn assert_legacy_goes_on(store: &PostgresStore) {
    let all = store.query(&EventQuery::all()).await.unwrap().event_records;
    let old = &all[..13];
    assert!(old.iter().map(|record| record.sequence_number).eq(1..=13));
    let first_five: Vec<(&str, Value)> = old
        .iter()
        .take(5)
        .map(|record| (record.event_type.as_str(), record.payload.clone()))
        .collect();
    let reserved = |item: &str| {
        let payload = json!({ "item_id": item, "days": 2.0 });
        ("item-reserved", payload)
    };
    assert_eq!(
        first_five,
        [
            reserved("camera-1"),
            reserved("camera-2"),
            ("note", json!("ä\u{1F600} \"quoted\"")),
            ("", json!({ "z": [1, null, { "deep": true }], "a": {} })),
            reserved("camera-2"),
        ]
    );
    assert_eq!(
        old[0].occurred_at.unix_timestamp_nanos(),
        1_795_523_413_289_634_000
    );
    assert_eq!(
        old[7].payload,
        json!([
            0,
            0.0,
            1.0,
            1.5,
            -7,
            0.1,
            1e25,
            1.5e-9,
            5e-324,
            u64::MAX,
            i64::MIN,
            9_007_199_254_740_993_u64
        ])
    );
    assert_eq!(old[8].event_type.len(), 600);
    for (predicate, versions) in [
        (json!({ "item_id": "camera-2", "days": 2 }), vec![2, 5, 13]),
        (json!({ "z": [{ "deep": true }] }), vec![4]),
        (json!([5e-324, u64::MAX]), vec![8]),
        (json!([0, 1, 1e25]), vec![8]),
        (json!("ä\u{1F600} \"quoted\""), vec![3]),
        (json!({ "": 4 }), vec![11]),
        (json!([[], {}, ""]), vec![10]),
    ] {
        let found = store.query(&having(predicate.clone())).await.unwrap();
        let numbers = found
            .event_records
            .iter()
            .map(|record| record.sequence_number);
        assert_eq!(numbers.collect::<Vec<u64>>(), versions, "{predicate}");
        assert_eq!(found.current_context_version, versions.last().copied());
    }
}

#[tokio::test]
async fn a_schema_of_factstr_postgres_0_5_2_goes_on() {
    let schema = Schema::new().with(LEGACY).await;
    for round in 0..2 {
        let store = schema.open().await;
        assert_legacy_goes_on(&store).await;
        let head = store.head_sequence_number().await.unwrap();
        assert_eq!(head, Some(13 + round));
        let cameras = having(json!({ "item_id": "camera-2" }));
        let late = store.append_if(note("late"), &cameras, Some(5)).await;
        assert_eq!(
            late,
            Err(EventStoreError::ConditionalAppendConflict {
                expected: Some(5),
                actual: Some(13)
            })
        );
        let next = store.append_if(note("later"), &cameras, Some(13)).await;
        assert_eq!(next.unwrap().first_sequence_number, 14 + round);
        store.close().await.unwrap();
    }

    let store = schema.open().await;
    let listed = store.list_durable_streams().await.unwrap();
    let listed: Vec<(&str, u64)> = listed
        .iter()
        .map(|info| (info.name.as_str(), info.position))
        .collect();
    assert_eq!(
        listed,
        [
            ("cameras", 11),
            ("read-model", 4),
            ("registered before any event", 0),
            ("ünïcode name", 11),
        ]
    );
    let everything = EventQuery::all();
    let batches = [
        vec![1],
        vec![2, 3, 4],
        vec![5, 6],
        vec![7],
        vec![8, 9, 10],
        vec![11],
        vec![12, 13],
        vec![14],
        vec![15],
    ];
    let seen = collect(&store, "registered before any event", &everything).await;
    assert_eq!(seen, batches);
    let seen = collect(&store, "read-model", &everything).await;
    assert_eq!(seen, batches[2..]);
    let cameras = EventQuery::all().with_filters([EventFilter::for_event_types(["item-reserved"])
        .with_payload_predicates([json!({ "item_id": "camera-2" })])]);
    assert_eq!(collect(&store, "cameras", &cameras).await, [[13]]);
    let notes = EventQuery::all().with_filters([
        EventFilter::for_event_types(["note", "item-reserved"]),
        EventFilter::for_event_types(Vec::<String>::new()),
    ]);
    let seen = collect(&store, "ünïcode name", &notes).await;
    assert_eq!(seen, [vec![12, 13], vec![14], vec![15]]);
    store.close().await.unwrap();

    let client = schema.client().await;
    let rows = client
        .query("SELECT * FROM append_batches ORDER BY 1", &[])
        .await;
    let kept: Vec<(i64, i64)> = rows
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(kept, [(2, 4), (5, 6), (8, 10), (12, 13)]);
    let old = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = current_schema()
               AND (c.relname LIKE 'idx%' OR c.relname = 'durable_stream_cursors')";
    assert_eq!(count(&client, old).await, 0);
}

#[tokio::test]
async fn ten_at_once_migrate_a_schema() {
    let schema = Arc::new(Schema::new().with(LEGACY).await);
    let opened: Vec<_> = (0..10)
        .map(|number| {
            let schema = schema.clone();
            tokio::spawn(async move {
                let store = schema.open().await;
                let appended = store.append(note(&number.to_string())).await.unwrap();
                assert_legacy_goes_on(&store).await;
                store.close().await.unwrap();
                appended.first_sequence_number
            })
        })
        .collect();
    let mut numbers = BTreeSet::new();
    for opening in opened {
        numbers.insert(opening.await.unwrap());
    }
    assert!(numbers.into_iter().eq(14..24));
}

/// More events than one step of the new index takes.
#[tokio::test]
async fn a_large_schema_is_migrated_whole() {
    let schema = Schema::new().with(LEGACY).await;
    let client = schema.client().await;
    let fill = "INSERT INTO events SELECT s, '2026-11-25 00:00:00+00', 'filler-' || s % 7,
                  jsonb_build_object('mod', s % 1000, 'id', s, 'all', true)
                FROM generate_series(14, 20000) s";
    client.batch_execute(fill).await.unwrap();
    let store = schema.open().await;
    assert_legacy_goes_on(&store).await;
    let found = store
        .query(&having(json!({ "mod": 77, "all": true })))
        .await;
    let found = found.unwrap();
    assert_eq!(found.event_records.len(), 20);
    assert_eq!(found.current_context_version, Some(19_077));
    let found = store.query(&having(json!({ "id": 20_000 }))).await.unwrap();
    assert_eq!(found.current_context_version, Some(20_000));
    store.close().await.unwrap();
}

/// Users may have put objects of their own on the tables. They are kept, or the migration is refused in
/// words, and then nothing has changed.
#[tokio::test]
async fn a_migration_keeps_what_users_have_added_or_changes_nothing() {
    let kept = [
        "CREATE VIEW my_types AS SELECT sequence_number, event_type FROM events",
        "CREATE INDEX my_index ON events (event_type, occurred_at)",
        "CREATE TABLE my_audit (n bigint);
         CREATE FUNCTION my_audit() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
           INSERT INTO my_audit VALUES (new.sequence_number); RETURN new;
         END $$;
         CREATE TRIGGER my_trigger BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION my_audit()",
        "CREATE TABLE my_children (event bigint REFERENCES events ON DELETE CASCADE);
         INSERT INTO my_children SELECT sequence_number FROM events",
        "ALTER TABLE events ADD COLUMN my_column integer DEFAULT 7",
        "CREATE VIEW my_cursors AS SELECT value FROM store_metadata",
    ];
    let refused = [
        "CREATE VIEW my_notes AS SELECT payload FROM events WHERE event_type = 'note'",
        "CREATE MATERIALIZED VIEW my_items AS SELECT payload ->> 'item_id' AS item FROM events",
        "CREATE INDEX my_items ON events ((payload ->> 'item_id'))",
        "CREATE INDEX my_gin ON events USING gin (payload jsonb_path_ops)",
        "CREATE FUNCTION my_f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
         CREATE TRIGGER my_trigger BEFORE INSERT ON events FOR EACH ROW
           WHEN (new.payload ? 'x') EXECUTE FUNCTION my_f()",
        "ALTER TABLE events ADD COLUMN my_item text GENERATED ALWAYS AS (payload ->> 'item_id') STORED",
        "ALTER TABLE events ADD CONSTRAINT my_check CHECK (jsonb_typeof(payload) <> 'x')",
        "CREATE VIEW my_cursors AS SELECT * FROM durable_stream_cursors",
        "INSERT INTO durable_stream_cursors VALUES ('strange', 'no query', 1)",
    ];
    for statements in kept {
        let schema = Schema::new().with(LEGACY).await;
        let client = schema.client().await;
        client.batch_execute(statements).await.unwrap();
        let mine = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = current_schema() AND c.relname LIKE 'my_%'";
        let before = count(&client, mine).await;
        let store = schema.try_open().await.expect(statements);
        assert_legacy_goes_on(&store).await;
        let next = store.append(note("later")).await.unwrap();
        assert_eq!(next.first_sequence_number, 14);
        store.close().await.unwrap();
        assert_eq!(count(&client, mine).await, before, "{statements}");
        for (table, rows) in [("my_types", 14), ("my_audit", 1), ("my_children", 13)] {
            if statements.contains(&format!("{table} ")) {
                let sql = format!("SELECT count(*) FROM {table}");
                assert_eq!(count(&client, &sql).await, rows, "{statements}");
            }
        }
    }
    for statements in refused {
        let schema = Schema::new().with(LEGACY).await;
        let client = schema.client().await;
        client.batch_execute(statements).await.unwrap();
        let before = dump(&schema).await;
        let error = schema.try_open().await.expect_err(statements);
        let message = format!("{statements}: {error}");
        assert_eq!(error.code(), "StoreFormatUnsupported", "{message}");
        assert!(error.to_string().contains(&schema.name), "{message}");
        assert_eq!(dump(&schema).await, before, "{message}");
    }
}

/// Who may use the tables but does not own them can't migrate them, and is told so.
/// All of it at once: the server names one thing at a time, and an index never.
#[tokio::test]
async fn what_is_in_the_way_of_a_migration_is_named() {
    let schema = Schema::new().with(LEGACY).await;
    let client = schema.client().await;
    let added = "
        CREATE VIEW my_view AS SELECT payload FROM events;
        CREATE MATERIALIZED VIEW my_snapshot AS SELECT payload ->> 'item_id' AS item FROM events;
        CREATE INDEX my_index ON events ((payload ->> 'item_id'));
        CREATE INDEX my_part ON events (event_type) WHERE payload ? 'x';
        ALTER TABLE events ADD CONSTRAINT my_check CHECK (jsonb_typeof(payload) <> 'x');
        CREATE RULE my_rule AS ON INSERT TO events WHERE new.payload ? 'x' DO ALSO NOTHING;
        CREATE VIEW my_cursors AS SELECT * FROM durable_stream_cursors;
        CREATE TABLE my_table (name text CONSTRAINT my_reference REFERENCES durable_stream_cursors);
        ALTER TABLE events ADD COLUMN my_column text GENERATED ALWAYS AS (payload ->> 'item_id') STORED;
        CREATE VIEW his_view AS SELECT event_type FROM events;
        CREATE INDEX his_index ON events (event_type)";
    client.batch_execute(added).await.unwrap();
    let before = dump(&schema).await;
    let error = schema.try_open().await.unwrap_err();
    assert_eq!(error.code(), "StoreFormatUnsupported", "{error}");
    let message = error.to_string();
    for identity in [
        "view {}.my_view",
        "materialized view {}.my_snapshot",
        "index {}.my_index",
        "index {}.my_part",
        "table constraint my_check on {}.events",
        "rule my_rule on {}.events",
        "view {}.my_cursors",
        "table constraint my_reference on {}.my_table",
        "{}.events.my_column",
    ] {
        let identity = identity.replace("{}", &schema.quoted());
        assert!(message.contains(&identity), "{identity}: {message}");
    }
    for other in ["his_", "idx_", "pkey", "not_null"] {
        assert!(!message.contains(other), "{other}: {message}");
    }
    assert_eq!(dump(&schema).await, before);

    // Alone, an index is not told by the server.
    for statement in [
        "CREATE INDEX my_index ON events ((payload ->> 'x'))",
        "CREATE INDEX my_gin ON events USING gin (payload jsonb_path_ops)",
    ] {
        let schema = Schema::new().with(LEGACY).await;
        let client = schema.client().await;
        client.batch_execute(statement).await.unwrap();
        let error = schema.try_open().await.unwrap_err().to_string();
        let name = statement.split(' ').nth(2).unwrap();
        assert!(
            error.contains(&format!("index {}.{name}", schema.quoted())),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_migration_needs_the_owner() {
    let schema = Schema::new().with(LEGACY).await;
    let role = Role::new().await;
    let grant = format!(
        "GRANT USAGE, CREATE ON SCHEMA {0} TO {1};
         GRANT ALL ON ALL TABLES IN SCHEMA {0} TO {1}",
        schema.quoted(),
        quoted(&role.name)
    );
    sql(&grant).await;
    let before = dump(&schema).await;
    let refused = PostgresStore::connect_with(&role.url(None), schema.options()).await;
    let error = refused.unwrap_err();
    assert_eq!(error.code(), "BackendFailure");
    assert!(error.to_string().contains("must be owner"), "{error}");
    assert_eq!(dump(&schema).await, before);
    schema.open().await.close().await.unwrap();
}
