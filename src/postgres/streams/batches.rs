//! Reading whole batches back for streams.

use std::ops::ControlFlow;

use tokio_postgres::types::Type;

use crate::delivery::{BatchPage, BatchRequest, Borders, read_page};
use crate::payload::CompiledQuery;
use crate::postgres::backend::{Arguments, Backend, Result};
use crate::postgres::reading::{Fetched, event_of, fetch};
use crate::selection::{Row, Snapshot, Span};

/// Rows of one page.
const MOST_ROWS: usize = 4_096;
/// Where at least one of so many events matches, the batches are read in one go, and else one by one.
const DENSE: u64 = 8;

pub(super) async fn read(backend: &Backend, request: &BatchRequest) -> Result<BatchPage> {
    let span = Span {
        after: request.after,
        through: request.through,
        backwards: false,
    };
    let most_rows = MOST_ROWS.min(request.max_batches.saturating_mul(8)).max(1);
    let Fetched { mut rows, reached } =
        fetch(backend, &request.query, span, most_rows, request.max_bytes).await?;
    let span = reached.saturating_sub(request.after);
    let batches = if span <= rows.len() as u64 * DENSE {
        batches_within(backend, request.after + 1, reached).await?
    } else {
        let events = rows.iter().map(|row| row.get::<_, i64>(1));
        batches_of(backend, events.chain([reached as i64]).collect()).await?
    };
    let mut through = reached;
    if let Some(&(_, last)) = batches.last().filter(|&&(_, last)| last > reached) {
        // Batches are delivered whole.
        let rest = Span {
            after: reached,
            through: last,
            backwards: false,
        };
        let rest = fetch(backend, &request.query, rest, usize::MAX, usize::MAX).await?;
        rows.extend(rest.rows);
        through = last;
    }
    let request = BatchRequest {
        through,
        ..request.clone()
    };
    read_page(
        &mut FetchedRows {
            rows,
            head: through,
        },
        &mut FetchedBorders { batches },
        &request,
    )
}

async fn batches_within(backend: &Backend, first: u64, last: u64) -> Result<Vec<(u64, u64)>> {
    let (first, last) = (first as i64, last as i64);
    let arguments: &Arguments<'_> = &[(&first, Type::INT8), (&last, Type::INT8)];
    let rows = backend.ask(&backend.statements.batches, arguments).await?;
    Ok(rows.iter().map(batch).collect())
}

async fn batches_of(backend: &Backend, events: Vec<i64>) -> Result<Vec<(u64, u64)>> {
    let statement = &backend.statements.batches_of;
    let arguments: &Arguments<'_> = &[(&events, Type::INT8_ARRAY)];
    let rows = backend.ask(statement, arguments).await?;
    Ok(rows.iter().map(batch).collect())
}

fn batch(row: &tokio_postgres::Row) -> (u64, u64) {
    (row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64)
}

/// Rows that match already.
struct FetchedRows {
    rows: Vec<tokio_postgres::Row>,
    head: u64,
}

impl Snapshot for FetchedRows {
    fn head(&self) -> u64 {
        self.head
    }

    fn visit(
        &mut self,
        _: &CompiledQuery,
        span: Span,
        visitor: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<()> {
        for row in &self.rows {
            let event = event_of(row)?;
            if event.sequence_number > span.through || visitor(event).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The batches of more than one event.
struct FetchedBorders {
    batches: Vec<(u64, u64)>,
}

impl Borders for FetchedBorders {
    fn batch_of(&mut self, sequence_number: u64) -> Result<(u64, u64)> {
        let index = self
            .batches
            .partition_point(|&(_, last)| last < sequence_number);
        let batch = self.batches.get(index).copied();
        Ok(batch
            .filter(|&(first, _)| first <= sequence_number)
            .unwrap_or((sequence_number, sequence_number)))
    }
}
