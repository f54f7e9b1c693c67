use std::sync::Arc;

use super::Run;
use super::block::{Block, CHUNK, ChunkPostings, Rank, key_of, split};
use crate::contract::EventStoreError;
use crate::index::{PostingList, Segment};
use crate::payload::Facet;
use crate::sqlite::cache::Caches;
use crate::sqlite::failure::{Result, damaged_index};
use crate::sqlite::lookup::Lookup;

/// Postings per block of a list that spans several, for estimates.
const POSTINGS_PER_BLOCK: u64 = 1_500;

/// A run, read through a connection.
#[derive(Clone, Copy)]
pub(crate) struct RunSegment<'r, 'c> {
    caches: &'r Caches,
    blocks: &'r Lookup<'c>,
    run: &'r Run,
}

impl<'r, 'c> RunSegment<'r, 'c> {
    pub(crate) fn new(caches: &'r Caches, blocks: &'r Lookup<'c>, run: &'r Run) -> Self {
        Self {
            caches,
            blocks,
            run,
        }
    }

    fn load(&self, number: usize) -> Result<Arc<[u8]>> {
        let id = self.run.block_id(number);
        if let Some(bytes) = self.caches.block(id) {
            self.blocks.refuse_late()?;
            return Ok(bytes);
        }
        let bytes = read_block(self.blocks, id)?;
        self.caches.keep_block(id, &bytes);
        Ok(bytes)
    }
}

pub(super) fn read_block(blocks: &Lookup, id: i64) -> Result<Arc<[u8]>> {
    let bytes = blocks.get(id, |row| Ok(row.get_ref(0)?.as_blob().map(Arc::from)?))?;
    bytes.ok_or_else(|| damaged_index(&format!("block {id} is missing")))
}

impl<'r, 'c> Segment for RunSegment<'r, 'c> {
    type List = RunPostings<'r, 'c>;

    fn open(&self, facet: Facet) -> Result<Option<RunPostings<'r, 'c>>> {
        let key = key_of(facet);
        let mut list = RunPostings {
            segment: *self,
            key,
            estimate: 0,
            block: None,
        };
        let Some(place) = list.first_at_or_after(Rank::new(key, 0))? else {
            return Ok(None);
        };
        let spanned = self.run.fences.iter().skip(place.block + 1);
        let spanned = spanned
            .take_while(|&&fence| Rank(fence).key() == key)
            .count() as u64;
        let block = list.view(place.block)?;
        let here = (place.entry..block.len())
            .take_while(|&entry| block.rank(entry).is_some_and(|rank| rank.key() == key))
            .filter_map(|entry| block.postings(entry));
        list.estimate = here.map(ChunkPostings::len).sum::<u64>() + spanned * POSTINGS_PER_BLOCK;
        Ok(Some(list))
    }
}

/// The postings of one key in one run, with the block that was looked at last.
pub(crate) struct RunPostings<'r, 'c> {
    segment: RunSegment<'r, 'c>,
    key: u64,
    estimate: u64,
    block: Option<(usize, Arc<[u8]>)>,
}

#[derive(Clone, Copy)]
struct Place {
    block: usize,
    entry: usize,
    rank: Rank,
}

impl RunPostings<'_, '_> {
    fn view(&mut self, number: usize) -> Result<Block<'_>> {
        if self
            .block
            .as_ref()
            .is_none_or(|(loaded, _)| *loaded != number)
        {
            self.block = Some((number, self.segment.load(number)?));
        }
        self.block
            .as_ref()
            .and_then(|(_, bytes)| Block::new(bytes))
            .ok_or_else(|| damaged_index("a block is too short"))
    }

    /// The block that holds the last entry at or below `rank`, if any.
    fn block_of(&self, rank: Rank) -> Option<usize> {
        self.segment
            .run
            .fences
            .partition_point(|&fence| fence <= rank.0)
            .checked_sub(1)
    }

    /// This key's first entry at or above `rank`.
    fn first_at_or_after(&mut self, rank: Rank) -> Result<Option<Place>> {
        let mut number = self.block_of(rank).unwrap_or(0);
        let fences = &self.segment.run.fences;
        let Some(last) = fences.len().checked_sub(1) else {
            return Ok(None);
        };
        let mut entry = self.view(number)?.lower_bound(rank);
        if entry == self.view(number)?.len() {
            if number == last {
                return Ok(None);
            }
            (number, entry) = (number + 1, 0);
            if Rank(self.segment.run.fences[number]).key() != self.key {
                return Ok(None);
            }
        }
        self.place(number, entry)
    }

    /// This key's last entry at or below `rank`.
    fn last_at_or_before(&mut self, rank: Rank) -> Result<Option<Place>> {
        let Some(number) = self.block_of(rank) else {
            return Ok(None);
        };
        let block = self.view(number)?;
        let above = block.lower_bound(Rank(rank.0 + 1));
        // The fence is at or below `rank`, so there is one.
        let Some(entry) = above.checked_sub(1) else {
            return Err(damaged_index("a fence"));
        };
        self.place(number, entry)
    }

    fn place(&mut self, block: usize, entry: usize) -> Result<Option<Place>> {
        let key = self.key;
        let rank = self
            .view(block)?
            .rank(entry)
            .ok_or_else(|| damaged_index("an entry"))?;
        Ok((rank.key() == key).then_some(Place { block, entry, rank }))
    }

    fn postings(&mut self, place: Place) -> Result<ChunkPostings<'_>> {
        self.view(place.block)?
            .postings(place.entry)
            .ok_or_else(|| damaged_index("a posting list"))
    }

    fn sequence_number(&self, chunk: u64, offset: u16) -> u64 {
        self.segment.run.first + chunk * CHUNK + u64::from(offset)
    }
}

impl PostingList for RunPostings<'_, '_> {
    type Error = EventStoreError;

    fn estimate(&self) -> u64 {
        self.estimate
    }

    fn next_at_or_after(&mut self, from: u64) -> Result<Option<u64>> {
        let (chunk, offset) = split(from.saturating_sub(self.segment.run.first));
        let mut rank = Rank::new(self.key, chunk);
        let mut lowest = offset;
        loop {
            let Some(place) = self.first_at_or_after(rank)? else {
                return Ok(None);
            };
            if place.rank != rank {
                lowest = 0;
            }
            if let Some(offset) = self.postings(place)?.next_at_or_after(lowest) {
                return Ok(Some(self.sequence_number(place.rank.chunk(), offset)));
            }
            rank = Rank(place.rank.0 + 1);
            lowest = 0;
        }
    }

    fn prev_at_or_before(&mut self, from: u64) -> Result<Option<u64>> {
        let Some(position) = from.checked_sub(self.segment.run.first) else {
            return Ok(None);
        };
        let (chunk, offset) = split(position);
        let mut rank = Rank::new(self.key, chunk);
        let mut highest = offset;
        loop {
            let Some(place) = self.last_at_or_before(rank)? else {
                return Ok(None);
            };
            if place.rank != rank {
                highest = (CHUNK - 1) as u16;
            }
            if let Some(offset) = self.postings(place)?.prev_at_or_before(highest) {
                return Ok(Some(self.sequence_number(place.rank.chunk(), offset)));
            }
            if place.rank.chunk() == 0 {
                return Ok(None);
            }
            rank = Rank(place.rank.0 - 1);
            highest = (CHUNK - 1) as u16;
        }
    }
}
