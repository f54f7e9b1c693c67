use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Something that belongs to one thread, which waits for it if it has to. Others get it only while it is not used.
#[derive(Debug, Default)]
pub(super) struct Claimed<T> {
    value: Mutex<T>,
    /// Owners that wait: nobody else may come before them.
    claims: AtomicUsize,
}

impl<T> Claimed<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            claims: AtomicUsize::new(0),
        }
    }

    /// For the owner.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.claims.fetch_add(1, Ordering::Relaxed);
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.claims.fetch_sub(1, Ordering::Relaxed);
        value
    }

    /// For others. `None`: it is used, or waited for.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        if self.claims.load(Ordering::Relaxed) > 0 {
            return None;
        }
        match self.value.try_lock() {
            Ok(value) => Some(value),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
