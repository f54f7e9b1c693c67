//! The one stream engine of all stores: every stream is a position on the store's one ordered log.
//!
//! [`Delivery`] keeps the newest committed batches of a store in a bounded ring, and its streams. A
//! store publishes what it commits, in order, and reads back what the ring has no more, through a
//! [`LogSource`]. Streams are pulled: whoever runs a handler asks its [`Subscription`] for the next
//! chunk, so a slow handler holds memory for one chunk and nothing is ever pushed at it.
//!
//! Locks are taken in the order hub, subscription; callbacks run when neither is held.

mod batch;
mod chunk;
mod clock;
mod ending;
mod engine;
mod facade;
mod held;
mod hub;
mod opening;
mod page;
mod ready;
mod ring;
mod runner;
mod source;
mod state;
mod subscription;
#[cfg(all(test, feature = "memory"))]
mod tests;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use batch::CommittedBatch;
pub(crate) use chunk::Chunk;
pub(crate) use engine::Delivery;
pub(crate) use held::{HeldLeases, LeaseKeeper, Left, Moved, draw_owner};
pub(crate) use opening::check_name;
pub(crate) use page::{BatchPage, Borders, read_page};
pub(crate) use runner::is_inside_handler;
pub(crate) use source::{BatchRequest, Lease, LeaseRequest, LogSource, Reply, Taken};
pub(crate) use subscription::{Durable, Pulled, Registration, Subscription, Verdict};

/// Something to be called once no lock is held.
pub(crate) type Wake = Box<dyn FnOnce() + Send>;

/// What became due while locks were held. To be fired after they are released.
#[must_use]
#[derive(Default)]
pub(crate) struct Wakes(Vec<Wake>);

impl Wakes {
    fn push(&mut self, wake: impl FnOnce() + Send + 'static) {
        self.0.push(Box::new(wake));
    }

    pub(crate) fn fire(self) {
        for wake in self.0 {
            wake();
        }
    }
}

/// A panic while a lock of ours is held would have to be a bug in this module; streams go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
