//! The index follows the log: complete segments of the tail become runs, runs are merged in tiers.
//!
//! A thread of its own prepares; the writer's connection stores, in slices between commits.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;

use super::failure::{Result, guarded};
use super::readers::Shared;
use super::runs::{
    Merge, Run, RunImage, choose_merge, claim_merge, drop_blocks, find_doomed, forget_run,
    give_up_merge, insert_blocks, install_merged, install_new, load_state,
};
use super::snapshot::for_each_facets;
use super::tail::SEGMENT_EVENTS;
use super::write_connection::{in_transaction, without_flush};
use super::writer::Maintenance;
use crate::contract::EventStoreError;

/// Blocks stored at once while runs are merged: 1 MiB.
const SLICE_BLOCKS: usize = 256;
/// Events of a run that is built from the log itself, when many have no postings.
const BULK_EVENTS: u64 = SEGMENT_EVENTS * 8;
/// A closing store leaves fewer events than this to the tail of the next one.
const WORTH_A_RUN: u64 = SEGMENT_EVENTS / 4;

pub(super) struct Indexer {
    shared: Arc<Shared>,
    connection: Connection,
    writer: Sender<Maintenance>,
    wake: Receiver<()>,
}

impl Indexer {
    pub(super) fn new(
        shared: Arc<Shared>,
        connection: Connection,
        writer: Sender<Maintenance>,
        wake: Receiver<()>,
    ) -> Self {
        Self {
            shared,
            connection,
            writer,
            wake,
        }
    }

    /// Works whenever it is woken, until the writer ends.
    pub(super) fn run(self) {
        self.shared.database.enter_thread();
        while self.wake.recv().is_ok() {
            let advanced = guarded(|| self.install_complete().and_then(|()| self.merge()));
            if let Err(error) = advanced {
                // The log is unharmed and queries stay right; the next wake-up tries again.
                tracing::warn!(%error, "the facet index could not be advanced");
            }
        }
    }

    /// Turns the complete segments of the tail into runs.
    fn install_complete(&self) -> Result<()> {
        while let Some(segment) = self.shared.tail.oldest_complete() {
            let (after, through) = (segment.after, segment.through());
            let (runs, _) = self.shared.catalog.load(&self.connection)?;
            if runs.indexed_through < through {
                let first = runs.indexed_through + 1;
                let image = if runs.indexed_through >= after {
                    segment.with_postings(|postings| RunImage::build(first, through, postings))
                } else {
                    build_from_log(&self.connection, first, through)?
                };
                self.on_writer(move |connection| {
                    in_transaction(connection, || install_new(connection, &image))
                })?;
            }
            let (runs, _) = self.shared.catalog.load(&self.connection)?;
            self.shared.tail.prune(runs.indexed_through);
        }
        Ok(())
    }

    /// Merges as long as there is something to merge, and removes what nobody needs any more.
    fn merge(&self) -> Result<()> {
        loop {
            self.remove_doomed()?;
            let (live, _) = self.shared.catalog.load(&self.connection)?;
            let Some(inputs) = choose_merge(&live.runs, SEGMENT_EVENTS) else {
                return Ok(());
            };
            let inputs: Arc<[Arc<Run>]> = inputs.into();
            let claimed = inputs.clone();
            let id = self.on_writer(move |connection| {
                in_transaction(connection, || claim_merge(connection, &claimed))
            })?;
            let Some(id) = id else { return Ok(()) };
            if !self.merge_into(id, &inputs)? {
                return Ok(());
            }
        }
    }

    /// `false`: the merge was given up, because the store closes or another process took over.
    fn merge_into(&self, id: i64, inputs: &Arc<[Arc<Run>]>) -> Result<bool> {
        let mut merge = Merge::start(&self.connection, inputs)?;
        let mut stored = 0;
        loop {
            let blocks = merge.next_blocks(&self.connection, SLICE_BLOCKS)?;
            if blocks.is_empty() {
                break;
            }
            stored += self.store(id, stored, blocks)?;
            // The tail must not grow while a long merge runs.
            self.install_complete()?;
            if self.is_ending() {
                self.without_flush(move |connection| give_up_merge(connection, id))?;
                return Ok(false);
            }
        }
        let (blocks, fences) = merge.finish();
        self.store(id, stored, blocks)?;
        let inputs = inputs.clone();
        self.on_writer(move |connection| {
            in_transaction(connection, || {
                install_merged(connection, id, &fences, &inputs)
            })
        })
    }

    fn store(&self, id: i64, first: usize, blocks: Vec<Vec<u8>>) -> Result<usize> {
        let count = blocks.len();
        self.without_flush(move |connection| insert_blocks(connection, id, first, &blocks))?;
        Ok(count)
    }

    fn remove_doomed(&self) -> Result<()> {
        loop {
            let doomed = self.without_flush(find_doomed)?;
            let Some((id, blocks)) = doomed else {
                return Ok(());
            };
            // A builder may have stored one slice more than it has told.
            for start in (0..blocks + SLICE_BLOCKS).step_by(SLICE_BLOCKS) {
                self.without_flush(move |connection| {
                    drop_blocks(connection, id, start..start + SLICE_BLOCKS)
                })?;
                self.install_complete()?;
                if self.is_ending() {
                    return Ok(());
                }
            }
            self.without_flush(move |connection| forget_run(connection, id))?;
        }
    }

    fn is_ending(&self) -> bool {
        matches!(
            self.wake.try_recv(),
            Err(crossbeam_channel::TryRecvError::Disconnected)
        )
    }

    /// Has the writer do something, and waits for it.
    fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let work = Box::new(move |connection: &Connection| drop(reply.send(work(connection))));
        self.writer
            .send(work)
            .map_err(|_| EventStoreError::StoreClosed)?;
        answer.recv().map_err(|_| EventStoreError::StoreClosed)?
    }

    /// Has the writer change blocks that no live run refers to, in a transaction: they may be lost, and
    /// the commit that makes their run live flushes them with it.
    fn without_flush<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let usual = self.shared.database.synchronous();
        self.on_writer(move |connection| without_flush(connection, usual, work))
    }
}

fn build_from_log(connection: &Connection, first: u64, last: u64) -> Result<RunImage> {
    let mut postings = Vec::new();
    for_each_facets(connection, first - 1, last, |sequence_number, facets| {
        postings.extend(facets.iter().map(|&facet| (facet, sequence_number)));
    })?;
    Ok(RunImage::build(first, last, postings.into_iter()))
}

/// Indexes what an earlier process left behind, if it is more than a tail should hold.
pub(super) fn index_backlog(connection: &Connection) -> Result<()> {
    loop {
        let (_, indexed_through, head) = load_state(connection)?;
        if head - indexed_through < SEGMENT_EVENTS * 2 {
            return Ok(());
        }
        let last = head.min(indexed_through + BULK_EVENTS);
        let image = build_from_log(connection, indexed_through + 1, last)?;
        // Another process may do the same at the same time; then its run counts.
        in_transaction(connection, || install_new(connection, &image))?;
    }
}

/// Indexes the tail of a closing store, so that the next one starts with a short one.
pub(super) fn index_rest(shared: &Shared, connection: &Connection) -> Result<()> {
    let (runs, head) = shared.catalog.load(connection)?;
    if head - runs.indexed_through < WORTH_A_RUN {
        return Ok(());
    }
    let image = build_from_log(connection, runs.indexed_through + 1, head)?;
    in_transaction(connection, || install_new(connection, &image)).map(drop)
}
