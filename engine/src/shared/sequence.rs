//! The sequence lock of blocks, of a table's structure and of a ring's slots: which loads and stores may not pass each
//! other. Here alone, so that one model checks them all: the tests try every order that the memory model allows.
//!
//! Source: Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?", MSPC 2012.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A word that several processes load and one stores.
pub trait Word {
    /// Its value.
    fn load(&self, order: Ordering) -> u64;
    /// Sets it.
    fn store(&self, value: u64, order: Ordering);
    /// Keeps what comes before from what comes after.
    fn fence(order: Ordering);
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline]
    fn fence(order: Ordering) {
        fence(order);
    }
}

/// Changes by `work` what `sequence` guards: it is `during` meanwhile and `after` then.
#[inline]
pub fn change<W: Word>(sequence: &W, during: u64, after: u64, work: impl FnOnce()) {
    sequence.store(during, Ordering::Relaxed);
    // Nothing stored below may be seen by one who does not see that number.
    W::fence(Ordering::Release);
    work();
    sequence.store(after, Ordering::Release);
}

/// The number before a reader looks at what `sequence` guards.
#[inline]
pub fn before<W: Word>(sequence: &W) -> u64 {
    sequence.load(Ordering::Acquire)
}

/// Whether the number is still `before`, so that all that was loaded since is of one writing.
#[inline]
pub fn stood<W: Word>(sequence: &W, before: u64) -> bool {
    // None of the loads above may be done after the next one.
    W::fence(Ordering::Acquire);
    sequence.load(Ordering::Relaxed) == before
}

#[cfg(test)]
pub(super) mod model {
    //! Words whose loads give each value that the memory model allows, one run after the other.

    use loom::sync::atomic::{AtomicU64, fence};

    use super::{Ordering, Word};

    impl Word for AtomicU64 {
        fn load(&self, order: Ordering) -> u64 {
            self.load(order)
        }

        fn store(&self, value: u64, order: Ordering) {
            self.store(value, order);
        }

        fn fence(order: Ordering) {
            fence(order);
        }
    }

    /// Runs `test` in all orders in which threads are interrupted up to three times.
    pub fn check(test: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(test);
    }

    /// So many words, all 0.
    pub fn words(count: usize) -> loom::sync::Arc<Vec<AtomicU64>> {
        loom::sync::Arc::new((0..count).map(|_| AtomicU64::new(0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Two words behind a number, written twice by one thread and read by another.
    fn written_and_read(
        change: fn(&[loom::sync::atomic::AtomicU64], u64),
        stood: fn(&loom::sync::atomic::AtomicU64, u64) -> bool,
    ) {
        model::check(move || {
            let words = model::words(3);
            let writing = Arc::clone(&words);
            let writer = thread::spawn(move || (1..=2).for_each(|round| change(&writing, round)));
            let number = before(&words[0]);
            if number.is_multiple_of(2) {
                let (one, other) = (words[1].load(Ordering::Relaxed), words[2].load(Ordering::Relaxed));
                if stood(&words[0], number) {
                    assert_eq!((one, other), (number / 2, number / 2), "torn");
                }
            }
            writer.join().unwrap();
        });
    }

    fn set(words: &[loom::sync::atomic::AtomicU64], round: u64) {
        words[1].store(round, Ordering::Relaxed);
        words[2].store(round, Ordering::Relaxed);
    }

    fn rightly(words: &[loom::sync::atomic::AtomicU64], round: u64) {
        change(&words[0], round * 2 - 1, round * 2, || set(words, round));
    }

    #[test]
    fn what_stood_is_of_one_writing_in_every_order_of_memory() {
        written_and_read(rightly, stood);
    }

    #[test]
    #[should_panic(expected = "torn")]
    fn without_the_writers_fence_the_model_finds_a_mix() {
        let wrongly = |words: &[loom::sync::atomic::AtomicU64], round: u64| {
            words[0].store(round * 2 - 1, Ordering::Relaxed);
            set(words, round);
            words[0].store(round * 2, Ordering::Release);
        };
        written_and_read(wrongly, stood);
    }

    #[test]
    #[should_panic(expected = "torn")]
    fn without_the_readers_fence_the_model_finds_a_mix() {
        written_and_read(rightly, |sequence, number| sequence.load(Ordering::Relaxed) == number);
    }
}
