//! The Node.js addon: the only place that names napi.
//!
//! Payloads and results cross as JSON text, numbers as doubles: sequence numbers stay below 2^53.
//! `index.js` turns them into the public API and is this module's only caller.

// napi hands over strings as owned copies.
#![allow(clippy::needless_pass_by_value)]

mod completions;
mod memory_store;
mod page;
mod postgres_store;
mod sqlite_store;
mod stream;
mod streams;

use crate::contract::EventStoreError;
use crate::payload::{CompiledQuery, PreparedBatch};

/// An error for JavaScript: the code becomes its `code` property.
type Failure = napi::Error<&'static str>;

fn failure(error: &EventStoreError) -> Failure {
    napi::Error::new(error.code(), error.to_string())
}

/// -1 stands for "none": cheaper to carry across than a nullable value.
fn optional(number: Option<u64>) -> f64 {
    number.map_or(-1.0, |number| number as f64)
}

/// The counterpart of [`optional`]. A number beyond every sequence number is one all the same.
fn from_optional(number: f64) -> Option<u64> {
    (number >= 0.0).then_some(number as u64)
}

/// A batch, and with filters the context and the version that it has to have.
type Append = (PreparedBatch, Option<(CompiledQuery, Option<u64>)>);

/// Checks the arguments of an append.
fn append_of(
    events: &str,
    filters: Option<&str>,
    expected: f64,
) -> Result<Append, EventStoreError> {
    let batch = PreparedBatch::from_json(events)?;
    let query = filters.map(CompiledQuery::from_json).transpose()?;
    Ok((batch, query.map(|query| (query, from_optional(expected)))))
}
