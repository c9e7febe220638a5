//! The hybrid logical clock, for many threads at once: causal like Lamport's, and never far from real time.
//!
//! A stamp packs 48 bits of milliseconds since the epoch and a counter of 16 bits into one number, so that numeric
//! order is the clock's order. Time comes from outside; the readable definition, with which a test compares this
//! step by step, is `unisono.timestamps.hybrid`.
//!
//! Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks", OPODIS 2014, figure 5. As there, a stamp
//! too far ahead of the physical clock is refused, since one bad clock would poison all; a counter that is full moves
//! the logical milliseconds on by one.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of a stamp that count events within a millisecond.
pub const COUNTER_BITS: u32 = 16;
/// The largest time of the physical clock that a stamp has room for, in milliseconds since the epoch.
pub const MILLIS_MAX: u64 = (1 << 48) - 1;

/// A received stamp lies too far ahead of the physical clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// By so many milliseconds.
    pub ms: u64,
}

/// One process's clock.
#[derive(Debug)]
pub struct Clock {
    last: AtomicU64,
    refused: AtomicU64,
    max_drift_ms: u64,
}

impl Clock {
    /// A clock whose stamps all exceed `start`, and that follows stamps up to `max_drift_ms` ahead of its own time.
    pub fn new(start: u64, max_drift_ms: u64) -> Self {
        Self { last: AtomicU64::new(start), refused: AtomicU64::new(0), max_drift_ms }
    }

    /// The stamp of a local event, or of a message about to be sent; above all before it, in any thread.
    ///
    /// Packed, the paper's two cases are one: the physical clock with counter 0 where that is ahead, else the last
    /// stamp plus one. A full counter carries into the milliseconds.
    pub fn now(&self, physical_ms: u64) -> u64 {
        self.rise(0, physical_ms)
    }

    /// The stamp of receiving a message that bears `received`; above it and above all before.
    ///
    /// # Errors
    /// It is more than the allowed drift ahead; the clock stays as it was and counts it.
    pub fn merge(&self, received: u64, physical_ms: u64) -> Result<u64, Ahead> {
        let ahead = (received >> COUNTER_BITS).saturating_sub(physical_ms);
        if ahead > self.max_drift_ms {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Ahead { ms: ahead });
        }
        Ok(self.rise(received, physical_ms))
    }

    /// The greatest stamp given out or seen.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Received stamps that were too far ahead.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How far ahead of the physical clock a received stamp may be, in milliseconds.
    pub fn max_drift_ms(&self) -> u64 {
        self.max_drift_ms
    }

    /// A compare-and-swap that fails has been overtaken by a greater stamp, so this ends; what else a thread has
    /// written is not ordered by it, a stamp says what it says by itself.
    fn rise(&self, received: u64, physical_ms: u64) -> u64 {
        let least = (physical_ms.min(MILLIS_MAX) << COUNTER_BITS).max(received.saturating_add(1));
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let next = least.max(last.saturating_add(1));
            match self.last.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return next,
                Err(newer) => last = newer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clock_that_stands_still_counts() {
        let clock = Clock::new(0, 500);

        assert_eq!((clock.now(7), clock.now(7), clock.now(8)), (7 << 16, (7 << 16) + 1, 8 << 16));
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let clock = Clock::new((7 << 16) | 0xffff, 500);

        assert_eq!(clock.now(7), 8 << 16);
    }

    #[test]
    fn a_stamp_too_far_ahead_is_refused_counted_and_forgotten() {
        let clock = Clock::new(0, 500);
        let before = clock.now(1000);

        assert_eq!(clock.merge(1501 << 16, 1000), Err(Ahead { ms: 501 }));
        assert_eq!((clock.last(), clock.refused()), (before, 1));
        assert_eq!(clock.merge(1500 << 16, 1000), Ok((1500 << 16) + 1));
    }

    #[test]
    fn threads_never_get_the_same_stamp() {
        let clock = Arc::new(Clock::new(0, 500));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let clock = Arc::clone(&clock);
                std::thread::spawn(move || (0..10_000).map(|_| clock.now(7)).collect::<Vec<_>>())
            })
            .collect();
        let mut stamps: Vec<u64> = Vec::new();
        for thread in threads {
            let own = thread.join().unwrap();
            assert!(own.is_sorted_by(|a, b| a < b));
            stamps.extend(own);
        }
        stamps.sort_unstable();
        stamps.dedup();

        assert_eq!(stamps.len(), 40_000);
    }

    proptest! {
        #[test]
        fn stamps_rise_whatever_the_physical_clock_does(steps in prop::collection::vec((any::<Option<u64>>(), 0..1u64 << 48), 1..100)) {
            let clock = Clock::new(0, 500);
            let mut last = 0;
            for (received, physical) in steps {
                let stamp = match received {
                    None => clock.now(physical),
                    Some(received) => match clock.merge(received, physical) {
                        Ok(stamp) => { prop_assert!(stamp > received || received == u64::MAX); stamp }
                        Err(_) => { prop_assert_eq!(clock.last(), last); continue }
                    },
                };
                prop_assert!(stamp > last || last == u64::MAX);
                last = stamp;
            }
        }
    }
}
