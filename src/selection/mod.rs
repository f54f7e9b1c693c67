//! What a query, a read and a condition select from a snapshot: one meaning for every store.

mod rows;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

pub(crate) use rows::{PAGE_BYTES, RecordSink, RowSink, now_in_micros, occurred_at_from_micros};

use crate::contract::{EventStoreError, QueryResult, ReadOptions};
use crate::index::{Cursor, PostingList};
use crate::payload::CompiledQuery;

/// A stored event, borrowed from the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'r> {
    pub(crate) sequence_number: u64,
    /// Microseconds since 1970, UTC.
    pub(crate) occurred_at: i64,
    pub(crate) event_type: &'r str,
    /// JSON text.
    pub(crate) payload: &'r str,
}

/// A part of the log and the direction to walk it in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Exclusive.
    pub(crate) after: u64,
    /// Inclusive.
    pub(crate) through: u64,
    pub(crate) backwards: bool,
}

/// One consistent state of the log.
pub(crate) trait Snapshot {
    /// The newest sequence number, 0 when empty.
    fn head(&self) -> u64;

    /// Visits exactly the matching events of a span in its direction, until told to stop.
    fn visit(
        &mut self,
        query: &CompiledQuery,
        span: Span,
        visitor: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<(), EventStoreError>;
}

/// What a query tells beside its rows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct QueryVersions {
    pub(crate) last_returned: Option<u64>,
    pub(crate) context: Option<u64>,
}

impl QueryVersions {
    /// Completes the result of the Rust API.
    pub(crate) fn into_result(self, rows: RecordSink) -> Result<QueryResult, EventStoreError> {
        Ok(QueryResult {
            event_records: rows.into_records()?,
            last_returned_sequence_number: self.last_returned,
            current_context_version: self.context,
        })
    }
}

/// Puts the rows after the cursor into `sink`, at most `limit`.
pub(crate) fn query(
    snapshot: &mut impl Snapshot,
    query: &CompiledQuery,
    cursor: Option<u64>,
    limit: Option<NonZeroUsize>,
    sink: &mut impl RowSink,
) -> Result<QueryVersions, EventStoreError> {
    let span = Span { after: cursor.unwrap_or(0), through: snapshot.head(), backwards: false };
    let limit = limit.map_or(usize::MAX, NonZeroUsize::get);
    let (mut rows, mut last_returned) = (0, None);
    snapshot.visit(query, span, &mut |row| {
        sink.push(row);
        rows += 1;
        last_returned = Some(row.sequence_number);
        if rows == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let context = if last_returned.is_some() && rows < limit {
        // The walk ended at the head, so its last row is the newest match.
        last_returned
    } else {
        context_version(snapshot, query)?
    };
    Ok(QueryVersions { last_returned, context })
}

/// The newest match of the whole context.
pub(crate) fn context_version(
    snapshot: &mut impl Snapshot,
    query: &CompiledQuery,
) -> Result<Option<u64>, EventStoreError> {
    let through = snapshot.head();
    first_match(snapshot, query, Span { after: 0, through, backwards: true })
}

fn first_match(
    snapshot: &mut impl Snapshot,
    query: &CompiledQuery,
    span: Span,
) -> Result<Option<u64>, EventStoreError> {
    let mut found = None;
    snapshot.visit(query, span, &mut |row| {
        found = Some(row.sequence_number);
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// Tells whether the newest match is exactly `expected`; otherwise the error is the conflict.
///
/// `expected` was read from the context, so mostly the answer is yes, and it is found by looking at
/// `expected` itself and at what came after it. `known`: the context's version at an earlier head,
/// if the caller remembers one.
pub(crate) fn check_context(
    snapshot: &mut impl Snapshot,
    query: &CompiledQuery,
    expected: Option<u64>,
    known: Option<KnownVersion>,
) -> Result<(), EventStoreError> {
    let through = snapshot.head();
    let unchanged_until = match known {
        Some(known) if known.version == expected && known.head <= through => Some(known.head),
        _ => match expected {
            None => Some(0),
            Some(expected) if expected == 0 || expected > through => None,
            Some(expected) => {
                let itself = Span { after: expected - 1, through: expected, backwards: false };
                first_match(snapshot, query, itself)?
            }
        },
    };
    if let Some(after) = unchanged_until {
        let newer = Span { after, through, backwards: false };
        if first_match(snapshot, query, newer)?.is_none() {
            return Ok(());
        }
    }
    let actual = context_version(snapshot, query)?;
    Err(EventStoreError::ConditionalAppendConflict { expected, actual })
}

/// A context's version as of a head: nothing between the two matches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownVersion {
    pub(crate) version: Option<u64>,
    pub(crate) head: u64,
}

/// Checks the bounds of a read against the query's cursor.
pub(crate) fn read_bounds(
    cursor: Option<u64>,
    options: &ReadOptions,
) -> Result<ReadOptions, EventStoreError> {
    if cursor.is_some() && options.after.is_some() {
        return Err(EventStoreError::InvalidOptions(
            "options.after: the query has a min_sequence_number already, give only one".to_owned(),
        ));
    }
    Ok(ReadOptions { after: options.after.or(cursor), ..*options })
}

/// Puts one page into `sink`, and returns the options of the next page.
pub(crate) fn read_page(
    snapshot: &mut impl Snapshot,
    query: &CompiledQuery,
    options: &ReadOptions,
    sink: &mut impl RowSink,
) -> Result<Option<ReadOptions>, EventStoreError> {
    let after = options.after.unwrap_or(0);
    // `before` bounds every page by the head as of the first one.
    let before = options.before.unwrap_or(u64::MAX).min(snapshot.head() + 1);
    let span =
        Span { after, through: before.saturating_sub(1), backwards: options.backwards };
    let (mut rows, mut last) = (0, None);
    snapshot.visit(query, span, &mut |row| {
        sink.push(row);
        rows += 1;
        if rows == options.page_size.get() || sink.bytes() >= PAGE_BYTES {
            last = Some(row.sequence_number);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(last.map(|last| {
        if options.backwards {
            ReadOptions { before: Some(last), ..*options }
        } else {
            ReadOptions { after: Some(last), before: Some(before), ..*options }
        }
    }))
}

/// Walks the candidates of a cursor over a span, until `visitor` breaks.
pub(crate) fn walk<L: PostingList, E>(
    cursor: &mut Cursor<L>,
    span: Span,
    mut visitor: impl FnMut(u64) -> Result<ControlFlow<()>, E>,
) -> Result<ControlFlow<()>, E>
where
    E: From<L::Error>,
{
    if span.after >= span.through {
        return Ok(ControlFlow::Continue(()));
    }
    let mut from = if span.backwards { span.through } else { span.after + 1 };
    loop {
        let candidate = if span.backwards {
            cursor.prev_at_or_before(from)?
        } else {
            cursor.next_at_or_after(from)?
        };
        let Some(candidate) = candidate.filter(|&at| span.after < at && at <= span.through) else {
            return Ok(ControlFlow::Continue(()));
        };
        if visitor(candidate)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        from = if span.backwards { candidate - 1 } else { candidate + 1 };
    }
}
