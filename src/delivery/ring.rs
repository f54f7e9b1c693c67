use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::CommittedBatch;

/// What a ring keeps at most.
pub(super) const RING_BATCHES: usize = 1_024;
pub(super) const RING_BYTES: usize = 8 * 1024 * 1024;

/// The newest committed batches, without a gap.
#[derive(Debug, Default)]
pub(super) struct Ring {
    batches: VecDeque<Arc<CommittedBatch>>,
    bytes: usize,
}

impl Ring {
    /// Adds a batch; one that does not follow the last one starts the ring anew.
    pub(super) fn push(&mut self, batch: Arc<CommittedBatch>) {
        if self
            .batches
            .back()
            .is_some_and(|newest| newest.last() + 1 != batch.first)
        {
            self.clear();
        }
        self.bytes += batch.weight();
        self.batches.push_back(batch);
        while self.batches.len() > RING_BATCHES || self.bytes > RING_BYTES {
            let Some(oldest) = self.batches.pop_front() else {
                break;
            };
            self.bytes -= oldest.weight();
        }
    }

    pub(super) fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
    }

    /// The batches after a position, `None` if the one that follows it is not here.
    pub(super) fn after(&self, position: u64) -> Option<Vec<Arc<CommittedBatch>>> {
        let index = self
            .batches
            .partition_point(|batch| batch.last() <= position);
        let first = self.batches.get(index)?.first;
        (first == position + 1).then(|| self.batches.range(index..).cloned().collect())
    }
}
