//! Pages as JSON text: `[payload,…,[sequence_number,occurred_at,event_type,…],rows,last,complete,before,version]`.
//!
//! Payloads stand side by side, as they are stored: `JSON.parse` looks up the members of an object the
//! faster if the element before it has the same ones. What else a row has is in one array behind them, three
//! values per row. A time or a type that an earlier row has is that row's number. The five values at the end
//! are the page's own: its number of rows, the last one's sequence number, whether there is no further row
//! (0 or 1), the bound for the pages to come, and the context's version; -1 stands for "none". The number of
//! rows shows a payload that is no JSON value of its own.

use std::fmt::Write;

use super::from_optional;
use crate::contract::EventStoreError;
use crate::payload::{CompiledQuery, event_type_facet};
use crate::selection::{self, PageEnd, PageRequest, Row, RowSink, Snapshot, TimeText};

/// A page that the event loop's own thread reads is cut here: some 60 events, or 100 microseconds.
pub(super) const INLINE_PAGE_BYTES: usize = 16 * 1024;

/// What a page takes; -1 stands for "none". It crosses as single arguments: an object's members would
/// be looked up by name, one by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageOptions {
    /// Exclusive.
    pub(super) after: f64,
    /// Exclusive.
    pub(super) before: f64,
    /// Newest first.
    pub(super) backwards: bool,
    /// At least 1.
    pub(super) max_rows: f64,
    /// Whether to tell the context's version.
    pub(super) version: bool,
}

impl PageOptions {
    pub(super) fn request(self, max_bytes: usize) -> PageRequest {
        PageRequest {
            after: from_optional(self.after).unwrap_or(0),
            before: from_optional(self.before),
            backwards: self.backwards,
            max_rows: self.max_rows as usize,
            max_bytes,
        }
    }

    pub(super) fn take(
        self,
        snapshot: &mut impl Snapshot,
        query: &CompiledQuery,
        max_bytes: usize,
    ) -> Result<Page, EventStoreError> {
        let request = self.request(max_bytes);
        let mut sink = TextSink::with_room(max_bytes);
        let (end, version) = if self.version {
            selection::query(snapshot, query, request, &mut sink)?
        } else {
            (selection::page(snapshot, query, request, &mut sink)?, None)
        };
        Ok(Page {
            text: sink.into_text(end, version),
            version,
        })
    }
}

/// A page of rows.
pub(super) struct Page {
    pub(super) text: String,
    /// The context's version, if it was asked for.
    pub(super) version: Option<u64>,
}

/// The text of rows, of a page or of a stream's calls.
#[derive(Default)]
pub(super) struct TextSink {
    /// `[payload,…,`
    text: String,
    /// `[sequence_number,occurred_at,event_type,…`
    columns: String,
    rows: usize,
    occurred_at: TimeText,
    /// The last time, and the row that has its text.
    time: Option<(i64, usize)>,
    types: KnownTypes,
}

impl TextSink {
    /// For a page of about so many bytes.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes + bytes / 16),
            ..Self::default()
        }
    }

    /// The rows alone: `[payload,…,[sequence_number,occurred_at,event_type,…]`, still open.
    pub(super) fn into_rows(mut self) -> String {
        if self.rows == 0 {
            self.text.push('[');
            self.columns.push('[');
        }
        self.text.push_str(&self.columns);
        self.text.push(']');
        self.text
    }

    pub(super) fn into_text(self, end: PageEnd, version: Option<u64>) -> String {
        let signed = |number: Option<u64>| number.map_or(-1, |number| number as i64);
        let (rows, last, complete) = (self.rows, signed(end.last), u8::from(end.complete));
        let (before, version) = (end.before, signed(version));
        let mut text = self.into_rows();
        let _ = write!(text, ",{rows},{last},{complete},{before},{version}]");
        text
    }
}

impl RowSink for TextSink {
    fn push(&mut self, row: Row) {
        if self.rows == 0 {
            self.text.push('[');
        }
        self.text.push_str(row.payload);
        self.text.push(',');

        let columns = &mut self.columns;
        let mut number = itoa::Buffer::new();
        columns.push(if self.rows == 0 { '[' } else { ',' });
        columns.push_str(number.format(row.sequence_number));
        columns.push(',');
        match self.time {
            Some((time, first)) if time == row.occurred_at => {
                columns.push_str(number.format(first));
            }
            _ => {
                self.time = Some((row.occurred_at, self.rows));
                columns.push('"');
                columns.push_str(self.occurred_at.of(row.occurred_at));
                columns.push('"');
            }
        }
        columns.push(',');
        match self.types.first_row(row.event_type, self.rows) {
            Some(first) => columns.push_str(number.format(first)),
            None => push_string(columns, row.event_type),
        }
        self.rows += 1;
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.columns.len()
    }
}

/// The rows that have the texts of types. What falls into another's place is only written again.
#[derive(Default)]
struct KnownTypes {
    places: Vec<Option<(Box<str>, usize)>>,
}

impl KnownTypes {
    const PLACES: usize = 64;

    /// The row that has this type's text; `None`: `row` has to have it.
    fn first_row(&mut self, event_type: &str, row: usize) -> Option<usize> {
        if self.places.is_empty() {
            self.places.resize(Self::PLACES, None);
        }
        let place = event_type_facet(event_type) as usize % Self::PLACES;
        match &self.places[place] {
            Some((known, first)) if **known == *event_type => Some(*first),
            _ => {
                self.places[place] = Some((event_type.into(), row));
                None
            }
        }
    }
}

/// Appends a string as JSON.
fn push_string(text: &mut String, value: &str) {
    let plain = |byte| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if value.bytes().all(plain) {
        text.push('"');
        text.push_str(value);
        text.push('"');
    } else {
        text.push_str(&serde_json::Value::from(value).to_string());
    }
}
