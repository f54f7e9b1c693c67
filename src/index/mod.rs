//! From facets to candidates: which events of a part of the log may match a query.
//!
//! A *segment* is a contiguous part of the log with postings, the ascending sequence numbers of the
//! events that have a facet. [`Cursor`] intersects and unites them lazily, in both directions. What
//! it yields are candidates: a superset of the matches, to be rechecked against the payloads.

mod cursor;
mod postings;

pub(crate) use cursor::{Cursor, PostingList, Segment};
pub(crate) use postings::FacetMap;
