//! The slots of a ring: how messages lie in them, and how one is written and looked for. No input or output here.
//!
//! Each slot is behind a sequence lock, as the blocks of a table are: message `n` lies in slot `n % slots`, whose number
//! is `2n + 1` while it is written and `2n + 2` after that. `HEAD` counts what has been written.

use std::sync::atomic::Ordering;

use super::layout::{self, load, to_index};
use super::sequence::{self, Word};

/// Words of the header, by what they hold.
pub mod header {
    /// Slots, a power of two.
    pub const SLOTS: usize = 3;
    /// Words of a slot.
    pub const STRIDE: usize = 4;
    /// 1 once another ring has taken this one's place.
    pub const RETIRED: usize = 5;
    /// Messages that have been written. In a cache line of its own.
    pub const HEAD: usize = 8;
    /// Where the slots begin.
    pub const END: usize = 16;
}

/// Words of a slot, by what they hold.
pub mod slot {
    /// Sequence number of the message.
    pub const SEQUENCE: usize = 0;
    /// Bytes of the message.
    pub const LENGTH: usize = 1;
    /// Where the message begins.
    pub const BODY: usize = 2;
}

/// Writes message `number`, then counts it.
pub fn write<W: Word>(words: &[W], number: u64, slots: usize, stride: usize, message: &[u8]) {
    let at = place(number, slots, stride);
    sequence::change(&words[at + slot::SEQUENCE], number * 2 + 1, number * 2 + 2, || {
        words[at + slot::LENGTH].store(message.len() as u64, Ordering::Relaxed);
        for i in 0..layout::words(message.len()) {
            words[at + slot::BODY + i].store(layout::word(message, i), Ordering::Relaxed);
        }
    });
    words[header::HEAD].store(number + 1, Ordering::Release);
}

/// What a look for a message finds.
pub enum Look {
    /// The message.
    Taken(Vec<u8>),
    /// So many from `next` on were written over, or are being so.
    Lost(u64),
    /// What was counted is not there, or is no message.
    Damaged,
}

/// One look for message `next`, of `head` that were counted.
pub fn look<W: Word>(words: &[W], head: u64, next: u64, slots: usize, stride: usize) -> Look {
    let oldest = head.saturating_sub(slots as u64);
    if next < oldest {
        return Look::Lost(oldest - next);
    }
    let at = place(next, slots, stride);
    let wanted = next * 2 + 2;
    let number = sequence::before(&words[at + slot::SEQUENCE]);
    if number < wanted {
        return Look::Damaged; // it was counted, and it is not there
    }
    let found = if number == wanted { read(&words[at..at + stride]) } else { None };
    if number > wanted || !sequence::stood(&words[at + slot::SEQUENCE], number) {
        return Look::Lost(1); // a later one is written over it
    }
    found.map_or(Look::Damaged, Look::Taken)
}

/// What the slot seems to hold; to be believed only if its sequence number stood still.
fn read<W: Word>(slot: &[W]) -> Option<Vec<u8>> {
    let length = to_index(load(slot, slot::LENGTH));
    let words = layout::words(length);
    if words > slot.len() - slot::BODY {
        return None;
    }
    let mut message = Vec::with_capacity(words * 8);
    for i in 0..words {
        message.extend_from_slice(&load(slot, slot::BODY + i).to_ne_bytes());
    }
    message.truncate(length);
    Some(message)
}

/// Where the slot of message `number` begins.
fn place(number: u64, slots: usize, stride: usize) -> usize {
    header::END + to_index(number & (slots as u64 - 1)) * stride
}

#[cfg(test)]
mod tests {
    use super::super::sequence::model;
    use super::*;

    /// A producer in one thread and a consumer in another, in every order of memory; `count` is what the producer does.
    fn modelled(count: fn(&[loom::sync::atomic::AtomicU64], u64)) {
        model::check(move || {
            let (slots, stride) = (1, slot::BODY + 1);
            let words = model::words(header::END + slots * stride);
            let producing = loom::sync::Arc::clone(&words);
            let producer = loom::thread::spawn(move || (0..2).for_each(|number| count(&producing, number)));
            let mut next = 0;
            for _ in 0..2 {
                let head = words[header::HEAD].load(Ordering::Acquire);
                if next < head {
                    match look(&words, head, next, slots, stride) {
                        Look::Taken(message) => {
                            assert_eq!(message, (next + 1).to_ne_bytes(), "not the message that was counted");
                            next += 1;
                        }
                        Look::Lost(lost) => next += lost,
                        Look::Damaged => panic!("not the message that was counted"),
                    }
                }
            }
            producer.join().unwrap();
        });
    }

    #[test]
    fn a_message_that_is_counted_is_there_and_whole_in_every_order_of_memory() {
        modelled(|words, number| write(words, number, 1, slot::BODY + 1, &(number + 1).to_ne_bytes()));
    }

    #[test]
    #[should_panic(expected = "not the message that was counted")]
    fn counted_too_early_the_model_finds_it_missing() {
        modelled(|words, number| {
            words[header::HEAD].store(number + 1, Ordering::Release);
            write(words, number, 1, slot::BODY + 1, &(number + 1).to_ne_bytes());
        });
    }
}
