//! Small parts for what threads share: a lock, a count.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock whose value is never left half changed: a panic elsewhere is no reason to stop then.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A count that any worker adds to and that is read now and then: it rises, and falls where it counts what there is at a time. Orders nothing else in memory.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less; gives what is left.
    pub fn less(&self) -> u64 {
        self.0.fetch_sub(1, Ordering::Relaxed) - 1
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
