//! Which format a file has, and the way from each to the newest.
//!
//! - Format 1 is what the crate factstr-sqlite 0.5.2 wrote: times as text, full indexes on type and
//!   time, no facet index.
//! - Format 2 is [`schema.sql`](sql/schema.sql) and [`index.sql`](sql/index.sql).
//! - Format 3 adds [`streams.sql`](sql/streams.sql).

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::failure::Result;
use crate::contract::EventStoreError;
use crate::payload::filters_of_stored_query;

/// The format that this version writes.
const NEWEST: i64 = 3;
/// "fact" in ASCII: tells the file type in SQLite's header.
const APPLICATION_ID: i64 = 0x6661_6374;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Empty,
    Known(i64),
}

impl Format {
    /// For a store that must not be written to.
    pub(super) fn refuse_migration(self) -> Result<()> {
        match self {
            Self::Known(NEWEST) => Ok(()),
            Self::Known(older) => Err(unsupported(format!(
                "the store has format {older}; open it once without readOnly to migrate it to \
                 format {NEWEST}"
            ))),
            Self::Empty => Err(unsupported(
                "the database is empty, it is no event store".into(),
            )),
        }
    }
}

fn unsupported(message: String) -> EventStoreError {
    EventStoreError::StoreFormatUnsupported(message)
}

/// Tells the format, and refuses what is newer or no event store. Changes nothing.
pub(super) fn check(connection: &Connection) -> Result<Format> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (user_version, application_id) = (pragma("user_version")?, pragma("application_id")?);
    let mut statement = connection.prepare("SELECT name, type FROM sqlite_schema")?;
    let objects: Vec<(String, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    if objects.is_empty() && user_version == 0 && application_id == 0 {
        return Ok(Format::Empty);
    }
    let ours = [
        "events",
        "append_batches",
        "store_metadata",
        "subscriber_cursors",
    ];
    if !ours.iter().all(|&table| {
        objects
            .iter()
            .any(|(name, kind)| name == table && kind == "table")
    }) {
        return Err(unsupported("the database is no event store".to_owned()));
    }
    let recorded: Option<String> = connection
        .query_row(
            "SELECT value FROM store_metadata WHERE key = 'store_format_version'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    let Some(format) = recorded.and_then(|version| version.parse::<i64>().ok()) else {
        return Err(unsupported(
            "the database does not tell its store format".to_owned(),
        ));
    };
    let format = format.max(user_version);
    if !(1..=NEWEST).contains(&format) {
        return Err(unsupported(format!(
            "the store has format {format}, this version reads up to format {NEWEST}"
        )));
    }
    Ok(Format::Known(format))
}

/// Creates the tables of an empty file, migrates an older one.
pub(super) fn bring_up_to_date(connection: &mut Connection) -> Result<()> {
    if check(connection)? == Format::Known(NEWEST) {
        return Ok(());
    }
    // A table that takes another one's place must do so by its name alone: what users' views, triggers
    // and foreign keys say is not to be rewritten, checked or acted on. Not to be set in a transaction.
    let foreign_keys: bool =
        connection.pragma_query_value(None, "foreign_keys", |row| row.get(0))?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "legacy_alter_table", true)?;
    migrate(connection)?;
    connection.pragma_update(None, "legacy_alter_table", false)?;
    connection.pragma_update(None, "foreign_keys", foreign_keys)?;
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    match check(&transaction)? {
        Format::Known(NEWEST) => return Ok(()),
        Format::Known(older) => {
            if older == 1 {
                migrate_from_1(&transaction)?;
            }
            migrate_from_2(&transaction)?;
        }
        Format::Empty => {
            transaction.execute_batch(include_str!("sql/schema.sql"))?;
            transaction.execute_batch(include_str!("sql/index.sql"))?;
            transaction.execute_batch(include_str!("sql/streams.sql"))?;
        }
    }
    transaction.execute(
        "INSERT INTO store_metadata (key, value) VALUES ('store_format_version', ?1)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [NEWEST.to_string()],
    )?;
    transaction.pragma_update(None, "user_version", NEWEST)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()?;
    Ok(())
}

/// Rewrites the events with times as microseconds. Sequence numbers, batches, payloads and cursors
/// stay as they are, and so does what users have added.
fn migrate_from_1(transaction: &Transaction) -> Result<()> {
    let added_by_users: Vec<String> = transaction
        .prepare(
            "SELECT sql FROM sqlite_schema
             WHERE type IN ('index', 'trigger') AND tbl_name = 'events' COLLATE NOCASE
             AND sql IS NOT NULL AND name NOT IN ('idx_events_type', 'idx_events_occurred_at')
             ORDER BY rowid",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    transaction.execute_batch(include_str!("sql/from_1_before.sql"))?;
    {
        let mut read = transaction.prepare(
            "SELECT sequence_number, occurred_at, event_type, payload FROM events
             ORDER BY sequence_number",
        )?;
        let mut write = transaction.prepare(
            "INSERT INTO factstr_new_events (sequence_number, occurred_at, event_type, payload)
             VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut rows = read.query([])?;
        let mut before = 0_u64;
        while let Some(row) = rows.next()? {
            let sequence_number: u64 = row.get(0)?;
            if sequence_number != before + 1 {
                return Err(unsupported(format!(
                    "the log has a gap after sequence number {before}, it can't be migrated"
                )));
            }
            before = sequence_number;
            let event_type = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
            let payload = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
            let occurred_at = micros(&row.get::<_, String>(1)?).ok_or_else(|| {
                unsupported(format!("the time of event {sequence_number} can't be read"))
            })?;
            write.execute(params![sequence_number, occurred_at, event_type, payload])?;
        }
    }
    transaction.execute_batch(include_str!("sql/from_1_after.sql"))?;
    for sql in added_by_users {
        transaction.execute_batch(&sql)?;
    }
    transaction.execute_batch(include_str!("sql/index.sql"))?;
    Ok(())
}

/// Adds durable streams. Cursors of factstr-sqlite 0.5.2 become streams; their own table stays as it is.
fn migrate_from_2(transaction: &Transaction) -> Result<()> {
    transaction.execute_batch(include_str!("sql/streams.sql"))?;
    let mut read = transaction.prepare(
        "SELECT subscriber_id, event_query,
           min(last_processed_sequence_number, (SELECT coalesce(max(sequence_number), 0) FROM events))
         FROM subscriber_cursors",
    )?;
    let mut write = transaction.prepare(
        "INSERT INTO durable_streams (name, filters, position, owner, fencing)
         VALUES (?1, ?2, ?3, NULL, 0)",
    )?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let (name, query, position): (String, String, u64) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let filters = filters_of_stored_query(&query).ok_or_else(|| {
            unsupported(format!(
                "the query of the durable stream '{name}' can't be read"
            ))
        })?;
        write.execute(params![name, filters, position])?;
    }
    Ok(())
}

fn micros(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000).ok()
}
