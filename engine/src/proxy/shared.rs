//! Small parts for what workers share: a lock, a count, chance.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};
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

thread_local! {
    static CHANCE: RefCell<Chance> = RefCell::new(Chance::new());
}

/// 64 bits of this thread's chance.
pub fn chance() -> u64 {
    CHANCE.with_borrow_mut(Chance::bits)
}

/// Chance where nobody gains by guessing it: xorshift64* (Vigna 2014), seeded by the system.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// A sequence of its own.
    pub fn new() -> Self {
        // The standard library's maps are seeded by the system; an empty hash passes that on.
        Self(RandomState::new().build_hasher().finish() | 1)
    }

    /// A number that another sequence may begin with.
    pub fn seed(&self) -> u64 {
        self.0
    }

    /// A number from 0 up to, but not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}
