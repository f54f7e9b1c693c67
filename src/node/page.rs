//! Pages as JSON text: `[sequence_number,"occurred_at","event_type",payload,…,rows,last,complete,before,version]`.
//!
//! One flat array is what `JSON.parse` reads fastest: objects per record took it 20 to 30 % longer. The
//! five values at its end are the page's own: its number of rows, the last one's sequence number, whether
//! there is no further row (0 or 1), the bound for the pages to come, and the context's version; -1
//! stands for "none". Payloads stand in it as they are stored; the number of rows shows one that is no
//! JSON value of its own.

use std::fmt::Write;

use super::from_optional;
use crate::contract::EventStoreError;
use crate::payload::CompiledQuery;
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
        let mut sink = TextSink::default();
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
    text: String,
    rows: usize,
    occurred_at: TimeText,
}

impl TextSink {
    /// The rows alone.
    pub(super) fn into_rows(mut self) -> String {
        self.text
            .push_str(if self.text.is_empty() { "[]" } else { "]" });
        self.text
    }

    pub(super) fn into_text(mut self, end: PageEnd, version: Option<u64>) -> String {
        let open = if self.text.is_empty() { "[" } else { "," };
        let signed = |number: Option<u64>| number.map_or(-1, |number| number as i64);
        let (rows, last, complete) = (self.rows, signed(end.last), u8::from(end.complete));
        let (before, version) = (end.before, signed(version));
        let _ = write!(
            self.text,
            "{open}{rows},{last},{complete},{before},{version}]"
        );
        self.text
    }
}

impl RowSink for TextSink {
    fn push(&mut self, row: Row) {
        self.rows += 1;
        self.text.push(if self.text.is_empty() { '[' } else { ',' });
        self.text
            .push_str(itoa::Buffer::new().format(row.sequence_number));
        self.text.push_str(",\"");
        self.text.push_str(self.occurred_at.of(row.occurred_at));
        self.text.push_str("\",");
        push_string(&mut self.text, row.event_type);
        self.text.push(',');
        self.text.push_str(row.payload);
    }

    fn bytes(&self) -> usize {
        self.text.len()
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
