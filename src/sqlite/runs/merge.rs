use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use rusqlite::Connection;

use super::block::{Block, CHUNK};
use super::builder::RunBuilder;
use super::catalog::Run;
use super::segment::read_block;
use crate::sqlite::failure::{Result, damaged_index};
use crate::sqlite::lookup::Lookup;

/// Runs of one tier that are merged into one of the next.
const FAN_IN: usize = 8;
/// Merged runs stay below the 2^30 events that a rank can tell apart.
const LARGEST_RUN: u64 = 1 << 29;

/// Chooses adjacent runs of one tier to be merged, newest first, if there are enough.
pub(crate) fn choose_merge(runs: &[Arc<Run>], tier_zero: u64) -> Option<&[Arc<Run>]> {
    let tier = |run: &Run| {
        let mut size = (run.last - run.first + 1) / tier_zero.max(1);
        let mut tier = 0_u32;
        while size >= FAN_IN as u64 {
            size /= FAN_IN as u64;
            tier += 1;
        }
        tier
    };
    let mut end = runs.len();
    while end >= FAN_IN {
        let same = tier(&runs[end - 1]);
        let start = runs[..end]
            .iter()
            .rposition(|run| tier(run) != same)
            .map_or(0, |at| at + 1);
        let events = runs[end - 1].last - runs[start].first + 1;
        if end - start >= FAN_IN && events <= LARGEST_RUN {
            return Some(&runs[start..end]);
        }
        end = start;
    }
    None
}

/// A merge in progress: pulls postings from its inputs in order.
pub(crate) struct Merge {
    first: u64,
    inputs: Vec<Input>,
    /// The current key of each input that has one, with the input's number.
    keys: BinaryHeap<Reverse<(u64, usize)>>,
    builder: RunBuilder,
}

struct Input {
    run: Arc<Run>,
    block: usize,
    bytes: Arc<[u8]>,
    entry: usize,
    /// The current entry's key, `None` at the end.
    key: Option<u64>,
}

impl Merge {
    pub(crate) fn start(connection: &Connection, runs: &[Arc<Run>]) -> Result<Self> {
        let first = runs.first().map_or(1, |run| run.first);
        let inputs = runs
            .iter()
            .map(|run| {
                let mut input = Input {
                    run: run.clone(),
                    block: 0,
                    bytes: Arc::from([]),
                    entry: 0,
                    key: None,
                };
                input.load(connection, 0)?;
                Ok(input)
            })
            .collect::<Result<Vec<_>>>()?;
        let keys = inputs
            .iter()
            .enumerate()
            .filter_map(|(number, input)| Some(Reverse((input.key?, number))))
            .collect();
        Ok(Self {
            first,
            inputs,
            keys,
            builder: RunBuilder::default(),
        })
    }

    /// Merges until some `blocks` are complete; an empty answer means that all is merged.
    pub(crate) fn next_blocks(
        &mut self,
        connection: &Connection,
        blocks: usize,
    ) -> Result<Vec<Vec<u8>>> {
        while self.builder.ready() < blocks {
            // Inputs stand in the order of the log, so the postings of one key do too.
            let Some(mut lowest) = self.keys.peek_mut() else {
                break;
            };
            let Reverse((key, number)) = *lowest;
            let input = &mut self.inputs[number];
            while input.key == Some(key) {
                input.drain_entry(self.first, key, &mut self.builder)?;
                input.advance(connection)?;
            }
            match input.key {
                Some(next) => *lowest = Reverse((next, number)),
                None => drop(PeekMut::pop(lowest)),
            }
        }
        Ok(self.builder.take_blocks())
    }

    /// Returns the last blocks and the fences of all.
    pub(crate) fn finish(self) -> (Vec<Vec<u8>>, Vec<u64>) {
        self.builder.finish()
    }
}

impl Input {
    fn load(&mut self, connection: &Connection, block: usize) -> Result<()> {
        self.block = block;
        self.entry = 0;
        self.key = None;
        if block < self.run.block_count() {
            let blocks = Lookup::blocks(connection, None);
            self.bytes = read_block(&blocks, self.run.block_id(block))?;
            self.key = Some(
                self.view()?
                    .rank(0)
                    .ok_or_else(|| damaged_index("an entry"))?
                    .key(),
            );
        }
        Ok(())
    }

    fn view(&self) -> Result<Block<'_>> {
        Block::new(&self.bytes).ok_or_else(|| damaged_index("a block is too short"))
    }

    fn advance(&mut self, connection: &Connection) -> Result<()> {
        self.entry += 1;
        let block = self.view()?;
        let next = block.rank(self.entry).filter(|_| self.entry < block.len());
        match next {
            Some(rank) => self.key = Some(rank.key()),
            None => self.load(connection, self.block + 1)?,
        }
        Ok(())
    }

    fn drain_entry(&self, first: u64, key: u64, builder: &mut RunBuilder) -> Result<()> {
        let block = self.view()?;
        let damaged = || damaged_index("a posting list");
        let rank = block.rank(self.entry).ok_or_else(damaged)?;
        let postings = block.postings(self.entry).ok_or_else(damaged)?;
        let base = self.run.first - first + rank.chunk() * CHUNK;
        let mut next = postings.next_at_or_after(0);
        while let Some(offset) = next {
            builder.push(key, base + u64::from(offset));
            next = postings.next_at_or_after(offset + 1);
        }
        Ok(())
    }
}
