//! What a query, a read and a condition select from a snapshot: one meaning for every store.

mod context_versions;
mod rows;
mod time_text;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

pub(crate) use context_versions::ContextVersions;
pub(crate) use rows::{PAGE_BYTES, RecordSink, RowSink, now_in_micros, occurred_at_from_micros};
pub(crate) use time_text::TimeText;

use crate::contract::{EventStoreError, QueryResult, ReadOptions, ReadPage};
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

/// Which rows a page takes: after the first one, `before` bounds a read by the head as of its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageRequest {
    /// Exclusive.
    pub(crate) after: u64,
    /// Exclusive.
    pub(crate) before: Option<u64>,
    pub(crate) backwards: bool,
    pub(crate) max_rows: usize,
    /// The page ends with the row that reaches this much JSON text.
    pub(crate) max_bytes: usize,
}

/// Where a page ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageEnd {
    pub(crate) last: Option<u64>,
    /// The span was walked to its end, so there is no further row.
    pub(crate) complete: bool,
    /// The exclusive upper bound for the pages to come.
    pub(crate) before: u64,
}

/// Puts one page of matching rows into `sink`.
pub(crate) fn page(
    snapshot: &mut impl Snapshot,
    query: &CompiledQuery,
    request: PageRequest,
    sink: &mut impl RowSink,
) -> Result<PageEnd, EventStoreError> {
    let before = request.before.unwrap_or(u64::MAX).min(snapshot.head() + 1);
    let span = Span {
        after: request.after,
        through: before.saturating_sub(1),
        backwards: request.backwards,
    };
    let mut end = PageEnd {
        last: None,
        complete: true,
        before,
    };
    let mut rows = 0;
    snapshot.visit(query, span, &mut |row| {
        sink.push(row);
        rows += 1;
        end.last = Some(row.sequence_number);
        if rows == request.max_rows || sink.bytes() >= request.max_bytes {
            end.complete = false;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(end)
}

/// Puts the first rows after `request.after` into `sink`, and tells the context's version with them.
pub(crate) fn query(
    snapshot: &mut impl Snapshot,
    query: &CompiledQuery,
    request: PageRequest,
    sink: &mut impl RowSink,
) -> Result<(PageEnd, Option<u64>), EventStoreError> {
    let end = page(snapshot, query, request, sink)?;
    let version = match end.last {
        // The walk ended at the head, so its last row is the newest match.
        Some(last) if end.complete => Some(last),
        _ => context_version(snapshot, query)?,
    };
    Ok((end, version))
}

/// The newest match of the whole context.
pub(crate) fn context_version(
    snapshot: &mut impl Snapshot,
    query: &CompiledQuery,
) -> Result<Option<u64>, EventStoreError> {
    let through = snapshot.head();
    first_match(
        snapshot,
        query,
        Span {
            after: 0,
            through,
            backwards: true,
        },
    )
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
    let known = known.filter(|known| known.head <= through);
    // Nothing from here on, up to where `known` reaches, is a newer match; `None`: it is no match itself,
    // or not the newest one.
    let unchanged_until = match (known, expected) {
        (Some(known), _) if known.version == expected => Some(known.head),
        (Some(known), _) if known.version > expected => None,
        (_, None) => Some(0),
        (_, Some(expected)) if expected == 0 || expected > through => None,
        (_, Some(expected)) => {
            let itself = Span {
                after: expected - 1,
                through: expected,
                backwards: false,
            };
            first_match(snapshot, query, itself)?
        }
    };
    if let Some(after) = unchanged_until {
        let newer = Span {
            after,
            through,
            backwards: false,
        };
        if first_match(snapshot, query, newer)?.is_none() {
            return Ok(());
        }
    }
    let newest = Span {
        after: known.map_or(0, |known| known.head),
        through,
        backwards: true,
    };
    let newest = first_match(snapshot, query, newest)?;
    let actual = newest.or(known.and_then(|known| known.version));
    Err(EventStoreError::ConditionalAppendConflict { expected, actual })
}

/// A context's version as of a head: nothing between the two matches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownVersion {
    pub(crate) version: Option<u64>,
    pub(crate) head: u64,
}

/// A whole query for the Rust API.
pub(crate) fn query_records(
    snapshot: &mut impl Snapshot,
    compiled: &CompiledQuery,
    cursor: Option<u64>,
    limit: Option<NonZeroUsize>,
) -> Result<QueryResult, EventStoreError> {
    let request = PageRequest {
        after: cursor.unwrap_or(0),
        before: None,
        backwards: false,
        max_rows: limit.map_or(usize::MAX, NonZeroUsize::get),
        max_bytes: usize::MAX,
    };
    let mut sink = RecordSink::default();
    let (end, current_context_version) = query(snapshot, compiled, request, &mut sink)?;
    Ok(QueryResult {
        event_records: sink.into_records()?,
        last_returned_sequence_number: end.last,
        current_context_version,
    })
}

/// One page of a read for the Rust API.
pub(crate) fn read_records(
    snapshot: &mut impl Snapshot,
    compiled: &CompiledQuery,
    options: &ReadOptions,
) -> Result<ReadPage, EventStoreError> {
    let mut sink = RecordSink::default();
    let end = page(snapshot, compiled, read_request(options), &mut sink)?;
    Ok(ReadPage {
        event_records: sink.into_records()?,
        next: next_page(options, end),
    })
}

/// What a page of a read for the Rust API takes.
pub(crate) fn read_request(options: &ReadOptions) -> PageRequest {
    PageRequest {
        after: options.after.unwrap_or(0),
        before: options.before,
        backwards: options.backwards,
        max_rows: options.page_size.get(),
        max_bytes: PAGE_BYTES,
    }
}

/// The options that read the page after one that ended so.
pub(crate) fn next_page(options: &ReadOptions, end: PageEnd) -> Option<ReadOptions> {
    let last = end.last.filter(|_| !end.complete)?;
    let (after, before) = if options.backwards {
        (options.after, last)
    } else {
        (Some(last), end.before)
    };
    Some(ReadOptions {
        after,
        before: Some(before),
        ..*options
    })
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
    Ok(ReadOptions {
        after: options.after.or(cursor),
        ..*options
    })
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
    let mut from = if span.backwards {
        span.through
    } else {
        span.after + 1
    };
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
        from = if span.backwards {
            candidate - 1
        } else {
            candidate + 1
        };
    }
}
