//! Chance: for each thread by itself, or as a sequence from a seed.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};

thread_local! {
    static CHANCE: RefCell<Chance> = RefCell::new(Chance::new(seed()));
}

/// 64 bits of this thread's chance.
pub fn chance() -> u64 {
    CHANCE.with_borrow_mut(Chance::bits)
}

/// A number from the system that a sequence may begin with.
pub fn seed() -> u64 {
    // The standard library's maps are seeded by the system; an empty hash passes that on.
    RandomState::new().build_hasher().finish()
}

/// Chance where nobody gains by guessing it: xorshift64* (Vigna 2014).
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        // Zeros would stay zeros.
        Self(seed | 1)
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
