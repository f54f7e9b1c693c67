//! JSON text: limits, forbidden characters, facets and the exact subset match. Pure functions.
//!
//! A payload is text everywhere inside the crate. It is parsed once on its way in, by a visitor
//! that enforces the limits and emits the facets, and again only to recheck a candidate match.

mod batch;
mod canonical;
mod culprit;
mod facet;
mod matching;
mod query;

pub(crate) use batch::PreparedBatch;
pub(crate) use canonical::canonical_filters;
pub(crate) use facet::stored_facets;
pub(crate) use facet::{Facet, FacetHash};
pub(crate) use query::{CompiledFilter, CompiledQuery, filters_to_query};

/// The largest payload, in bytes of JSON text.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;
/// The deepest nesting of objects and arrays in a payload or predicate.
pub(crate) const MAX_DEPTH: u32 = 100;
/// The longest event type, in bytes of UTF-8.
pub(crate) const MAX_EVENT_TYPE_BYTES: usize = 512;
