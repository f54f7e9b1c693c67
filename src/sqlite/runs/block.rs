//! One block: `count: u16`, then `count` entries of 9 bytes, then the posting lists.
//!
//! An entry is its 7-byte big-endian rank (key and chunk) and a little-endian `u16`: either the one
//! posting in the chunk, or, with the top bit set, where its list starts. A list is a `u16`, its
//! length with the top bit telling a bitmap (2,048 bytes) from an array of `u16`.

/// Sequence numbers per chunk.
pub(super) const CHUNK: u64 = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 14;
/// A row of this size fills one page of 4,096 bytes without an overflow page.
pub(super) const BLOCK_BYTES: usize = 4_040;
const ENTRY_BYTES: usize = 9;
const BITMAP_BYTES: usize = CHUNK as usize / 8;
const FLAG: u16 = 1 << 15;

/// Where an entry sorts: a facet key in the upper 40 of 56 bits, a chunk in the lower 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(pub(super) u64);

impl Rank {
    pub(super) fn new(key: u64, chunk: u64) -> Self {
        Self(key << 16 | chunk)
    }

    pub(super) fn key(self) -> u64 {
        self.0 >> 16
    }

    pub(super) fn chunk(self) -> u64 {
        self.0 & 0xffff
    }
}

/// The key under which a facet's postings stand.
pub(super) fn key_of(facet: u64) -> u64 {
    facet >> 24
}

/// Splits a position, counted from the run's first event, into chunk and offset.
pub(super) fn split(position: u64) -> (u64, u16) {
    (position >> CHUNK_BITS, (position & (CHUNK - 1)) as u16)
}

/// Reads a block. Damage shows as `None`, never as a panic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'b>(&'b [u8]);

impl<'b> Block<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Option<Self> {
        let block = Self(bytes);
        let entries = block.u16_at(0)? as usize;
        (2 + entries * ENTRY_BYTES <= bytes.len()).then_some(block)
    }

    pub(super) fn len(self) -> usize {
        self.u16_at(0).unwrap_or(0) as usize
    }

    fn u16_at(self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.0.get(at..at + 2)?.try_into().ok()?))
    }

    pub(super) fn rank(self, index: usize) -> Option<Rank> {
        let at = 2 + index * ENTRY_BYTES;
        let mut bytes = [0; 8];
        bytes[1..].copy_from_slice(self.0.get(at..at + 7)?);
        Some(Rank(u64::from_be_bytes(bytes)))
    }

    /// The index of the first entry whose rank is not below `rank`.
    pub(super) fn lower_bound(self, rank: Rank) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.rank(middle).is_some_and(|at| at < rank) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    pub(super) fn postings(self, index: usize) -> Option<ChunkPostings<'b>> {
        let value = self.u16_at(2 + index * ENTRY_BYTES + 7)?;
        if value & FLAG == 0 {
            return Some(ChunkPostings::One(value));
        }
        let at = (value & !FLAG) as usize;
        let header = self.u16_at(at)?;
        let start = at + 2;
        if header & FLAG == 0 {
            let bytes = header as usize * 2;
            return Some(ChunkPostings::Array(self.0.get(start..start + bytes)?));
        }
        Some(ChunkPostings::Bitmap(
            header & !FLAG,
            self.0.get(start..start + BITMAP_BYTES)?,
        ))
    }
}

/// The offsets of one facet's events in one chunk.
#[derive(Debug, Clone, Copy)]
pub(super) enum ChunkPostings<'b> {
    One(u16),
    Array(&'b [u8]),
    Bitmap(u16, &'b [u8]),
}

impl ChunkPostings<'_> {
    pub(super) fn len(self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Array(bytes) => bytes.len() as u64 / 2,
            Self::Bitmap(count, _) => u64::from(count),
        }
    }

    pub(super) fn next_at_or_after(self, from: u16) -> Option<u16> {
        match self {
            Self::One(offset) => (offset >= from).then_some(offset),
            Self::Array(bytes) => offset_at(bytes, lower_bound(bytes, from)),
            Self::Bitmap(_, bytes) => {
                let first = bytes.get(from as usize / 8)? & (0xff << (from % 8));
                if first != 0 {
                    return Some((from & !7) + first.trailing_zeros() as u16);
                }
                let start = from as usize / 8 + 1;
                let found = start + bytes[start..].iter().position(|&byte| byte != 0)?;
                Some(found as u16 * 8 + bytes[found].trailing_zeros() as u16)
            }
        }
    }

    pub(super) fn prev_at_or_before(self, from: u16) -> Option<u16> {
        match self {
            Self::One(offset) => (offset <= from).then_some(offset),
            Self::Array(bytes) => offset_at(
                bytes,
                lower_bound(bytes, from.saturating_add(1)).checked_sub(1)?,
            ),
            Self::Bitmap(_, bytes) => {
                let last = bytes.get(from as usize / 8)? & (0xff >> (7 - from % 8));
                if last != 0 {
                    return Some((from & !7) + 7 - last.leading_zeros() as u16);
                }
                let found = bytes[..from as usize / 8]
                    .iter()
                    .rposition(|&byte| byte != 0)?;
                Some(found as u16 * 8 + 7 - bytes[found].leading_zeros() as u16)
            }
        }
    }
}

fn offset_at(bytes: &[u8], index: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(index * 2..index * 2 + 2)?.try_into().ok()?,
    ))
}

fn lower_bound(bytes: &[u8], from: u16) -> usize {
    let (mut low, mut high) = (0, bytes.len() / 2);
    while low < high {
        let middle = usize::midpoint(low, high);
        if offset_at(bytes, middle).is_some_and(|offset| offset < from) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Assembles a block entry by entry.
#[derive(Debug, Default)]
pub(super) struct BlockWriter {
    ranks: Vec<(Rank, u16)>,
    /// List starts are relative to `lists` until the number of entries is known.
    lists: Vec<u8>,
}

impl BlockWriter {
    pub(super) fn first(&self) -> Option<Rank> {
        self.ranks.first().map(|&(rank, _)| rank)
    }

    /// Whether an entry of this many postings still fits.
    pub(super) fn has_room_for(&self, postings: usize) -> bool {
        let list = match postings {
            1 => 0,
            _ => 2 + (postings * 2).min(BITMAP_BYTES),
        };
        2 + (self.ranks.len() + 1) * ENTRY_BYTES + self.lists.len() + list <= BLOCK_BYTES
    }

    /// Adds the next entry: ascending, distinct offsets, at least one.
    pub(super) fn push(&mut self, rank: Rank, offsets: &[u16]) {
        if let [one] = offsets {
            self.ranks.push((rank, *one));
            return;
        }
        self.ranks.push((rank, self.lists.len() as u16 | FLAG));
        let count = offsets.len() as u16;
        if offsets.len() * 2 < BITMAP_BYTES {
            self.lists.extend(count.to_le_bytes());
            self.lists
                .extend(offsets.iter().flat_map(|offset| offset.to_le_bytes()));
        } else {
            self.lists.extend((count | FLAG).to_le_bytes());
            let start = self.lists.len();
            self.lists.resize(start + BITMAP_BYTES, 0);
            for offset in offsets {
                self.lists[start + *offset as usize / 8] |= 1 << (offset % 8);
            }
        }
    }

    /// Returns the block's bytes and starts the next one.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let lists_start = 2 + self.ranks.len() * ENTRY_BYTES;
        let mut bytes = Vec::with_capacity(lists_start + self.lists.len());
        bytes.extend((self.ranks.len() as u16).to_le_bytes());
        for (rank, value) in self.ranks.drain(..) {
            let value = if value & FLAG == 0 {
                value
            } else {
                value + lists_start as u16
            };
            bytes.extend(&rank.0.to_be_bytes()[1..]);
            bytes.extend(value.to_le_bytes());
        }
        bytes.append(&mut self.lists);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Block, BlockWriter, CHUNK, Rank};

    proptest! {
        #[test]
        fn finds_what_was_written(
            lists in prop::collection::vec(
                prop_oneof![
                    prop::collection::btree_set(0..CHUNK as u16, 1..5),
                    prop::collection::btree_set(0..CHUNK as u16, 1000..1100),
                ],
                1..4,
            ),
            probes in prop::collection::vec(0..CHUNK as u16, 20),
        ) {
            let mut writer = BlockWriter::default();
            let mut written = Vec::new();
            for list in &lists {
                if writer.has_room_for(list.len()) {
                    let offsets: Vec<u16> = list.iter().copied().collect();
                    writer.push(Rank::new(written.len() as u64, 3), &offsets);
                    written.push(list);
                }
            }
            let bytes = writer.take();
            prop_assert!(bytes.len() <= super::BLOCK_BYTES);
            let block = Block::new(&bytes).unwrap();
            for (index, list) in written.iter().enumerate() {
                prop_assert_eq!(block.lower_bound(Rank::new(index as u64, 0)), index);
                prop_assert_eq!(block.rank(index), Some(Rank::new(index as u64, 3)));
                let postings = block.postings(index).unwrap();
                prop_assert_eq!(postings.len(), list.len() as u64);
                for &probe in &probes {
                    prop_assert_eq!(
                        postings.next_at_or_after(probe), list.range(probe..).next().copied()
                    );
                    prop_assert_eq!(
                        postings.prev_at_or_before(probe), list.range(..=probe).next_back().copied()
                    );
                }
            }
        }
    }

    #[test]
    fn damage_is_no_panic() {
        assert!(Block::new(&[]).is_none());
        assert!(Block::new(&[9, 0, 1]).is_none());
        let mut writer = BlockWriter::default();
        writer.push(Rank::new(1, 0), &[1, 2, 3]);
        let bytes = writer.take();
        let block = Block::new(&bytes[..bytes.len() - 1]).unwrap();
        assert!(block.postings(0).is_none());
    }
}
