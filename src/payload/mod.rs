//! JSON text: limits, forbidden characters, facets and the exact subset match. Pure functions.
//!
//! A payload is text everywhere inside the crate. It is parsed once on its way in, by a visitor
//! that enforces the limits and emits the facets, and again only to recheck a candidate match.

mod batch;
mod canonical;
mod culprit;
#[cfg(feature = "postgres")]
mod exact;
mod facet;
mod matching;
mod query;
mod value;

pub(crate) use batch::{PreparedBatch, PreparedEvent};
pub(crate) use canonical::canonical_filters;
#[cfg(feature = "postgres")]
pub(crate) use exact::with_exact_numbers;
#[cfg(feature = "node")]
pub(crate) use facet::event_type_facet;
pub(crate) use facet::stored_facets;
pub(crate) use facet::{Facet, FacetHash};
pub(crate) use query::{CompiledFilter, CompiledQuery, filters_of_stored_query, filters_to_query};
pub(crate) use value::parse_value;

use std::sync::LazyLock;

use crate::contract::EventStoreError;

/// The largest payload, in bytes of JSON text.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;
/// The deepest nesting of objects and arrays in a payload or predicate.
pub(crate) const MAX_DEPTH: u32 = 100;
/// The longest event type, in bytes of UTF-8.
pub(crate) const MAX_EVENT_TYPE_BYTES: usize = 512;

/// Refuses a build in which numbers can't be told by their value.
///
/// Cargo unites the features of a dependency, so any part of an application may enable
/// `serde_json`'s `arbitrary_precision`. Its parser then hands over numbers as objects, and a
/// predicate with a number would silently match nothing. The addon's build is our own.
pub(crate) fn refuse_arbitrary_precision() -> Result<(), EventStoreError> {
    static NUMBERS_ARE_NUMBERS: LazyLock<bool> = LazyLock::new(matching::numbers_are_numbers);
    if *NUMBERS_ARE_NUMBERS {
        return Ok(());
    }
    Err(EventStoreError::InvalidOptions(
        "this build of the application enables the feature arbitrary_precision of serde_json, with \
         which factstr can't compare numbers"
            .to_owned(),
    ))
}
