//! A bounded ring: one producer, any number of consumers that each see every message, or are told how many they lost.
//!
//! A producer never waits for consumers; one that falls behind by more than the slots finds a later number and knows what
//! it lost. Consumers write nothing, so their death leaves nothing; a producer that dies in mid-write leaves a message
//! that was never counted, and its slot is written again by the next one. How messages lie in the slots is [`super::slots`]'.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::SharedError;
use super::files::{self, whole_file};
use super::layout::{self, LAYOUT, load, to_index};
use super::mapping::Mapping;
use super::slots::{Look, header, look, slot, write};

const MAGIC: u64 = u64::from_ne_bytes(*b"UNISHRNG");
/// Slots of a ring, at most.
const SLOTS_MAX: usize = 1 << 24;

/// Writes a ring; one process at a time may.
pub struct Producer {
    mapping: Mapping,
    slots: usize,
    stride: usize,
    /// Held for as long as this lives; the kernel lets go of it with the process.
    _lock: File,
}

impl Producer {
    /// Goes on with the ring at `path`, or makes one of `slots` slots, rounded up to a power of two, for messages of at
    /// most `message_bytes`; a ring of other measures is replaced, and its messages are gone.
    ///
    /// # Errors
    /// A measure is out of range, the memory is not there, or another process writes this ring.
    pub fn open(path: &Path, slots: usize, message_bytes: usize) -> Result<Self, SharedError> {
        if !(1..=SLOTS_MAX).contains(&slots) {
            return Err(SharedError::Invalid(format!("a ring of {slots} slots; 1 to {SLOTS_MAX} would be right")));
        }
        let slots = slots.next_power_of_two();
        let stride = slot::BODY + layout::words(message_bytes);
        let words = stride.checked_mul(slots).map_or(usize::MAX, |body| body.saturating_add(header::END));
        if message_bytes == 0 || words as u64 > layout::SIZE_BYTES_MAX / 8 {
            let most = layout::SIZE_BYTES_MAX;
            return Err(SharedError::Invalid(format!(
                "{slots} messages of {message_bytes} bytes; 1 byte or more, and {most} in all, would be right"
            )));
        }
        let lock = files::lock_of_writer(path)?;
        let mapping = match same(path, slots, stride) {
            Some(mapping) => mapping,
            None => make(path, slots, stride, words)?,
        };
        Ok(Self { mapping, slots, stride, _lock: lock })
    }

    /// Writes a message; returns its number, from 0. The oldest goes for it when the ring is full.
    ///
    /// # Errors
    /// It is longer than the ring's messages may be; nothing was written.
    pub fn push(&mut self, message: &[u8]) -> Result<u64, SharedError> {
        let most = (self.stride - slot::BODY) * 8;
        if message.len() > most {
            let found = message.len();
            return Err(SharedError::Invalid(format!("a message of {found} bytes; at most {most} fit this ring")));
        }
        let words = self.mapping.words();
        let number = load(words, header::HEAD);
        write(words, number, self.slots, self.stride, message);
        Ok(number)
    }
}

/// Reads a ring from some message on; of one consumer's own, others see what they see.
pub struct Consumer {
    path: PathBuf,
    mapping: Mapping,
    slots: usize,
    stride: usize,
    next: u64,
    /// Messages that were lost since the last one was taken.
    lost: u64,
}

/// A message, its number, and how many before it were lost since the last.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// The message.
    pub message: Vec<u8>,
    /// Its number, from 0.
    pub number: u64,
    /// Messages that were overwritten before they were taken.
    pub lost: u64,
}

impl Consumer {
    /// Reads the ring at `path` from message `position` on; `None`: from the next that is written.
    ///
    /// # Errors
    /// There is no ring, it may not be read, it is something else, or `position` lies beyond what was written.
    pub fn open(path: &Path, position: Option<u64>) -> Result<Self, SharedError> {
        let (mapping, slots, stride) = open(path, false)?;
        let head = mapping.words()[header::HEAD].load(Ordering::Acquire);
        let next = position.unwrap_or(head);
        if next > head {
            return Err(SharedError::Invalid(format!("position {next}; the ring is another one, it is at {head}")));
        }
        Ok(Self { path: path.to_owned(), mapping, slots, stride, next, lost: 0 })
    }

    /// The number of the message that comes next.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next message, or `None` if there is none yet; never waits.
    ///
    /// # Errors
    /// The ring is damaged, or another that took its place can't be read.
    pub fn take(&mut self) -> Result<Option<Taken>, SharedError> {
        loop {
            let words = self.mapping.words();
            // Before the count: who sees that the ring is retired sees all that was written to it.
            let retired = words[header::RETIRED].load(Ordering::Acquire) == 1;
            let head = words[header::HEAD].load(Ordering::Acquire);
            if self.next >= head {
                if !retired {
                    return Ok(None);
                }
                // All of this one is taken: go on with the one in its place, from its beginning.
                (self.mapping, self.slots, self.stride) = open(&self.path, false)?;
                self.next = 0;
                continue;
            }
            match look(words, head, self.next, self.slots, self.stride) {
                Look::Taken(message) => {
                    self.next += 1;
                    let lost = std::mem::take(&mut self.lost);
                    return Ok(Some(Taken { message, number: self.next - 1, lost }));
                }
                Look::Lost(count) => {
                    self.lost += count;
                    self.next += count;
                }
                Look::Damaged => return Err(SharedError::Damaged),
            }
        }
    }
}

/// The ring at `path`, if it has these measures.
fn same(path: &Path, slots: usize, stride: usize) -> Option<Mapping> {
    let (mapping, found_slots, found_stride) = open(path, true).ok()?;
    ((found_slots, found_stride) == (slots, stride)).then_some(mapping)
}

/// Makes a whole ring, then puts it in the place of the one before, which it retires.
fn make(path: &Path, slots: usize, stride: usize, words: usize) -> Result<Mapping, SharedError> {
    let made = files::fresh(path, words as u64 * 8)?;
    let mapping = Mapping::new(&made, words, true).map_err(|error| SharedError::Io(path.to_owned(), error))?;
    for (index, value) in [
        (layout::header::MAGIC, MAGIC),
        (layout::header::LAYOUT, LAYOUT),
        (layout::header::WORDS, words as u64),
        (header::SLOTS, slots as u64),
        (header::STRIDE, stride as u64),
    ] {
        mapping.words()[index].store(value, Ordering::Relaxed);
    }
    let before = open(path, true);
    files::put_in_place(path)?;
    if let Ok((before, ..)) = before {
        before.words()[header::RETIRED].store(1, Ordering::Release);
    }
    Ok(mapping)
}

/// Opens and checks the ring at `path`: its words, slots and words of a slot.
fn open(path: &Path, writable: bool) -> Result<(Mapping, usize, usize), SharedError> {
    let failed = |error| SharedError::Io(path.to_owned(), error);
    let file = OpenOptions::new().read(true).write(writable).open(path).map_err(failed)?;
    let words = whole_file(&file, path, MAGIC, "ring", header::END)?;
    let mapping = Mapping::new(&file, to_index(words), writable).map_err(failed)?;
    let all = mapping.words();
    let (slots, stride) = (load(all, header::SLOTS), load(all, header::STRIDE));
    let fits = slots.checked_mul(stride).and_then(|body| body.checked_add(header::END as u64)) == Some(words);
    if !fits || !slots.is_power_of_two() || stride <= slot::BODY as u64 {
        let reason = format!("is damaged: {words} words, and it says {slots} slots of {stride} words");
        return Err(SharedError::Foreign(path.to_owned(), reason));
    }
    Ok((mapping, to_index(slots), to_index(stride)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Folder;
    use super::*;

    fn ring(folder: &Folder, slots: usize) -> (Producer, Consumer) {
        let producer = Producer::open(&folder.table(), slots, 64).unwrap();
        (producer, Consumer::open(&folder.table(), Some(0)).unwrap())
    }

    fn taken(message: &[u8], number: u64, lost: u64) -> Option<Taken> {
        Some(Taken { message: message.to_vec(), number, lost })
    }

    #[test]
    fn each_consumer_sees_every_message_in_order() {
        let folder = Folder::new();
        let (mut producer, mut one) = ring(&folder, 4);
        let mut other = Consumer::open(&folder.table(), None).unwrap();
        producer.push(b"first").unwrap();
        producer.push(b"").unwrap();

        for consumer in [&mut one, &mut other] {
            assert_eq!(consumer.take().unwrap(), taken(b"first", 0, 0));
            assert_eq!(consumer.take().unwrap(), taken(b"", 1, 0));
            assert_eq!(consumer.take().unwrap(), None);
        }
    }

    #[test]
    fn one_that_falls_behind_is_told_how_many_it_lost() {
        let folder = Folder::new();
        let (mut producer, mut consumer) = ring(&folder, 4);
        for number in 0..11_u8 {
            producer.push(&[number]).unwrap();
        }

        assert_eq!(consumer.take().unwrap(), taken(&[7], 7, 7));
        assert_eq!(consumer.take().unwrap(), taken(&[8], 8, 0));
    }

    #[test]
    fn a_producer_that_died_in_mid_write_costs_the_message_it_wrote_over_and_no_more() {
        let folder = Folder::new();
        let (mut producer, mut consumer) = ring(&folder, 1);
        producer.push(b"old").unwrap();
        producer.mapping.words()[header::END + slot::SEQUENCE].store(3, Ordering::Relaxed);
        drop(producer);

        assert_eq!(consumer.take().unwrap(), None);
        let mut producer = Producer::open(&folder.table(), 1, 64).unwrap();
        assert_eq!(producer.push(b"new").unwrap(), 1);
        assert_eq!(consumer.take().unwrap(), taken(b"new", 1, 1));
    }

    #[test]
    fn a_producer_that_died_before_it_counted_a_message_leaves_none() {
        let folder = Folder::new();
        let (mut producer, mut consumer) = ring(&folder, 4);
        producer.push(b"unsaid").unwrap();
        producer.mapping.words()[header::HEAD].store(0, Ordering::Relaxed);
        drop(producer);

        assert_eq!(consumer.take().unwrap(), None);
        Producer::open(&folder.table(), 4, 64).unwrap().push(b"said").unwrap();
        assert_eq!(consumer.take().unwrap(), taken(b"said", 0, 0));
    }

    #[test]
    fn a_ring_of_other_measures_takes_the_old_ones_place_after_its_last_message() {
        let folder = Folder::new();
        let (mut producer, mut consumer) = ring(&folder, 4);
        producer.push(b"old").unwrap();
        drop(producer);
        Producer::open(&folder.table(), 8, 64).unwrap().push(b"new").unwrap();

        assert_eq!(consumer.take().unwrap(), taken(b"old", 0, 0));
        assert_eq!(consumer.take().unwrap(), taken(b"new", 0, 0));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = Folder::new();
        let (mut producer, _) = ring(&folder, 4);

        assert!(matches!(producer.push(&[0; 65]), Err(SharedError::Invalid(_))));
        assert!(matches!(Producer::open(&folder.table(), 4, 64), Err(SharedError::Busy(_))));
        assert!(matches!(Producer::open(&folder.table(), 0, 64), Err(SharedError::Invalid(_))));
        assert!(matches!(Producer::open(&folder.table(), 1 << 20, 1 << 20), Err(SharedError::Invalid(_))));
        assert!(matches!(Consumer::open(&folder.table(), Some(1)), Err(SharedError::Invalid(_))));
        std::fs::write(folder.table(), b"something else").unwrap();
        assert!(matches!(Consumer::open(&folder.table(), None), Err(SharedError::Foreign(..))));
    }

    #[test]
    fn messages_are_whole_and_none_is_missing_unless_told() {
        const MESSAGES: u64 = 300_000;
        let folder = Folder::new();
        let (mut producer, _) = ring(&folder, 8);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut consumer = Consumer::open(&folder.table(), Some(0)).unwrap();
                    let mut expected = 0;
                    while expected < MESSAGES {
                        let Some(taken) = consumer.take().unwrap() else { continue };
                        let whole = taken.message.chunks(8).all(|word| word == taken.number.to_ne_bytes());
                        assert!(whole && taken.message.len() as u64 == 8 * (1 + taken.number % 8), "{taken:?}");
                        assert_eq!(taken.number, expected + taken.lost);
                        expected = taken.number + 1;
                    }
                });
            }
            for number in 0..MESSAGES {
                producer.push(&number.to_ne_bytes().repeat(to_index(1 + number % 8))).unwrap();
            }
        });
    }
}
