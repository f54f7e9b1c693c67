//! Reading whole batches back for streams.

use rusqlite::{Connection, OptionalExtension};

use crate::delivery::{BatchPage, BatchRequest, Borders, read_page};
use crate::sqlite::failure::Result;
use crate::sqlite::snapshot::LogSnapshot;

pub(super) fn read(snapshot: &mut LogSnapshot, request: &BatchRequest) -> Result<BatchPage> {
    let mut borders = StoredBorders {
        connection: snapshot.connection,
        known: None,
    };
    read_page(snapshot, &mut borders, request)
}

/// The end of the batch that contains `after`, if `after` is that, else the end of the one before.
pub(super) fn border_at_or_before(connection: &Connection, after: u64) -> Result<u64> {
    if after == 0 {
        return Ok(0);
    }
    let known = None;
    let (first, last) = StoredBorders { connection, known }.batch_of(after)?;
    Ok(if after == last { after } else { first - 1 })
}

/// Batches of one event have no row, so the borders of many are known at once.
struct StoredBorders<'c> {
    connection: &'c Connection,
    known: Option<Known>,
}

#[derive(Clone, Copy)]
struct Known {
    first: u64,
    last: u64,
    /// One batch, or else each event is one.
    together: bool,
}

impl Borders for StoredBorders<'_> {
    fn batch_of(&mut self, sequence_number: u64) -> Result<(u64, u64)> {
        let known = match self.known {
            Some(known) if (known.first..=known.last).contains(&sequence_number) => known,
            _ => self.look_up(sequence_number)?,
        };
        self.known = Some(known);
        Ok(if known.together {
            (known.first, known.last)
        } else {
            (sequence_number, sequence_number)
        })
    }
}

impl StoredBorders<'_> {
    fn look_up(&self, sequence_number: u64) -> Result<Known> {
        let before: Option<(u64, u64)> = self
            .connection
            .prepare_cached(
                "SELECT first_sequence_number, last_sequence_number FROM append_batches
                 WHERE first_sequence_number <= ?1 ORDER BY first_sequence_number DESC LIMIT 1",
            )?
            .query_row([sequence_number], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (first, last) = before.unwrap_or((0, 0));
        if sequence_number <= last {
            return Ok(Known {
                first,
                last,
                together: true,
            });
        }
        let next: Option<u64> = self
            .connection
            .prepare_cached(
                "SELECT min(first_sequence_number) FROM append_batches
                 WHERE first_sequence_number > ?1",
            )?
            .query_row([sequence_number], |row| row.get(0))?;
        Ok(Known {
            first: last + 1,
            last: next.map_or(u64::MAX, |next| next - 1),
            together: false,
        })
    }
}
