//! Runs: immutable sorted postings of a contiguous part of the log, in blocks of one SQLite page.
//!
//! An entry is a facet key (the facet's upper 40 bits; a collision costs a recheck), a chunk (2^14
//! sequence numbers, counted from the run's first) and the postings in that chunk. Entries are
//! sorted by key and chunk. Everything is found by binary search in place; nothing is decoded.

mod block;
mod builder;
mod catalog;
mod merge;
mod segment;

pub(super) use builder::RunImage;
pub(super) use catalog::{
    Catalog, Run, RunSet, claim_merge, drop_blocks, find_doomed, forget_run, give_up_merge,
    insert_blocks, install_merged, install_new, load_state,
};
pub(super) use merge::{Merge, choose_merge};
pub(super) use segment::RunSegment;
