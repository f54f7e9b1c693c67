use std::sync::MutexGuard;

use rusqlite::Connection;

use super::claimed::Claimed;
use super::database::refuse_moved;
use super::failure::Result;

/// The one connection that writes. The caller's own thread may read with it while the writer rests: its
/// page cache is the only one that this store's commits leave warm.
#[derive(Debug)]
pub(super) struct WriteConnection(Claimed<Connection>);

impl WriteConnection {
    pub(super) fn new(connection: Connection) -> Self {
        Self(Claimed::new(connection))
    }

    /// Waits for the connection; it is in no transaction.
    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        let connection = self.0.lock();
        leave_transaction(&connection);
        connection
    }

    /// Takes the connection if nobody uses it; it is in no transaction.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Connection>> {
        let connection = self.0.try_lock()?;
        leave_transaction(&connection);
        Some(connection)
    }
}

/// A user that panicked, or whose `COMMIT` failed, may have left one open.
fn leave_transaction(connection: &Connection) {
    if !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
}

/// Does something in a transaction that other writers wait for.
pub(super) fn in_transaction<T>(
    connection: &Connection,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    refuse_moved(connection)?;
    execute(connection, "BEGIN IMMEDIATE")?;
    let result = work().and_then(|value| {
        execute(connection, "COMMIT")?;
        Ok(value)
    });
    if result.is_err() && !connection.is_autocommit() {
        let _ = execute(connection, "ROLLBACK");
    }
    result
}

/// Like [`in_transaction`], for what a power failure may undo: the next commit flushes it as well.
/// `usual` is the connection's `synchronous` setting.
pub(super) fn without_flush<T>(
    connection: &Connection,
    usual: &str,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let result = in_transaction(connection, || work(connection));
    connection.pragma_update(None, "synchronous", usual)?;
    result
}

pub(super) fn execute(connection: &Connection, sql: &str) -> Result<()> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
