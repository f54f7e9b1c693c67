use std::sync::Arc;

use super::Wakes;
use super::ready::Ready;
use super::source::Lease;
use crate::contract::StreamEnd;

pub(super) type Registered = Box<dyn FnOnce(Result<(), StreamEnd>) + Send>;
pub(super) type Closed = Box<dyn FnOnce(&StreamEnd) + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its place in the log, or its lease, is being asked for.
    Opening,
    /// Its lease is held by somebody else.
    StandingBy,
    Running,
    /// Its last cursor is being stored.
    Closing,
    Closed,
}

/// Positions are ends of batches: `position <= handed <= taken`.
pub(super) struct State {
    pub(super) phase: Phase,
    /// Why it ends; from then on no handler call starts.
    pub(super) stop: Option<StreamEnd>,
    pub(super) lease: Option<Arc<dyn Lease>>,
    /// The lease that it had.
    pub(super) released: Option<Arc<dyn Lease>>,
    /// Where a live stream began.
    pub(super) start: Option<u64>,
    /// Done with, up to here.
    pub(super) position: u64,
    /// The last batch of the chunks given out; the stream is idle if it is done with that.
    pub(super) handed: u64,
    /// Looked at, up to here.
    pub(super) taken: u64,
    /// The registration is complete when the stream is done with this.
    pub(super) target: u64,
    pub(super) registered: bool,
    /// The pull under way.
    pub(super) pull: Option<Ready>,
    /// The pull waits for a batch to be committed: nothing from `taken` to the head matches.
    pub(super) parked: bool,
    /// A handler call is under way.
    pub(super) handling: bool,
    /// Failed calls for the same batch.
    pub(super) failures: u32,
    pub(super) on_registered: Vec<Registered>,
    pub(super) on_closed: Vec<Closed>,
    /// Counts the times that it stood by, so that an old alarm is told from a new one.
    pub(super) round: u64,
    /// `Hub::releases` when the lease was asked for.
    pub(super) asked: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Opening,
            stop: None,
            lease: None,
            released: None,
            start: None,
            position: 0,
            handed: 0,
            taken: 0,
            target: 0,
            registered: false,
            pull: None,
            parked: false,
            handling: false,
            failures: 0,
            on_registered: Vec::new(),
            on_closed: Vec::new(),
            round: 0,
            asked: 0,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.position == self.handed
    }

    /// Where the stream is, given the store's head.
    pub(super) fn effective_position(&self, head: u64) -> u64 {
        if self.parked && self.is_idle() {
            self.position.max(head)
        } else {
            self.position
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.phase == Phase::Running && self.stop.is_none()
    }

    /// Up to `through` everything has been looked at, and nothing else than a chunk that ends there,
    /// if there is one, was found.
    pub(super) fn took(&mut self, through: u64, found: bool) {
        self.taken = self.taken.max(through);
        if found {
            self.handed = self.taken;
        } else if self.is_idle() {
            self.done_with(self.taken);
        }
    }

    pub(super) fn done_with(&mut self, position: u64) {
        if position <= self.position {
            return;
        }
        self.position = position;
        if position >= self.handed {
            // What follows the chunk, as far as it has been looked at, does not match.
            self.position = self.taken;
            self.handed = self.taken;
        }
        if let Some(lease) = &self.lease {
            lease.moved(self.position);
        }
    }

    /// Ends the wait of a parked pull. `through`: everything up to here has been looked at.
    pub(super) fn unpark(&mut self, through: u64, found: bool) -> Option<Ready> {
        self.parked = false;
        self.took(through, found);
        self.pull.take()
    }

    /// Moves a stream that waits on to the head: nothing before that matches.
    pub(super) fn move_idle(&mut self, head: u64) {
        if self.parked && self.is_idle() {
            self.took(head, false);
        }
    }

    pub(super) fn check_registered(&mut self, head: u64, wakes: &mut Wakes) {
        if self.registered || !self.is_active() || self.effective_position(head) < self.target {
            return;
        }
        self.registered = true;
        for callback in self.on_registered.drain(..) {
            wakes.push(move || callback(Ok(())));
        }
    }
}
