//! Postings in memory.

use std::collections::HashMap;
use std::convert::Infallible;

use super::cursor::{PostingList, Segment};
use crate::payload::{Facet, FacetHash};

/// Most facets of a log belong to one event only.
#[derive(Debug, Clone)]
enum Positions {
    One([u64; 1]),
    Many(Vec<u64>),
}

type Shard = HashMap<Facet, Positions, FacetHash>;

/// The postings of a growing part of the log.
///
/// It is split into shards so that a growing table never has to move all of its entries at once.
#[derive(Debug)]
pub(crate) struct FacetMap {
    shards: Vec<Shard>,
}

impl FacetMap {
    /// Makes an empty map of `shards` tables, a power of two.
    pub(crate) fn new(shards: usize) -> Self {
        debug_assert!(shards.is_power_of_two());
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
        }
    }

    /// Adds an event, whose sequence number is higher than all before.
    pub(crate) fn push(&mut self, sequence_number: u64, facets: &[Facet]) {
        let mask = self.shards.len() - 1;
        for &facet in facets {
            // The table itself uses the hash's lowest and highest bits.
            let shard = &mut self.shards[(facet >> 32) as usize & mask];
            shard
                .entry(facet)
                .and_modify(|positions| match positions {
                    Positions::One([first]) => {
                        *positions = Positions::Many(vec![*first, sequence_number]);
                    }
                    Positions::Many(all) => all.push(sequence_number),
                })
                .or_insert(Positions::One([sequence_number]));
        }
    }

    fn get(&self, facet: Facet) -> Option<&[u64]> {
        let shard = &self.shards[(facet >> 32) as usize & (self.shards.len() - 1)];
        shard.get(&facet).map(|positions| match positions {
            Positions::One(one) => one.as_slice(),
            Positions::Many(all) => all,
        })
    }

    /// All postings, in no order of facets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Facet, &[u64])> {
        self.shards
            .iter()
            .flatten()
            .map(|(&facet, positions)| match positions {
                Positions::One(one) => (facet, one.as_slice()),
                Positions::Many(all) => (facet, all.as_slice()),
            })
    }
}

impl<'s> Segment for &'s FacetMap {
    type List = Slice<'s>;

    fn open(&self, facet: Facet) -> Result<Option<Slice<'s>>, Infallible> {
        Ok(self.get(facet).map(|positions| Slice { positions, at: 0 }))
    }
}

/// Postings as a sorted slice, with the place of the last find to search on from.
pub(crate) struct Slice<'s> {
    positions: &'s [u64],
    at: usize,
}

impl Slice<'_> {
    /// The index of the first position that is not below `bound`.
    fn lower_bound(&mut self, bound: u64) -> usize {
        // Searches go on from where they were, mostly by little: try there first.
        let near = self.at..(self.at + 2).min(self.positions.len());
        let before = self
            .at
            .checked_sub(1)
            .and_then(|before| self.positions.get(before));
        if before.is_none_or(|&before| before < bound) {
            for index in near {
                if self.positions[index] >= bound {
                    self.at = index;
                    return index;
                }
            }
        }
        self.at = self.positions.partition_point(|&position| position < bound);
        self.at
    }
}

impl PostingList for Slice<'_> {
    type Error = Infallible;

    fn estimate(&self) -> u64 {
        self.positions.len() as u64
    }

    fn next_at_or_after(&mut self, from: u64) -> Result<Option<u64>, Infallible> {
        let index = self.lower_bound(from);
        Ok(self.positions.get(index).copied())
    }

    fn prev_at_or_before(&mut self, from: u64) -> Result<Option<u64>, Infallible> {
        let index = self.lower_bound(from.saturating_add(1));
        Ok(index.checked_sub(1).map(|index| self.positions[index]))
    }
}
