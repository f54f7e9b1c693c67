//! Which format a schema has, and the way from each to the newest.
//!
//! - Format 1 is what the crate factstr-postgres 0.5.2 wrote: payloads as jsonb with a GIN index.
//! - Format 2 is [`schema.sql`](sql/schema.sql) and [`postings.sql`](sql/postings.sql).
//!
//! The functions have a revision of their own: the newest one serves every version of the format.

use std::sync::atomic::Ordering;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, IsolationLevel, Row};

use super::backend::{Backend, Result};
use super::connect::{ConnectionEvent, Failure, Session};
use super::group::StoredPostings;
use super::statements::Statements;
use crate::contract::EventStoreError;
use crate::payload::{filters_of_stored_query, stored_facets};

/// The format that this version writes.
const NEWEST: i64 = 2;
/// The revision of the functions. To be raised with every change of theirs. They name their schema, so those of a
/// schema that was renamed since are of no revision.
const FUNCTIONS: i64 = 5;
/// The oldest server, as `server_version_num`.
const OLDEST_SERVER: i32 = 130_000;
/// Events of one step of building an index; below 1024 events the rows of postings would be short.
const STEP: i64 = 4_096;

const TABLES: [&str; 8] = [
    "events",
    "append_batches",
    "store_metadata",
    "durable_stream_cursors",
    "event_postings",
    "append_groups",
    "durable_streams",
    "stream_stores",
];

/// What a schema holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// None of a store's tables; whether the schema exists.
    Empty(bool),
    Known {
        format: i64,
        functions: i64,
    },
}

/// Creates what is missing, and migrates an older format. Many may do so at once.
pub(super) async fn open(backend: &Backend) -> Result<()> {
    let opened = backend.retry(|| open_once(backend));
    opened.await.map_err(EventStoreError::from)
}

async fn open_once(backend: &Backend) -> std::result::Result<(), Failure> {
    let mut session = match backend.connections.connect_directly(log).await? {
        Some(session) => {
            backend.own_sessions.store(true, Ordering::Relaxed);
            session
        }
        None => backend.connections.connect_dedicated(log).await?.0,
    };
    let statements = &backend.statements;
    let looking = async {
        check_server(&session).await?;
        format(&session, statements).await
    };
    if is_newest(&backend.connections.promptly(&session, looking).await?) {
        return Ok(());
    }
    // No timeout: a large store takes its time to be migrated.
    let brought = bring_up_to_date(&mut session, statements).await;
    brought.map_err(|refusal| match refusal {
        Refusal::Statement(error) => session.failure(&error),
        Refusal::Store(error) => error.into(),
    })
}

fn log(event: ConnectionEvent) {
    if let ConnectionEvent::Ended(Some(failure)) = event {
        tracing::debug!(%failure, "the connection ended");
    }
}

enum Refusal {
    Statement(tokio_postgres::Error),
    Store(EventStoreError),
}

impl From<tokio_postgres::Error> for Refusal {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Statement(error)
    }
}

impl From<EventStoreError> for Refusal {
    fn from(error: EventStoreError) -> Self {
        Self::Store(error)
    }
}

fn unsupported(message: String) -> EventStoreError {
    EventStoreError::StoreFormatUnsupported(message)
}

fn is_newest(format: &Format) -> bool {
    matches!(format, Format::Known { format: NEWEST, functions } if *functions >= FUNCTIONS)
}

async fn check_server(session: &Session) -> std::result::Result<(), Failure> {
    let sql = "SELECT current_setting('server_version_num')::integer,
                 current_setting('server_version'), current_setting('server_encoding')";
    let rows = session.query_typed(sql, &[]).await;
    let rows = rows.map_err(|error| session.failure(&error))?;
    let Some(row) = rows.first() else {
        return Ok(());
    };
    let (number, version, encoding): (i32, &str, &str) = (row.get(0), row.get(1), row.get(2));
    if number < OLDEST_SERVER {
        return Err(unsupported(format!(
            "the server is PostgreSQL {version}; the oldest that serves a store is 13"
        ))
        .into());
    }
    if encoding != "UTF8" {
        return Err(unsupported(format!(
            "the database has the encoding {encoding}; a store needs UTF8"
        ))
        .into());
    }
    Ok(())
}

/// Tells the format, and refuses what is newer or no event store. Changes nothing.
async fn format(
    session: &Session,
    statements: &Statements,
) -> std::result::Result<Format, Failure> {
    let read = read_format(&***session, statements).await;
    read.map_err(|refusal| match refusal {
        Refusal::Statement(error) => session.failure(&error),
        Refusal::Store(error) => error.into(),
    })
}

async fn read_format(
    client: &impl GenericClient,
    statements: &Statements,
) -> std::result::Result<Format, Refusal> {
    let schema = &statements.name;
    let sql = "SELECT n.oid IS NOT NULL, coalesce(array_agg(c.relname::text) FILTER (
                 WHERE c.relname = ANY ($2) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')), '{}')
               FROM (SELECT 1) one LEFT JOIN pg_namespace n ON n.nspname = $1
               LEFT JOIN pg_class c ON c.relnamespace = n.oid GROUP BY n.oid";
    let tables: Vec<&str> = TABLES.to_vec();
    let arguments = [
        (
            schema as &(dyn tokio_postgres::types::ToSql + Sync),
            Type::TEXT,
        ),
        (&tables, Type::TEXT_ARRAY),
    ];
    let rows = client.query_typed(sql, &arguments).await?;
    let (exists, found): (bool, Vec<String>) = rows
        .first()
        .map_or((false, Vec::new()), |row| (row.get(0), row.get(1)));
    if found.is_empty() {
        return Ok(Format::Empty(exists));
    }
    let has = |table: &str| found.iter().any(|name| name == table);
    if !["events", "append_batches", "store_metadata"]
        .iter()
        .all(|table| has(table))
    {
        return Err(unsupported(format!(
            "the schema {} is no event store, and has a table of the name '{}'; give the store a \
             schema of its own",
            statements.schema, found[0]
        ))
        .into());
    }
    let sql = statements.with_schema(
        "SELECT max(value::text) FILTER (WHERE key::text = 'store_format_version'),
           max(value::text) FILTER (WHERE key::text = 'functions_revision'),
           max(value::text) FILTER (WHERE key::text = 'functions_schema')
         FROM {schema}.store_metadata",
    );
    let rows = match client.query_typed(&sql, &[]).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_COLUMN) => {
            return Err(unsupported(format!(
                "the schema {} is no event store, and has tables with the names of one; give the store \
                 a schema of its own",
                statements.schema
            ))
            .into());
        }
        rows => rows?,
    };
    let number = |index: usize| -> Option<i64> {
        let text: Option<&str> = rows.first()?.get(index);
        text?.parse().ok()
    };
    let Some(format) = number(0) else {
        return Err(unsupported(format!(
            "the schema {} does not tell its store format",
            statements.schema
        ))
        .into());
    };
    if !(1..=NEWEST).contains(&format) {
        return Err(unsupported(format!(
            "the store has format {format}, this version reads up to format {NEWEST}"
        ))
        .into());
    }
    let mut functions = number(1).unwrap_or(0);
    let made_for: Option<&str> = rows.first().and_then(|row| row.get(2));
    if made_for != Some(schema) {
        if let Some(former) = made_for
            && functions > FUNCTIONS
        {
            return Err(unsupported(format!(
                "the schema {} was named '{former}', and its functions are of a newer release: open the \
                 store with that release once",
                statements.schema
            ))
            .into());
        }
        functions = 0;
    }
    Ok(Format::Known { format, functions })
}

async fn bring_up_to_date(
    session: &mut Session,
    statements: &Statements,
) -> std::result::Result<(), Refusal> {
    // After the lock, what others have committed while it was waited for must be seen.
    let transaction = session
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await?;
    // One at a time, whatever the schema: a lock that no table is needed for.
    transaction
        .batch_execute("SELECT pg_advisory_xact_lock(1717658484, 0)")
        .await?;
    let client: &tokio_postgres::Transaction<'_> = &transaction;
    // Another process may have been faster.
    let found = read_format(client, statements).await?;
    if is_newest(&found) {
        return Ok(());
    }
    let run = async |sql: &str| client.batch_execute(&statements.with_schema(sql)).await;
    match found {
        Format::Empty(exists) => {
            if !exists {
                run("CREATE SCHEMA {schema}").await?;
            }
            run(include_str!("sql/schema.sql")).await?;
            run(include_str!("sql/postings.sql")).await?;
        }
        Format::Known { format: 1, .. } => {
            // After an error nothing can be asked any more.
            let dependents = dependents(client, statements).await?;
            let in_the_way = |error| in_the_way(error, statements, &dependents);
            run(include_str!("sql/from_1.sql"))
                .await
                .map_err(in_the_way)?;
            run(include_str!("sql/postings.sql")).await?;
            index_all(client, statements).await?;
            take_over_cursors(client, statements).await?;
            run("DROP TABLE {schema}.durable_stream_cursors")
                .await
                .map_err(in_the_way)?;
        }
        Format::Known { .. } => {}
    }
    run(include_str!("sql/functions.sql")).await?;
    run(include_str!("sql/stream_functions.sql")).await?;
    let sql = format!(
        "INSERT INTO {{schema}}.store_metadata (key, value)
         VALUES ('store_format_version', '{NEWEST}'), ('functions_revision', '{FUNCTIONS}'),
           ('functions_schema', $1)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    );
    client
        .query_typed(
            &statements.with_schema(&sql),
            &[(&statements.name, Type::TEXT)],
        )
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// What of the users' depends on what the migration from format 1 changes. It may be in the way, or not.
async fn dependents(
    client: &tokio_postgres::Transaction<'_>,
    statements: &Statements,
) -> std::result::Result<Vec<String>, Refusal> {
    let sql = statements.with_schema(include_str!("sql/dependents_of_1.sql"));
    let rows = client.query_typed(&sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What users have put on a table may depend on what a migration changes.
fn in_the_way(
    error: tokio_postgres::Error,
    statements: &Statements,
    dependents: &[String],
) -> Refusal {
    let Some(told) = error.as_db_error() else {
        return error.into();
    };
    // The first two characters are the class: not supported, dependent objects, wrong types.
    let code = told.code().code();
    if *told.code() == SqlState::INSUFFICIENT_PRIVILEGE || !["0A", "2B", "42"].contains(&&code[..2])
    {
        return error.into();
    }
    let detail = told.detail().map(|detail| format!(": {detail}"));
    let dependents = match dependents {
        [] => String::new(),
        dependents => format!(" ({})", dependents.join(", ")),
    };
    unsupported(format!(
        "the schema {}, which factstr-postgres 0.5.2 wrote, can't be migrated, and is left as it was: {}{} \
         (SQLSTATE {code}). Drop what depends on durable_stream_cursors, or on the events' payload as \
         jsonb, first{dependents}; the view facts will show it",
        statements.schema,
        told.message(),
        detail.unwrap_or_default()
    ))
    .into()
}

/// Writes the postings of all events.
async fn index_all(
    client: &tokio_postgres::Transaction<'_>,
    statements: &Statements,
) -> std::result::Result<(), Refusal> {
    let read = statements.with_schema(
        "SELECT sequence_number, event_type, payload_json FROM {schema}.events
         WHERE sequence_number > $1 ORDER BY sequence_number LIMIT $2",
    );
    let write = statements.with_schema(
        "INSERT INTO {schema}.event_postings (facet, sequence_number, before)
         SELECT p.facet, $4 + p.last, p.before::integer[]
         FROM unnest($1::bigint[], $2::integer[], $3::text[]) p (facet, last, before)",
    );
    let mut after = 0_i64;
    let mut postings = StoredPostings::default();
    let mut facets = Vec::new();
    loop {
        let rows: Vec<Row> = client
            .query_typed(&read, &[(&after, Type::INT8), (&STEP, Type::INT8)])
            .await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        let last: i64 = last.get(0);
        for row in &rows {
            stored_facets(row.get(1), row.get(2), &mut facets);
            postings.add((row.get::<_, i64>(0) - after) as i32, &facets);
        }
        let (facets, lasts, befores) = postings.take_rows();
        client
            .query_typed(
                &write,
                &[
                    (&facets, Type::INT8_ARRAY),
                    (&lasts, Type::INT4_ARRAY),
                    (&befores, Type::TEXT_ARRAY),
                    (&after, Type::INT8),
                ],
            )
            .await?;
        after = last;
    }
}

/// Cursors of factstr-postgres 0.5.2 become streams.
async fn take_over_cursors(
    client: &tokio_postgres::Transaction<'_>,
    statements: &Statements,
) -> std::result::Result<(), Refusal> {
    let read = statements.with_schema(
        "SELECT durable_stream_id, event_query, least(last_processed_sequence_number,
           (SELECT coalesce(max(sequence_number), 0) FROM {schema}.events))
         FROM {schema}.durable_stream_cursors",
    );
    let write = statements.with_schema(
        "INSERT INTO {schema}.durable_streams (name, filters, position, fencing) VALUES ($1, $2, $3, 0)",
    );
    for row in client.query_typed(&read, &[]).await? {
        let (name, query, position): (&str, &str, i64) = (row.get(0), row.get(1), row.get(2));
        let filters = filters_of_stored_query(query).ok_or_else(|| {
            unsupported(format!(
                "the schema {} can't be migrated: the query of its durable stream '{name}' can't be \
                 read",
                statements.schema
            ))
        })?;
        client
            .query_typed(
                &write,
                &[
                    (&name, Type::TEXT),
                    (&filters, Type::TEXT),
                    (&position, Type::INT8),
                ],
            )
            .await?;
    }
    Ok(())
}
