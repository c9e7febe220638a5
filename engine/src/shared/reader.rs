//! Readers of a table. A look-up is loads alone: no lock that a writer or a dead process could hold, no system call.
//!
//! Nothing that was read is trusted before it is proved: each place is checked to lie inside, each chain is bounded,
//! and so is each repetition.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::SharedError;
use super::files::whole_file;
use super::layout::{self, block, bucket, header, load, to_index};
use super::mapping::Mapping;
use super::sequence;

/// How often a look-up begins anew before it says that the entry can't be read: some 100 microseconds.
const TRIES: u32 = 4096;
/// Bytes of a short value, a multiple of 8.
const SHORT: usize = 256;
/// From this age on a table is looked for at its path again, so often.
const OLD_NS: u64 = 1_000_000_000;
/// Blocks of one chain; more of them are a loop, as a reader may meet for a moment.
const CHAIN_MAX: usize = 1 << 16;

/// Room for the bytes of one value. What is short needs no allocation, which would be a tenth of a read.
pub struct Room {
    short: [u8; SHORT],
    long: Vec<u8>,
    length: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { short: [0; SHORT], long: Vec::new(), length: 0 }
    }
}

impl Room {
    /// The value that was read last.
    pub fn bytes(&self) -> &[u8] {
        if self.length <= SHORT { &self.short[..self.length] } else { &self.long[..self.length] }
    }

    /// Whole words for `length` bytes.
    fn take(&mut self, length: usize) -> &mut [u8] {
        self.length = length;
        let whole = layout::words(length) * 8;
        if whole <= SHORT {
            return &mut self.short[..whole];
        }
        self.long.resize(whole, 0);
        &mut self.long
    }
}

/// Which value it is that was read.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The revision that set it.
    pub revision: u64,
    /// Its timestamp.
    pub timestamp: u64,
}

/// How far a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Every change up to this revision is in it.
    pub revision: u64,
    /// So many nanoseconds ago that was all there was.
    pub age_ns: u64,
    /// Which writer it has, from 1.
    pub epoch: u64,
}

/// Reads the table at a path, and the one that takes its place.
pub struct Reader {
    path: PathBuf,
    mapping: RwLock<Arc<Mapping>>,
    /// When it was last looked whether an old table is still the one at the path.
    looked: AtomicU64,
}

impl Reader {
    /// Opens the table at `path`.
    ///
    /// # Errors
    /// There is none, it may not be read, or it is of another layout.
    pub fn open(path: &Path) -> Result<Self, SharedError> {
        Ok(Self { path: path.to_owned(), mapping: RwLock::new(Arc::new(open(path)?)), looked: AtomicU64::new(0) })
    }

    /// Which value `key` has, with its bytes in `room`; `None` where it has none.
    ///
    /// # Errors
    /// The entry can't be read just now, or the table is damaged, or a newer one is of another layout.
    pub fn read(&self, key: &[u8], room: &mut Room) -> Result<Option<Read>, SharedError> {
        let mapping = self.current()?;
        let words = mapping.words();
        let hash = layout::hash(key);
        for _ in 0..TRIES {
            match look(words, key, hash, room) {
                Look::Found(read) => return Ok(Some(read)),
                // Loaded after the look that found nothing: who saw an entry go for want of room sees this, too.
                Look::Absent if words[header::INCOMPLETE].load(Ordering::Acquire) == 1 => {
                    return Err(SharedError::LeftOut);
                }
                Look::Absent => return Ok(None),
                Look::Damaged => return Err(SharedError::Damaged),
                Look::Again => std::hint::spin_loop(),
            }
        }
        Err(SharedError::Unreadable)
    }

    /// How far the table is. What is read afterwards is at least as new.
    ///
    /// # Errors
    /// A newer table is of another layout.
    pub fn progress(&self) -> Result<Progress, SharedError> {
        let mapping = self.current()?;
        let words = mapping.words();
        // The time first: the revision was stored before it.
        let alive = words[header::ALIVE].load(Ordering::Acquire);
        let revision = words[header::REVISION].load(Ordering::Acquire);
        Ok(Progress { revision, age_ns: now().saturating_sub(alive), epoch: load(words, header::EPOCH) })
    }

    /// Looks whether another file has come to lie at the path: a writer that dies between renaming the new table and
    /// retiring the old one leaves no other sign. Takes a system call; for readers that find the table old.
    ///
    /// # Errors
    /// There is none, or it is of another layout.
    pub fn reopen(&self) -> Result<(), SharedError> {
        let newer = Arc::new(open(&self.path)?);
        *self.mapping.write().unwrap_or_else(PoisonError::into_inner) = newer;
        Ok(())
    }

    /// Whether an old table should be looked for at its path again: not each time, since a look takes system calls.
    fn suspects(&self, words: &[AtomicU64]) -> bool {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        let now = nanoseconds(time);
        if now.saturating_sub(load(words, header::ALIVE)) < OLD_NS {
            return false;
        }
        now.saturating_sub(self.looked.swap(now, Ordering::Relaxed)) >= OLD_NS
    }

    fn current(&self) -> Result<Arc<Mapping>, SharedError> {
        let mapping = Arc::clone(&self.mapping.read().unwrap_or_else(PoisonError::into_inner));
        if mapping.words()[header::RETIRED].load(Ordering::Acquire) == 0 && !self.suspects(mapping.words()) {
            return Ok(mapping);
        }
        self.reopen()?;
        Ok(Arc::clone(&self.mapping.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

enum Look {
    Found(Read),
    Absent,
    Damaged,
    Again,
}

/// One look along the chain of `hash`.
fn look(words: &[AtomicU64], key: &[u8], hash: u64, room: &mut Room) -> Look {
    let bucket = bucket(words, hash);
    if bucket >= words.len() {
        return Look::Damaged;
    }
    let structure = sequence::before(&words[header::STRUCTURE]);
    let mut at = to_index(words[bucket].load(Ordering::Acquire));
    for _ in 0..CHAIN_MAX {
        if at == 0 {
            let stood = sequence::stood(&words[header::STRUCTURE], structure);
            return if stood && structure.is_multiple_of(2) { Look::Absent } else { Look::Again };
        }
        if at < header::END || at.saturating_add(block::BODY) > words.len() {
            return Look::Damaged;
        }
        let number = sequence::before(&words[at + block::SEQUENCE]);
        if !number.is_multiple_of(2) {
            return Look::Again;
        }
        let seen = see(words, at, key, hash, room);
        let next = to_index(words[at + block::NEXT].load(Ordering::Acquire));
        let other = load(words, at + block::HASH);
        let free = load(words, at + block::LENGTHS) == 0;
        if !sequence::stood(&words[at + block::SEQUENCE], number) {
            return Look::Again;
        }
        match seen {
            Seen::Same(read) => return Look::Found(read),
            Seen::Wrong => return Look::Damaged,
            // It was freed, or serves another chain since: this one goes on elsewhere.
            Seen::Other if free || layout::bucket(words, other) != bucket => return Look::Again,
            Seen::Other => at = next,
        }
    }
    Look::Again
}

enum Seen {
    Same(Read),
    Wrong,
    Other,
}

/// What the block at `at` seems to hold; to be believed only if its sequence number stood still.
fn see(words: &[AtomicU64], at: usize, key: &[u8], hash: u64, room: &mut Room) -> Seen {
    if load(words, at + block::HASH) != hash {
        return Seen::Other;
    }
    let lengths = load(words, at + block::LENGTHS);
    let (key_length, value_length) = layout::lengths(lengths);
    let (key_words, value_words) = (layout::words(key_length), layout::words(value_length));
    if lengths == 0 || key_length != key.len() {
        return Seen::Other;
    }
    let start = at + block::BODY + key_words;
    if start.saturating_add(value_words) > words.len() {
        return Seen::Wrong;
    }
    let (revision, timestamp) = (load(words, at + block::REVISION), load(words, at + block::TIMESTAMP));
    let mut sum = [hash, lengths, revision, timestamp].into_iter().fold(0, layout::mix);
    for i in 0..key_words {
        let word = load(words, at + block::BODY + i);
        if word != layout::word(key, i) {
            return Seen::Other;
        }
        sum = layout::mix(sum, word);
    }
    for (bytes, word) in room.take(value_length).chunks_exact_mut(8).zip(&words[start..]) {
        let word = word.load(Ordering::Relaxed);
        bytes.copy_from_slice(&word.to_ne_bytes());
        sum = layout::mix(sum, word);
    }
    if sum != load(words, at + block::CHECKSUM) {
        return Seen::Wrong;
    }
    Seen::Same(Read { revision, timestamp })
}

/// Opens and checks the table at `path`.
pub(super) fn open(path: &Path) -> Result<Mapping, SharedError> {
    let failed = |error| SharedError::Io(path.to_owned(), error);
    let foreign = |reason: String| SharedError::Foreign(path.to_owned(), reason);
    let file = File::open(path).map_err(failed)?;
    let words = whole_file(&file, path, layout::MAGIC, "table", header::END)?;
    let mapping = Mapping::new(&file, to_index(words), false).map_err(failed)?;
    let buckets = load(mapping.words(), header::BUCKETS);
    if !buckets.is_power_of_two() || buckets > words - header::END as u64 {
        return Err(foreign(format!("is damaged: it has {words} words and says {buckets} buckets")));
    }
    Ok(mapping)
}

/// Nanoseconds of the machine's monotonic clock, the same in each process; read without a system call on Linux.
pub fn now() -> u64 {
    nanoseconds(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic))
}

fn nanoseconds(time: rustix::time::Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
