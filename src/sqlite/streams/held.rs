//! Cursors and leases on their way to the file.

use rusqlite::Connection;

use super::leases;
use crate::delivery::{HeldLeases, Left, Moved};
use crate::sqlite::failure::Result;

/// Gives this lease back, if that is still to be done, before it is taken anew.
pub(super) fn release_late(held: &HeldLeases, connection: &Connection, name: &str) -> Result<()> {
    if let Some(Left { fencing, position }) = held.unreleased(name) {
        leases::release(connection, held.owner, name, fencing, position)?;
    }
    Ok(())
}

/// Stores the cursors that have moved, in a transaction that may still fail.
pub(in crate::sqlite) fn store_moved<'l>(
    held: &'l HeldLeases,
    connection: &Connection,
) -> StoredCursors<'l> {
    let mut stored = StoredCursors {
        held,
        moved: held.take_moved(),
        lost: Vec::new(),
        failed: false,
    };
    if let Err(error) = stored.write(connection) {
        tracing::warn!(%error, "the cursors and leases of streams could not be stored");
        stored.failed = true;
    }
    stored
}

/// Those that the file says are somebody else's by now end.
pub(super) fn check(held: &HeldLeases, connection: &Connection) -> Result<()> {
    for lease in held.all() {
        let sql = "SELECT 1 FROM durable_streams
                   WHERE name = ?1 AND owner = ?2 AND fencing = ?3";
        let arguments = rusqlite::params![lease.name(), held.owner, lease.fencing()];
        if !connection.prepare_cached(sql)?.exists(arguments)? {
            lease.lose();
        }
    }
    Ok(())
}

/// Cursors written in a transaction. They count once it is committed.
pub(in crate::sqlite) struct StoredCursors<'l> {
    held: &'l HeldLeases,
    moved: Moved,
    /// Places among those that have moved.
    lost: Vec<usize>,
    failed: bool,
}

impl StoredCursors<'_> {
    fn write(&mut self, connection: &Connection) -> Result<()> {
        let owner = self.held.owner;
        for (name, Left { fencing, position }) in &self.moved.unreleased {
            // If it is somebody else's by now, there is nothing to be given back either.
            leases::release(connection, owner, name, *fencing, *position)?;
        }
        for (place, lease) in self.moved.leases.iter().enumerate() {
            if let Some(position) = lease.cursor()
                && !leases::store(connection, owner, lease.name(), lease.fencing(), position)?
            {
                self.lost.push(place);
            }
        }
        Ok(())
    }

    /// What was not stored will be with the next ones.
    pub(in crate::sqlite) fn end(self, committed: bool) {
        let Moved { leases, unreleased } = self.moved;
        if !committed || self.failed {
            self.held.put_back(leases);
            return;
        }
        for (name, left) in unreleased {
            self.held.taken_back(&name, left);
        }
        for place in self.lost {
            leases[place].lose();
        }
    }
}
