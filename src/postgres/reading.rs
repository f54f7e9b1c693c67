//! Queries and reads: the server finds candidates by their facets, the exact match is told here.

use std::sync::atomic::Ordering;

use tokio_postgres::types::{FromSql, ToSql, Type};

use super::backend::{Backend, Result, no_row};
use super::plan::{Plan, Selection};
use crate::contract::EventStoreError;
use crate::payload::CompiledQuery;
use crate::runtime::beside_connections;
use crate::selection::{PageEnd, PageRequest, Row, RowSink, Span};

/// The most candidates of one answer.
const MOST_ROWS: usize = 1_000;
/// The most bytes of payloads of one answer, roughly.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// The most candidates of a first, quick answer; and of one whose candidates may have little to do with the query.
const FIRST_ROWS: usize = 64;
const FIRST_TRY: usize = 16;
/// The kind of the row of `factstr_page` that is the newest candidate.
const NEWEST_ROW: i16 = 2;
/// Candidates for the newest match after the first one was none.
const FEW_ROWS: usize = 32;

/// A time of PostgreSQL's binary format, as microseconds since 1970, UTC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Micros(pub(super) i64);

/// From 1970 to 2000, where PostgreSQL counts from.
const EPOCH: i64 = 946_684_800_000_000;

impl FromSql<'_> for Micros {
    fn from_sql(
        kind: &Type,
        raw: &[u8],
    ) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(
            i64::from_sql(&Type::INT8, raw)
                .map_err(|error| format!("a time of type {kind}: {error}"))?
                + EPOCH,
        ))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }
}

/// How many bytes a text has, without reading it.
struct Length(usize);

impl FromSql<'_> for Length {
    fn from_sql(
        _: &Type,
        raw: &[u8],
    ) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.len()))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TEXT
    }
}

/// Where the sequence number, the time, the type and the payload of an event are in a row.
type Columns = [usize; 4];

/// Of candidates.
const COLUMNS: Columns = [1, 3, 4, 5];
/// Of `factstr_events`.
const COLUMNS_OF_ALL: Columns = [0, 1, 2, 3];

/// A row of candidates, borrowed as an event.
pub(super) fn event_of(row: &tokio_postgres::Row) -> Result<Row<'_>> {
    event_at(row, COLUMNS)
}

fn event_at(row: &tokio_postgres::Row, columns: Columns) -> Result<Row<'_>> {
    let [sequence_number, occurred_at, event_type, payload] = columns;
    let read = || -> std::result::Result<Row<'_>, tokio_postgres::Error> {
        Ok(Row {
            sequence_number: row.try_get::<_, i64>(sequence_number)? as u64,
            occurred_at: row.try_get::<_, Micros>(occurred_at)?.0,
            event_type: row.try_get(event_type)?,
            payload: row.try_get(payload)?,
        })
    };
    read().map_err(|error| not_understood(&error))
}

fn not_understood(error: &tokio_postgres::Error) -> EventStoreError {
    EventStoreError::BackendFailure(format!("the server's answer can't be understood: {error}"))
}

/// What the server answers at once.
struct Candidates {
    /// The newest sequence number of the snapshot.
    head: u64,
    rows: Vec<tokio_postgres::Row>,
    columns: Columns,
    /// What their payloads have.
    bytes: usize,
    /// How far the rows tell of all candidates: forwards up to here, backwards down to here, exclusive.
    reached: u64,
    /// The newest candidate of the whole context, if it was asked for and is none of the rows.
    newest: Newest,
}

enum Newest {
    NotAsked,
    /// It is this event, if it matches.
    Row(tokio_postgres::Row),
    /// There is none after this sequence number.
    NoneAfter(u64),
}

struct Ask {
    span: Span,
    max_rows: usize,
    max_bytes: usize,
    version: bool,
    /// Nothing is known of the candidates: there may be few.
    first: bool,
}

async fn ask(backend: &Backend, plan: &Plan, ask: Ask) -> Result<Candidates> {
    let Ask {
        span,
        max_rows,
        max_bytes,
        version,
        first,
    } = ask;
    if first
        && backend.has_own_sessions()
        && !span.backwards
        // What comes with a version is to tell of the whole context.
        && (!version || span.after == 0 && max_rows > FIRST_ROWS)
        && let Some(selection) = &plan.selection
        && let Some((facet, is_all)) = selection.first_facet()
    {
        let most = if is_all { FIRST_ROWS } else { FIRST_TRY };
        return few(backend, facet, span, most.min(max_rows)).await;
    }
    let parts = |part: fn(&Selection) -> &Vec<i32>| plan.selection.as_ref().map(part);
    let facets = plan.selection.as_ref().map(|selection| &selection.facets);
    let (sets, alternatives) = (parts(|all| &all.sets), parts(|all| &all.alternatives));
    let (after, through) = (signed(span.after), signed(span.through));
    let (max_rows, max_bytes) = (max_rows.min(MOST_ROWS), max_bytes.min(MOST_BYTES));
    let (most_rows, most_bytes) = (max_rows as i32, max_bytes as i64);
    let answer = backend
        .ask(
            &backend.statements.page,
            &[
                (&facets, Type::INT8_ARRAY),
                (&sets, Type::INT4_ARRAY),
                (&alternatives, Type::INT4_ARRAY),
                (&after, Type::INT8),
                (&through, Type::INT8),
                (&span.backwards, Type::BOOL),
                (&most_rows, Type::INT4),
                (&most_bytes, Type::INT8),
                (&version, Type::BOOL),
            ],
        )
        .await?;
    let mut answer = answer.into_iter();
    let header = answer.next().ok_or_else(no_row)?;
    let head = header.get::<_, i64>(1) as u64;
    let known = header.get::<_, Option<i64>>(2).map(|known| known as u64);
    let mut rows: Vec<_> = answer.collect();
    let newest = match rows.pop_if(|row| row.get::<_, i16>(0) == NEWEST_ROW) {
        None => Newest::NotAsked,
        Some(row) if row.get::<_, Option<&str>>(4).is_some() => Newest::Row(row),
        Some(row) => Newest::NoneAfter(number_of(&row)),
    };
    let bytes = bytes_of(&rows);
    let last = rows.last().map(number_of);
    // Cut by size, or (where every event is a candidate) by number, the answer ends with its last row.
    let cut = bytes >= max_bytes || (known.is_none() && rows.len() >= max_rows);
    let reached = match last {
        Some(last) if cut => reached(span, head, Some(last)),
        _ => known.unwrap_or_else(|| reached(span, head, None)),
    };
    Ok(Candidates {
        head,
        rows,
        columns: COLUMNS,
        bytes,
        reached,
        newest,
    })
}

/// A sequence number as the server takes it.
fn signed(number: u64) -> i64 {
    number.min(i64::MAX as u64 - 1_024) as i64
}

/// How far an answer tells of a span: up to its last row, if it is cut there.
fn reached(span: Span, head: u64, cut_at: Option<u64>) -> u64 {
    match cut_at {
        Some(last) if span.backwards => last - 1,
        Some(last) => last,
        None if span.backwards => span.after,
        None => span.through.min(head),
    }
}

fn number_of(row: &tokio_postgres::Row) -> u64 {
    row.get::<_, i64>(1) as u64
}

/// What the payloads of events have.
fn bytes_of(rows: &[tokio_postgres::Row]) -> usize {
    rows.iter().map(|row| row.get::<_, Length>(5).0).sum()
}

/// The first candidates of a facet.
async fn few(backend: &Backend, facet: i64, span: Span, max_rows: usize) -> Result<Candidates> {
    let (after, through) = (signed(span.after), signed(span.through));
    let most_rows = max_rows as i32;
    let arguments: [(&(dyn ToSql + Sync), Type); 4] = [
        (&facet, Type::INT8),
        (&after, Type::INT8),
        (&through, Type::INT8),
        (&most_rows, Type::INT4),
    ];
    let mut rows = backend.ask(&backend.statements.few, &arguments).await?;
    let head = rows.first().ok_or_else(no_row)?.get::<_, i64>(2) as u64;
    let is_large = |row: &tokio_postgres::Row| row.get::<_, Option<bool>>(0);
    rows.retain(|row| is_large(row).is_some());
    rows.sort_unstable_by_key(number_of);
    let mut reached = span.through.min(head);
    if let Some(large) = rows.iter().position(|row| is_large(row) == Some(true)) {
        // It comes with the next answer, which is as large as was asked for.
        reached = number_of(&rows[large]) - 1;
        rows.truncate(large);
    } else if rows.len() >= max_rows {
        reached = rows.last().map_or(reached, number_of);
    }
    Ok(Candidates {
        head,
        bytes: bytes_of(&rows),
        rows,
        columns: COLUMNS,
        reached,
        newest: Newest::NotAsked,
    })
}

/// Events of a span from its start, all of them, and whether the last one is not the span's last one.
async fn all(
    backend: &Backend,
    span: Span,
    max_rows: usize,
    max_bytes: usize,
) -> Result<(Candidates, bool)> {
    // What a page has no room for would be read in vain.
    let row_bytes = backend.row_bytes.load(Ordering::Relaxed);
    let room = max_bytes.checked_div(row_bytes).unwrap_or(FEW_ROWS);
    let max_rows = max_rows.min(room.saturating_add(1)).min(MOST_ROWS);
    let (answer, is_cut) = all_up_to(backend, span, max_rows, MOST_BYTES / max_rows).await?;
    if answer.rows.is_empty() && is_cut {
        // The first one is a long one. It comes alone.
        return all_up_to(backend, span, 1, i32::MAX as usize).await;
    }
    Ok((answer, is_cut))
}

/// An event that is longer than `longest` ends the answer.
async fn all_up_to(
    backend: &Backend,
    span: Span,
    max_rows: usize,
    longest: usize,
) -> Result<(Candidates, bool)> {
    let (after, through) = (signed(span.after), signed(span.through));
    let (most_rows, longest) = (max_rows as i32, longest as i64);
    let mut rows = backend
        .ask(
            &backend.statements.events,
            &[
                (&after, Type::INT8),
                (&through, Type::INT8),
                (&span.backwards, Type::BOOL),
                (&most_rows, Type::INT4),
                (&longest, Type::INT8),
            ],
        )
        .await?;
    let [number, _, _, payload] = COLUMNS_OF_ALL;
    let number_of = |row: &tokio_postgres::Row| row.get::<_, i64>(number) as u64;
    let mut is_cut = rows.len() > max_rows;
    let mut bytes = 0;
    let mut kept = 1;
    for row in rows.iter().skip(1) {
        let Some(length) = row.get::<_, Option<Length>>(payload) else {
            is_cut = true;
            break;
        };
        bytes += length.0;
        kept += 1;
    }
    rows.truncate(kept);
    let mut rows = rows.into_iter();
    let head = number_of(&rows.next().ok_or_else(no_row)?);
    let rows: Vec<_> = rows.collect();
    let cut_at = rows.last().map(number_of).filter(|_| is_cut);
    let answer = Candidates {
        head,
        rows,
        columns: COLUMNS_OF_ALL,
        bytes,
        reached: reached(span, head, cut_at),
        newest: Newest::NotAsked,
    };
    Ok((answer, is_cut))
}

/// A page of matches.
pub(super) struct Page {
    pub(super) end: PageEnd,
    /// The newest match of the whole context, if it was asked for.
    pub(super) version: Option<u64>,
    /// The newest sequence number of the snapshot.
    pub(super) head: u64,
}

/// Puts one page of matching rows into `sink`. The log only grows, so all that is at or before the first
/// answer's head is one snapshot, whenever it is read.
pub(super) async fn page(
    backend: &Backend,
    query: &CompiledQuery,
    request: PageRequest,
    version: bool,
    sink: &mut (impl RowSink + Send),
) -> Result<Page> {
    let plan = Plan::of(query);
    let mut span = Span {
        after: request.after,
        through: request.before.unwrap_or(u64::MAX).saturating_sub(1),
        backwards: request.backwards,
    };
    let mut first: Option<(u64, Newest)> = None;
    let mut end = PageEnd {
        last: None,
        complete: true,
        before: 0,
    };
    let mut taken = 0;
    loop {
        let max_rows = request.max_rows - taken;
        let max_bytes = request.max_bytes.saturating_sub(sink.bytes()).max(1);
        let (answer, is_cut) = if plan.selection.is_some() {
            let version = version && first.is_none();
            let ask_for = Ask {
                span,
                max_rows,
                max_bytes,
                version,
                first: first.is_none(),
            };
            (ask(backend, &plan, ask_for).await?, false)
        } else {
            all(backend, span, max_rows, max_bytes).await?
        };
        if first.is_none() {
            span.through = span.through.min(answer.head);
            end.before = span.through + 1;
            first = Some((answer.head, answer.newest));
        }
        let mut take = || -> Result<bool> {
            for row in &answer.rows {
                let row = event_at(row, answer.columns)?;
                if query.filters().is_some() && !query.matches(row.event_type, row.payload) {
                    continue;
                }
                sink.push(row);
                taken += 1;
                end.last = Some(row.sequence_number);
                if taken == request.max_rows || sink.bytes() >= request.max_bytes {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        end.complete = beside_connections(effort(query, answer.bytes), &mut take)?;
        if is_cut && taken > 0 {
            let row_bytes = (sink.bytes() / taken).max(1);
            backend.row_bytes.store(row_bytes, Ordering::Relaxed);
            // What little room is left is not worth another question.
            end.complete &= sink.bytes() < request.max_bytes / 4 * 3;
        }
        if !end.complete {
            break;
        }
        if span.backwards {
            span.through = answer.reached;
        } else {
            span.after = answer.reached;
        }
        if span.after >= span.through {
            break;
        }
    }
    let (head, newest) = first.unwrap_or((0, Newest::NotAsked));
    let version = match end.last {
        _ if !version => None,
        _ if query.filters().is_none() => Some(head).filter(|&head| head > 0),
        // The page has told of the whole rest of the context, or of the whole context.
        last if end.complete
            && !request.backwards
            && end.before == head + 1
            && (last.is_some() || request.after == 0) =>
        {
            last
        }
        _ => newest_match(backend, query, &plan, head, newest).await?,
    };
    Ok(Page { end, version, head })
}

/// How many bytes are gone through to match payloads of so many.
fn effort(query: &CompiledQuery, bytes: usize) -> usize {
    bytes.saturating_mul(query.effort().max(1))
}

async fn newest_match(
    backend: &Backend,
    query: &CompiledQuery,
    plan: &Plan,
    head: u64,
    newest: Newest,
) -> Result<Option<u64>> {
    let mut span = Span {
        after: 0,
        through: head,
        backwards: true,
    };
    match newest {
        Newest::NotAsked => {}
        Newest::NoneAfter(after) => span.through = after,
        Newest::Row(row) => {
            let row = event_of(&row)?;
            let matches = || query.matches(row.event_type, row.payload);
            if beside_connections(effort(query, row.payload.len()), matches) {
                return Ok(Some(row.sequence_number));
            }
            span.through = row.sequence_number - 1;
        }
    }
    while span.after < span.through {
        let answer = ask(
            backend,
            plan,
            Ask {
                span,
                max_rows: FEW_ROWS,
                max_bytes: crate::selection::PAGE_BYTES,
                version: false,
                first: false,
            },
        )
        .await?;
        let first_match = || -> Result<Option<u64>> {
            for row in &answer.rows {
                let row = event_of(row)?;
                if query.matches(row.event_type, row.payload) {
                    return Ok(Some(row.sequence_number));
                }
            }
            Ok(None)
        };
        let found = beside_connections(effort(query, answer.bytes), first_match)?;
        if found.is_some() {
            return Ok(found);
        }
        span.through = answer.reached;
    }
    Ok(None)
}

/// Matching rows of a span, forwards, and how far they reach.
pub(super) struct Fetched {
    pub(super) rows: Vec<tokio_postgres::Row>,
    pub(super) reached: u64,
}

/// Reads matching rows of a span, until there are about `max_bytes` of them, or `max_rows`.
pub(super) async fn fetch(
    backend: &Backend,
    query: &CompiledQuery,
    mut span: Span,
    max_rows: usize,
    max_bytes: usize,
) -> Result<Fetched> {
    let plan = Plan::of(query);
    let mut rows = Vec::new();
    let mut bytes = 0;
    let mut first = true;
    while span.after < span.through && rows.len() < max_rows && bytes < max_bytes {
        let answer = ask(
            backend,
            &plan,
            Ask {
                span,
                max_rows: max_rows - rows.len(),
                max_bytes: max_bytes - bytes,
                version: false,
                first,
            },
        )
        .await?;
        first = false;
        let effort = effort(query, answer.bytes);
        let take = || -> Result<()> {
            for row in answer.rows {
                let event = event_of(&row)?;
                if query.filters().is_none() || query.matches(event.event_type, event.payload) {
                    bytes += event.payload.len();
                    rows.push(row);
                }
            }
            Ok(())
        };
        beside_connections(effort, take)?;
        if answer.head < span.through {
            // The caller has seen a newer head, on a server that has lost it since.
            return Err(EventStoreError::BackendFailure(format!(
                "the log ends at {}, and not at {} any more",
                answer.head, span.through
            )));
        }
        span.after = answer.reached;
    }
    Ok(Fetched {
        rows,
        reached: span.after,
    })
}
