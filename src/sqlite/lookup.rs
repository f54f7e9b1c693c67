use std::cell::RefCell;
use std::time::Instant;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row};

use super::failure::{Result, refuse_late};

/// Rows of one table by their id, by a statement that is prepared once.
///
/// A selective query is little else than some twenty of these.
pub(super) struct Lookup<'c> {
    connection: &'c Connection,
    sql: &'static str,
    statement: RefCell<Option<CachedStatement<'c>>>,
    /// A lookup after it fails.
    deadline: Option<Instant>,
}

impl<'c> Lookup<'c> {
    pub(super) fn events(connection: &'c Connection, deadline: Option<Instant>) -> Self {
        Self::new(connection, include_str!("sql/event.sql"), deadline)
    }

    pub(super) fn blocks(connection: &'c Connection, deadline: Option<Instant>) -> Self {
        Self::new(connection, include_str!("sql/block.sql"), deadline)
    }

    fn new(connection: &'c Connection, sql: &'static str, deadline: Option<Instant>) -> Self {
        Self {
            connection,
            sql,
            statement: RefCell::new(None),
            deadline,
        }
    }

    /// Fails once it is too late, for those who have found elsewhere what they looked for.
    pub(super) fn refuse_late(&self) -> Result<()> {
        refuse_late(self.deadline)
    }

    /// Takes something from the row with this id, if there is one.
    pub(super) fn get<T>(
        &self,
        id: i64,
        take: impl FnOnce(&Row) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        refuse_late(self.deadline)?;
        let mut statement = self.statement.borrow_mut();
        if statement.is_none() {
            *statement = Some(self.connection.prepare_cached(self.sql)?);
        }
        match statement.as_mut() {
            Some(statement) => Ok(statement.query_row([id], take).optional()?),
            None => Ok(None),
        }
    }
}
