//! The postings of the newest events, which no run covers yet, in memory.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::index::{Cursor, FacetMap};
use crate::payload::{CompiledQuery, Facet};
use crate::selection::{Span, walk};

/// A segment of this many events is complete: the next run.
pub(super) const SEGMENT_EVENTS: u64 = 8_192;

/// A contiguous part of the tail. Only the newest one of a tail grows.
#[derive(Debug)]
pub(super) struct TailSegment {
    /// Exclusive.
    pub(super) after: u64,
    postings: RwLock<Postings>,
}

#[derive(Debug)]
struct Postings {
    /// Inclusive; `after` while empty.
    through: u64,
    facets: FacetMap,
}

impl TailSegment {
    pub(super) fn new(after: u64) -> Self {
        let postings = Postings {
            through: after,
            facets: FacetMap::new(1),
        };
        Self {
            after,
            postings: RwLock::new(postings),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Postings> {
        self.postings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Postings> {
        self.postings
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn through(&self) -> u64 {
        self.read().through
    }

    /// Adds the event after the last one.
    pub(super) fn push(&self, facets: &[Facet]) {
        let mut postings = self.write();
        postings.through += 1;
        let sequence_number = postings.through;
        postings.facets.push(sequence_number, facets);
    }

    /// Hands all postings to `take`.
    pub(super) fn with_postings<T>(
        &self,
        take: impl FnOnce(&mut dyn Iterator<Item = (Facet, u64)>) -> T,
    ) -> T {
        let postings = self.read();
        take(&mut postings.facets.iter().flat_map(|(facet, positions)| {
            positions.iter().map(move |&position| (facet, position))
        }))
    }

    /// The candidates in a span, in its direction; `None`: every event is one.
    pub(super) fn candidates(&self, query: &CompiledQuery, span: Span) -> Option<Vec<u64>> {
        let postings = self.read();
        let Ok(mut cursor) = Cursor::open(&&postings.facets, query);
        if matches!(cursor, Cursor::Every) {
            return None;
        }
        let span = Span {
            after: span.after.max(self.after),
            through: span.through.min(postings.through),
            ..span
        };
        let mut found = Vec::new();
        let Ok(_) = walk::<_, std::convert::Infallible>(&mut cursor, span, |candidate| {
            found.push(candidate);
            Ok(ControlFlow::Continue(()))
        });
        Some(found)
    }
}

/// All segments from where the runs end.
#[derive(Debug)]
pub(super) struct Tail {
    /// Ascending and contiguous, never empty; the last one grows.
    segments: RwLock<VecDeque<Arc<TailSegment>>>,
}

/// The segments as of one moment. The last one may still grow.
pub(super) type TailView = Vec<Arc<TailSegment>>;

impl Tail {
    pub(super) fn new(after: u64) -> Self {
        Self {
            segments: RwLock::new(VecDeque::from([Arc::new(TailSegment::new(after))])),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, VecDeque<Arc<TailSegment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, VecDeque<Arc<TailSegment>>> {
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn view(&self) -> TailView {
        self.read().iter().cloned().collect()
    }

    /// The newest event that the tail knows.
    pub(super) fn through(&self) -> u64 {
        self.read().back().map_or(0, |newest| newest.through())
    }

    /// How many complete segments wait to become runs.
    pub(super) fn backlog(&self) -> usize {
        self.read().len() - 1
    }

    /// The oldest segment, if it is complete.
    pub(super) fn oldest_complete(&self) -> Option<Arc<TailSegment>> {
        let segments = self.read();
        segments.front().filter(|_| segments.len() > 1).cloned()
    }

    /// Adds committed events: `events` yields the facets of `first`, `first + 1`, … Events that the
    /// tail knows already are skipped, and it stays as it is if some would be missing in between.
    pub(super) fn extend<'f>(&self, first: u64, events: impl Iterator<Item = &'f [Facet]>) {
        let mut segments = self.write();
        let Some(mut newest) = segments.back().cloned() else {
            return;
        };
        let mut through = newest.through();
        if first > through + 1 {
            return;
        }
        for (sequence_number, facets) in (first..).zip(events) {
            if sequence_number <= through {
                continue;
            }
            newest.push(facets);
            through = sequence_number;
            if through - newest.after >= SEGMENT_EVENTS {
                newest = Arc::new(TailSegment::new(through));
                segments.push_back(newest.clone());
            }
        }
    }

    /// Forgets segments that runs cover, and starts anew if the runs go beyond the tail.
    pub(super) fn prune(&self, indexed_through: u64) {
        let mut segments = self.write();
        while segments.len() > 1
            && segments
                .front()
                .is_some_and(|oldest| oldest.through() <= indexed_through)
        {
            segments.pop_front();
        }
        if segments
            .back()
            .is_some_and(|newest| newest.through() < indexed_through)
        {
            segments.clear();
            segments.push_back(Arc::new(TailSegment::new(indexed_through)));
        }
    }
}
