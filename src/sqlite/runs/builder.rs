use super::block::{BlockWriter, Rank, key_of, split};
use crate::payload::Facet;

/// Turns postings, sorted by key and position, into blocks.
#[derive(Debug, Default)]
pub(crate) struct RunBuilder {
    rank: Option<Rank>,
    offsets: Vec<u16>,
    writer: BlockWriter,
    blocks: Vec<Vec<u8>>,
    fences: Vec<u64>,
}

/// A whole run that fits in memory.
#[derive(Debug)]
pub(crate) struct RunImage {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) blocks: Vec<Vec<u8>>,
    pub(crate) fences: Vec<u64>,
}

impl RunImage {
    /// Positions of an image are packed into 24 bits.
    pub(crate) const MOST_EVENTS: u64 = 1 << 24;

    /// Sorts and packs the postings of the events `first..=last`, at most
    /// [`MOST_EVENTS`](Self::MOST_EVENTS).
    pub(crate) fn build(
        first: u64,
        last: u64,
        postings: impl Iterator<Item = (Facet, u64)>,
    ) -> Self {
        debug_assert!(last - first < Self::MOST_EVENTS);
        let mut packed: Vec<u64> = postings
            .filter(|(_, sequence_number)| (first..=last).contains(sequence_number))
            .map(|(facet, sequence_number)| key_of(facet) << 24 | (sequence_number - first))
            .collect();
        packed.sort_unstable();
        packed.dedup();
        let mut builder = RunBuilder::default();
        for entry in packed {
            builder.push(entry >> 24, entry & (Self::MOST_EVENTS - 1));
        }
        let (blocks, fences) = builder.finish();
        Self {
            first,
            last,
            blocks,
            fences,
        }
    }
}

impl RunBuilder {
    /// Adds the next posting: `position` counts from the run's first event.
    pub(super) fn push(&mut self, key: u64, position: u64) {
        let (chunk, offset) = split(position);
        let rank = Rank::new(key, chunk);
        if self.rank != Some(rank) {
            self.end_entry();
            self.rank = Some(rank);
        }
        self.offsets.push(offset);
    }

    fn end_entry(&mut self) {
        let Some(rank) = self.rank.take() else { return };
        if !self.writer.has_room_for(self.offsets.len()) {
            self.end_block();
        }
        self.writer.push(rank, &self.offsets);
        self.offsets.clear();
    }

    fn end_block(&mut self) {
        if let Some(first) = self.writer.first() {
            self.fences.push(first.0);
            self.blocks.push(self.writer.take());
        }
    }

    /// Takes the blocks that are complete.
    pub(super) fn take_blocks(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.blocks)
    }

    pub(super) fn ready(&self) -> usize {
        self.blocks.len()
    }

    /// Returns the remaining blocks and the fences of all.
    pub(super) fn finish(mut self) -> (Vec<Vec<u8>>, Vec<u64>) {
        self.end_entry();
        self.end_block();
        (self.blocks, self.fences)
    }
}
