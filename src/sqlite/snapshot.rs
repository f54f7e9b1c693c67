//! One state of the log, seen through a transaction of one connection.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, Row as SqlRow};

use super::cache::Caches;
use super::failure::{Result, damaged_index, refuse_late, too_late};
use super::lookup::Lookup;
use super::runs::{Run, RunSegment, RunSet};
use super::tail::{TailSegment, TailView};
use crate::contract::EventStoreError;
use crate::index::Cursor;
use crate::payload::{CompiledQuery, Facet, stored_facets};
use crate::selection::{Row, Snapshot, Span, walk};

/// More events than this without postings are given postings before a query looks at them.
const MOST_UNINDEXED: u64 = 256;

/// The bytes of payloads that a read with a deadline looks at: what takes longer than the deadline must not
/// begin shortly before.
const MOST_IN_TIME: usize = 64 * 1024;

/// The log as a transaction sees it. Runs cover `(0, indexed_through]`, the tail's view what follows,
/// and the few events that are newer still are looked at one by one.
pub(crate) struct LogSnapshot<'c> {
    pub(super) connection: &'c Connection,
    caches: &'c Caches,
    events: Lookup<'c>,
    blocks: Lookup<'c>,
    /// The head when the transaction began. What comes after it is the transaction's own.
    committed: u64,
    pub(crate) head: u64,
    pub(super) runs: Arc<RunSet>,
    /// Taken before the transaction began, so that it starts no later than the runs end.
    pub(super) tail: TailView,
    /// Whatever takes longer fails.
    deadline: Option<Instant>,
    /// The bytes of payloads that may still be looked at; what has more fails.
    bytes_left: Cell<usize>,
}

/// A contiguous part of the log, and how to find candidates in it.
enum Part<'p> {
    Run(&'p Run),
    Tail(&'p TailSegment),
    Unindexed,
}

impl<'c> LogSnapshot<'c> {
    /// The state that the connection's transaction sees.
    pub(super) fn new(
        connection: &'c Connection,
        caches: &'c Caches,
        head: u64,
        runs: Arc<RunSet>,
        tail: TailView,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            connection,
            caches,
            committed: head,
            events: Lookup::events(connection, deadline),
            blocks: Lookup::blocks(connection, deadline),
            head,
            runs,
            tail,
            deadline,
            bytes_left: Cell::new(deadline.map_or(usize::MAX, |_| MOST_IN_TIME)),
        }
    }

    /// Whether the tail's view reaches back to the runs, as it should.
    fn is_contiguous(&self) -> bool {
        self.tail
            .first()
            .is_none_or(|oldest| oldest.after <= self.runs.indexed_through)
    }

    /// Whether runs and tail cover it but for a few events.
    pub(super) fn is_current(&self) -> bool {
        let unindexed = self.head.saturating_sub(self.covered_through());
        self.is_contiguous() && unindexed <= MOST_UNINDEXED
    }

    /// The last event that has postings.
    pub(super) fn covered_through(&self) -> u64 {
        let newest = self.tail.last().map_or(0, |newest| newest.through());
        newest.max(self.runs.indexed_through)
    }

    /// The parts with their bounds, exclusive and inclusive, ascending and contiguous.
    fn parts(&self) -> Vec<(u64, u64, Part<'_>)> {
        let mut parts = Vec::with_capacity(self.runs.runs.len() + self.tail.len() + 1);
        for run in &self.runs.runs {
            parts.push((run.first - 1, run.last, Part::Run(run)));
        }
        let mut covered = self.runs.indexed_through;
        for segment in &self.tail {
            let through = segment.through();
            if through > covered {
                parts.push((covered, through, Part::Tail(segment)));
                covered = through;
            }
        }
        parts.push((covered, u64::MAX, Part::Unindexed));
        parts
    }

    fn visit_part(
        &self,
        part: &Part,
        query: &CompiledQuery,
        span: Span,
        visitor: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        match part {
            Part::Run(run) => {
                let mut cursor =
                    Cursor::open(&RunSegment::new(self.caches, &self.blocks, run), query)?;
                if matches!(cursor, Cursor::Nothing) {
                    return Ok(ControlFlow::Continue(()));
                }
                if !matches!(cursor, Cursor::Every) {
                    return walk(&mut cursor, span, |candidate| {
                        self.visit_candidate(candidate, query, visitor)
                    });
                }
            }
            Part::Tail(segment) => {
                if let Some(candidates) = segment.candidates(query, span) {
                    for candidate in candidates {
                        if self.visit_candidate(candidate, query, visitor)?.is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    return Ok(ControlFlow::Continue(()));
                }
            }
            Part::Unindexed => {}
        }
        self.scan(query, span, visitor)
    }

    fn visit_candidate(
        &self,
        candidate: u64,
        query: &CompiledQuery,
        visitor: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let may_be_kept = candidate <= self.committed;
        if may_be_kept && let Some(kept) = self.caches.event(candidate) {
            let row = kept.row(candidate);
            refuse_late(self.deadline)?;
            if !self.matches(query, row.event_type, row.payload)? {
                return Ok(ControlFlow::Continue(()));
            }
            return Ok(visitor(row));
        }
        let visited = self.events.get(candidate as i64, |row| {
            Ok(self.visit_row(row, query, &mut |row| {
                if may_be_kept {
                    self.caches.keep_event(&row);
                }
                visitor(row)
            }))
        })?;
        visited.ok_or_else(|| damaged_index(&format!("event {candidate} is missing")))?
    }

    /// Whether an event belongs to the context, if its payload may still be looked at.
    fn matches(&self, query: &CompiledQuery, event_type: &str, payload: &str) -> Result<bool> {
        let left = self.bytes_left.get().checked_sub(payload.len());
        self.bytes_left.set(left.ok_or_else(too_late)?);
        Ok(query.matches(event_type, payload))
    }

    fn visit_row(
        &self,
        row: &SqlRow,
        query: &CompiledQuery,
        visitor: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let (event_type, payload) = (text(row, 2)?, text(row, 3)?);
        if !self.matches(query, event_type, payload)? {
            return Ok(ControlFlow::Continue(()));
        }
        let (sequence_number, occurred_at) = (row.get(0)?, row.get(1)?);
        Ok(visitor(Row {
            sequence_number,
            occurred_at,
            event_type,
            payload,
        }))
    }

    /// Looks at every event of a span.
    fn scan(
        &self,
        query: &CompiledQuery,
        span: Span,
        visitor: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let mut statement = self.connection.prepare_cached(if span.backwards {
            include_str!("sql/events_descending.sql")
        } else {
            include_str!("sql/events_ascending.sql")
        })?;
        let mut rows = statement.query([span.after, span.through])?;
        while let Some(row) = rows.next()? {
            refuse_late(self.deadline)?;
            if self.visit_row(row, query, visitor)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A column of an event.
fn text<'r>(row: &'r SqlRow, column: usize) -> rusqlite::Result<&'r str> {
    let value = row.get_ref(column)?;
    value.as_str().map_err(|_| {
        let at = row.get_ref(0).ok().and_then(|number| number.as_i64().ok());
        let what = format!("event {} is damaged", at.unwrap_or_default());
        rusqlite::Error::FromSqlConversionFailure(column, value.data_type(), what.into())
    })
}

impl Snapshot for LogSnapshot<'_> {
    fn head(&self) -> u64 {
        self.head
    }

    fn visit(
        &mut self,
        query: &CompiledQuery,
        span: Span,
        visitor: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> std::result::Result<(), EventStoreError> {
        let span = Span {
            through: span.through.min(self.head),
            ..span
        };
        if span.after >= span.through {
            return Ok(());
        }
        if query.filters().is_none() {
            return self.scan(query, span, visitor).map(drop);
        }
        let mut parts = self.parts();
        if span.backwards {
            parts.reverse();
        }
        for (after, through, part) in &parts {
            let overlap = Span {
                after: span.after.max(*after),
                through: span.through.min(*through),
                ..span
            };
            if overlap.after < overlap.through
                && self.visit_part(part, query, overlap, visitor)?.is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

/// Visits the facets of stored events one after another: `after` exclusive, `through` inclusive.
pub(super) fn for_each_facets(
    connection: &Connection,
    after: u64,
    through: u64,
    mut visitor: impl FnMut(u64, &[Facet]),
) -> Result<()> {
    let mut statement = connection.prepare_cached(include_str!("sql/events_ascending.sql"))?;
    let mut rows = statement.query([after, through])?;
    let mut facets = Vec::new();
    while let Some(row) = rows.next()? {
        let (event_type, payload) = (text(row, 2)?, text(row, 3)?);
        stored_facets(event_type, payload, &mut facets);
        visitor(row.get(0)?, &facets);
    }
    Ok(())
}
