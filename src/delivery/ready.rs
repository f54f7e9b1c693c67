use std::sync::{Arc, Mutex};

use super::lock;
use super::subscription::Pulled;

/// The one who waits for a pull.
pub(super) struct Ready(pub(super) Arc<Mutex<Slot>>);

pub(super) enum Slot {
    Asked,
    /// Answered before the pull returned.
    Early(Pulled),
    Waiting(Box<dyn FnOnce(Pulled) + Send>),
    Answered,
}

impl Ready {
    pub(super) fn answer(self, pulled: Pulled) {
        let mut slot = lock(&self.0);
        match std::mem::replace(&mut *slot, Slot::Answered) {
            Slot::Waiting(ready) => {
                drop(slot);
                ready(pulled);
            }
            _ => *slot = Slot::Early(pulled),
        }
    }
}
