//! The rows of `durable_streams` and `stream_owners`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

use super::batches::border_at_or_before;
use crate::contract::{DurableStreamInfo, EventStoreError};
use crate::payload::{CompiledQuery, canonical_filters, filters_to_query};
use crate::sqlite::failure::Result;

/// A holder without a sign of life for this long is gone.
const EXPIRES_AFTER: Duration = Duration::from_secs(4);
/// Rows of holders that are gone are removed after this long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// What a lease was taken with.
pub(super) struct TakenRow {
    pub(super) fencing: i64,
    pub(super) position: u64,
    pub(super) head: u64,
}

struct StreamRow {
    filters: String,
    position: u64,
    owner: Option<i64>,
    fencing: i64,
    alive: bool,
}

fn now_in_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

fn millis(duration: Duration) -> i64 {
    duration.as_millis() as i64
}

/// `mine`: whether this store runs the stream, which its own rows can't tell.
fn look(connection: &Connection, name: &str, owner: i64, mine: bool) -> Result<Option<StreamRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT filters, position, owner, fencing,
           (SELECT abs(?2 - touched_at) < ?3 FROM stream_owners AS o WHERE o.owner = s.owner)
         FROM durable_streams AS s WHERE name = ?1",
    )?;
    let arguments = params![name, now_in_millis(), millis(EXPIRES_AFTER)];
    let row = statement.query_row(arguments, |row| {
        let held_by: Option<i64> = row.get(2)?;
        let alive: Option<bool> = row.get(4)?;
        Ok(StreamRow {
            filters: row.get(0)?,
            position: row.get(1)?,
            owner: held_by,
            fencing: row.get(3)?,
            alive: if held_by == Some(owner) {
                mine
            } else {
                alive.unwrap_or(false)
            },
        })
    });
    Ok(row.optional()?)
}

fn refuse_active(row: &StreamRow, name: &str) -> Result<()> {
    if row.alive {
        return Err(EventStoreError::DurableStreamActive(name.to_owned()));
    }
    Ok(())
}

/// Tells without a lock whether the lease can't be had.
pub(super) fn refuse_taken(
    connection: &Connection,
    owner: i64,
    mine: bool,
    name: &str,
    query: &CompiledQuery,
) -> Result<()> {
    let Some(row) = look(connection, name, owner, mine)? else {
        return Ok(());
    };
    if canonical_filters(&row.filters) != query.canonical_text() {
        let name = name.to_owned();
        return Err(EventStoreError::DurableStreamQueryMismatch(name));
    }
    refuse_active(&row, name)
}

/// Takes the lease; creates the stream if it is missing. In a transaction.
pub(super) fn take(
    connection: &Connection,
    owner: i64,
    mine: bool,
    name: &str,
    query: &CompiledQuery,
) -> Result<TakenRow> {
    refuse_taken(connection, owner, mine, name, query)?;
    touch(connection, owner)?;
    let before = look(connection, name, owner, mine)?;
    let (fencing, position) = match before {
        Some(row) => (row.fencing + 1, row.position),
        // Larger than any number that a stream of this name has had, should one have been deleted.
        None => (now_in_millis(), 0),
    };
    let mut statement = connection.prepare_cached(
        "INSERT INTO durable_streams (name, filters, position, owner, fencing)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, fencing = excluded.fencing",
    )?;
    statement.execute(params![name, query.text(), position, owner, fencing])?;
    Ok(TakenRow {
        fencing,
        position,
        head: head(connection)?,
    })
}

fn head(connection: &Connection) -> Result<u64> {
    let sql = "SELECT coalesce(max(sequence_number), 0) FROM events";
    Ok(connection
        .prepare_cached(sql)?
        .query_row([], |row| row.get(0))?)
}

/// Whether others may have thought this store gone since its last sign of life.
pub(super) fn has_been_silent(connection: &Connection, owner: i64) -> Result<bool> {
    let sql = "SELECT 1 FROM stream_owners WHERE owner = ?1 AND abs(?2 - touched_at) < ?3";
    let arguments = [owner, now_in_millis(), millis(EXPIRES_AFTER)];
    Ok(!connection.prepare_cached(sql)?.exists(arguments)?)
}

/// Gives a sign of life.
pub(super) fn touch(connection: &Connection, owner: i64) -> Result<()> {
    let now = now_in_millis();
    let sql = "INSERT INTO stream_owners (owner, touched_at) VALUES (?1, ?2)
               ON CONFLICT (owner) DO UPDATE SET touched_at = excluded.touched_at";
    connection.prepare_cached(sql)?.execute([owner, now])?;
    let sql = "DELETE FROM stream_owners WHERE abs(?1 - touched_at) > ?2";
    connection
        .prepare_cached(sql)?
        .execute([now, millis(FORGOTTEN_AFTER)])?;
    Ok(())
}

/// Stores a cursor. `false`: the lease is somebody else's.
pub(super) fn store(
    connection: &Connection,
    owner: i64,
    name: &str,
    fencing: i64,
    position: u64,
) -> Result<bool> {
    let sql = "UPDATE durable_streams SET position = ?4
               WHERE name = ?1 AND owner = ?2 AND fencing = ?3";
    let arguments = params![name, owner, fencing, position];
    Ok(connection.prepare_cached(sql)?.execute(arguments)? == 1)
}

/// Stores the last cursor and gives the lease back; if it was given back already and nobody has taken it
/// since, stores a later cursor. `false`: it is somebody else's.
pub(super) fn release(
    connection: &Connection,
    owner: i64,
    name: &str,
    fencing: i64,
    position: u64,
) -> Result<bool> {
    let sql = "UPDATE durable_streams SET position = max(position, ?4), owner = NULL
               WHERE name = ?1 AND fencing = ?3 AND (owner = ?2 OR owner IS NULL)";
    let arguments = params![name, owner, fencing, position];
    Ok(connection.prepare_cached(sql)?.execute(arguments)? == 1)
}

/// Gives back whatever is left.
pub(super) fn release_all(connection: &Connection, owner: i64) -> Result<()> {
    let sql = "UPDATE durable_streams SET owner = NULL WHERE owner = ?1";
    connection.prepare_cached(sql)?.execute([owner])?;
    let sql = "DELETE FROM stream_owners WHERE owner = ?1";
    connection.prepare_cached(sql)?.execute([owner])?;
    Ok(())
}

/// All durable streams, by name. `is_mine`: whether this store runs the one of this name.
pub(super) fn list(
    connection: &Connection,
    owner: i64,
    is_mine: impl Fn(&str) -> bool,
) -> Result<Vec<DurableStreamInfo>> {
    let head = Some(head(connection)?).filter(|&head| head > 0);
    let mut statement =
        connection.prepare_cached("SELECT name FROM durable_streams ORDER BY name")?;
    let names: Vec<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut listed = Vec::with_capacity(names.len());
    for name in names {
        if let Some(row) = look(connection, &name, owner, is_mine(&name))? {
            listed.push(DurableStreamInfo {
                query: filters_to_query(&row.filters),
                position: row.position,
                head_sequence_number: head,
                active: row.owner.is_some() && row.alive,
                name,
            });
        }
    }
    Ok(listed)
}

fn inactive(connection: &Connection, owner: i64, mine: bool, name: &str) -> Result<()> {
    let row = look(connection, name, owner, mine)?;
    let row = row.ok_or_else(|| EventStoreError::DurableStreamNotFound(name.to_owned()))?;
    refuse_active(&row, name)
}

/// Moves an inactive stream's cursor. In a transaction.
pub(super) fn reset(
    connection: &Connection,
    owner: i64,
    mine: bool,
    name: &str,
    after: u64,
) -> Result<()> {
    inactive(connection, owner, mine, name)?;
    let head = head(connection)?;
    if after > head {
        return Err(EventStoreError::InvalidOptions(format!(
            "after: {after} is beyond the newest sequence number, {head}"
        )));
    }
    let position = border_at_or_before(connection, after)?;
    // A holder that is only thought to be gone must not write its cursor over this one.
    let sql = "UPDATE durable_streams SET position = ?2, owner = NULL, fencing = fencing + 1
               WHERE name = ?1";
    connection
        .prepare_cached(sql)?
        .execute(params![name, position])?;
    Ok(())
}

/// Forgets an inactive stream. In a transaction.
pub(super) fn delete(connection: &Connection, owner: i64, mine: bool, name: &str) -> Result<()> {
    inactive(connection, owner, mine, name)?;
    connection
        .prepare_cached("DELETE FROM durable_streams WHERE name = ?1")?
        .execute([name])?;
    Ok(())
}
