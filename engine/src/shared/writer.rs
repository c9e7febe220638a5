//! The one writer of a table: finds room, changes entries so that readers notice, and takes an old table's place.
//!
//! What room is free it knows from its own memory; nothing of that is needed after its death, since the next writer
//! begins with a new file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::SharedError;
use super::files;
use super::layout::{self, block, bucket, header, load, to_index};
use super::mapping::Mapping;
use super::reader::open;
use super::sequence;

/// Writes a table; one process at a time may.
pub struct Writer {
    path: PathBuf,
    mapping: Mapping,
    /// Free blocks by their size in words.
    free: BTreeMap<usize, Vec<usize>>,
    /// Sizes of the blocks in use, by where they begin.
    sizes: BTreeMap<usize, usize>,
    /// From here to the end nothing has been used yet.
    untouched: usize,
    published: bool,
    /// Held for as long as this lives; the kernel lets go of it with the process.
    _lock: File,
}

impl Writer {
    /// Makes an empty table of `size` bytes, which readers see at `path` once it is published.
    ///
    /// # Errors
    /// The size is out of range, the memory is not there, or another process writes this table.
    pub fn create(path: &Path, size: u64) -> Result<Self, SharedError> {
        if !(layout::SIZE_BYTES_MIN..=layout::SIZE_BYTES_MAX).contains(&size) {
            let (least, most) = (layout::SIZE_BYTES_MIN, layout::SIZE_BYTES_MAX);
            return Err(SharedError::Invalid(format!("a size of {size} bytes; {least} to {most} would be right")));
        }
        let failed = |error: io::Error| SharedError::Io(path.to_owned(), error);
        let lock = files::lock_of_writer(path)?;
        let file = files::fresh(path, size)?;
        let words = usize::try_from(size / 8).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        let mapping = Mapping::new(&file, words, true).map_err(failed)?;
        let buckets = layout::buckets(words);
        let all = mapping.words();
        for (index, value) in [
            (header::LAYOUT, layout::LAYOUT),
            (header::WORDS, words as u64),
            (header::BUCKETS, buckets as u64),
            (header::EPOCH, previous_epoch(path) + 1),
            (header::MAGIC, layout::MAGIC),
        ] {
            all[index].store(value, Ordering::Relaxed);
        }
        Ok(Self {
            path: path.to_owned(),
            mapping,
            free: BTreeMap::new(),
            sizes: BTreeMap::new(),
            untouched: header::END + buckets,
            published: false,
            _lock: lock,
        })
    }

    /// Lets readers see this table instead of the one before: it holds everything up to `revision`, all there was at
    /// `as_of`.
    ///
    /// # Errors
    /// The file could not be renamed; readers still see the one before.
    pub fn publish(&mut self, revision: u64, as_of: u64) -> Result<(), SharedError> {
        self.progress(revision, as_of);
        if self.published {
            return Ok(());
        }
        let before = there(&self.path);
        files::put_in_place(&self.path)?;
        self.published = true;
        // Whoever has the old one open learns by this that there is a new one; by its age it would, too.
        if let Some(before) = before {
            retire(&before);
        }
        Ok(())
    }

    /// Says that everything up to `revision` is in the table, and that this was all there was at `as_of`, nanoseconds of
    /// the machine's monotonic clock. To be called again and again: a table whose writer is silent grows old.
    pub fn progress(&self, revision: u64, as_of: u64) {
        let words = self.mapping.words();
        // The revision first: a reader that sees the new time sees at least this revision.
        words[header::REVISION].store(revision, Ordering::Release);
        words[header::ALIVE].store(as_of, Ordering::Release);
    }

    /// Which writer of this table this is, from 1.
    pub fn epoch(&self) -> u64 {
        load(self.mapping.words(), header::EPOCH)
    }

    /// Sets `key`.
    ///
    /// # Errors
    /// The key is too long or empty, or no room is left; nothing was changed.
    pub fn put(&mut self, key: &[u8], value: &[u8], revision: u64, timestamp: u64) -> Result<(), SharedError> {
        let (length, most) = (key.len(), layout::KEY_BYTES_MAX);
        if !(1..=most).contains(&length) {
            return Err(SharedError::Invalid(format!("a key of {length} bytes; 1 to {most} would be right")));
        }
        let hash = layout::hash(key);
        let needed = block::BODY + layout::words(length) + layout::words(value.len());
        let found = self.find(key, hash);
        if let Some((_, at)) = found
            && self.sizes.get(&at).is_some_and(|size| *size >= needed)
        {
            self.fill(at, key, value, hash, revision, timestamp);
            return Ok(());
        }
        let full = SharedError::Full { needed: needed as u64 * 8, size: self.mapping.words().len() as u64 * 8 };
        let at = self.take(layout::class(needed)).ok_or(full)?;
        self.fill(at, key, value, hash, revision, timestamp);
        self.restructure(|words| {
            let bucket = bucket(words, hash);
            words[at + block::NEXT].store(load(words, bucket), Ordering::Relaxed);
            words[bucket].store(at as u64, Ordering::Release);
        });
        if found.is_some() {
            self.remove_behind(at, key, hash);
        }
        Ok(())
    }

    /// Removes `key`; tells whether it was there.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let hash = layout::hash(key);
        let Some((link, at)) = self.find(key, hash) else { return false };
        self.unlink(link, at);
        true
    }

    /// Removes `key` for want of room. From now on, who does not find a key is told that it may be there all the same.
    pub fn leave_out(&mut self, key: &[u8]) {
        // First, so that nobody takes its going for its removal.
        self.mapping.words()[header::INCOMPLETE].store(1, Ordering::Release);
        self.delete(key);
    }

    /// Where the link to the block of `key` lies, and the block.
    fn find(&self, key: &[u8], hash: u64) -> Option<(usize, usize)> {
        self.find_from(bucket(self.mapping.words(), hash), key, hash)
    }

    fn find_from(&self, mut link: usize, key: &[u8], hash: u64) -> Option<(usize, usize)> {
        let words = self.mapping.words();
        loop {
            let at = to_index(load(words, link));
            if at == 0 {
                return None;
            }
            let (length, _) = layout::lengths(load(words, at + block::LENGTHS));
            let same = load(words, at + block::HASH) == hash
                && length == key.len()
                && (0..layout::words(length)).all(|i| load(words, at + block::BODY + i) == layout::word(key, i));
            if same {
                return Some((link, at));
            }
            link = at + block::NEXT;
        }
    }

    fn remove_behind(&mut self, at: usize, key: &[u8], hash: u64) {
        if let Some((link, old)) = self.find_from(at + block::NEXT, key, hash) {
            self.unlink(link, old);
        }
    }

    fn unlink(&mut self, link: usize, at: usize) {
        self.restructure(|words| {
            words[link].store(load(words, at + block::NEXT), Ordering::Release);
            // A reader that is at this block must not believe it any more.
            change(words, at, |words| words[at + block::LENGTHS].store(0, Ordering::Relaxed));
        });
        if let Some(size) = self.sizes.remove(&at) {
            self.free.entry(size).or_default().push(at);
        }
    }

    fn fill(&self, at: usize, key: &[u8], value: &[u8], hash: u64, revision: u64, timestamp: u64) {
        let lengths = key.len() as u64 | (value.len() as u64) << 32;
        change(self.mapping.words(), at, |words| {
            let mut sum = 0;
            let mut set = |index: usize, word: u64| {
                words[at + index].store(word, Ordering::Relaxed);
                sum = layout::mix(sum, word);
            };
            set(block::HASH, hash);
            set(block::LENGTHS, lengths);
            set(block::REVISION, revision);
            set(block::TIMESTAMP, timestamp);
            let mut index = block::BODY;
            for part in [key, value] {
                for i in 0..layout::words(part.len()) {
                    set(index, layout::word(part, i));
                    index += 1;
                }
            }
            words[at + block::CHECKSUM].store(sum, Ordering::Relaxed);
        });
    }

    /// A free block of `size` words, or else of the least size above it.
    fn take(&mut self, size: usize) -> Option<usize> {
        if self.free.get(&size).is_none_or(Vec::is_empty) && self.mapping.words().len() - self.untouched >= size {
            self.untouched += size;
            self.sizes.insert(self.untouched - size, size);
            return Some(self.untouched - size);
        }
        let (size, blocks) = self.free.range_mut(size..).find(|(_, blocks)| !blocks.is_empty())?;
        let at = blocks.pop()?;
        self.sizes.insert(at, *size);
        Some(at)
    }

    fn restructure(&self, work: impl FnOnce(&[AtomicU64])) {
        let words = self.mapping.words();
        locked(words, header::STRUCTURE, work);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.published {
            files::drop_fresh(&self.path);
        }
    }
}

/// Changes the block at `at`, so that whoever reads it meanwhile notices.
fn change(words: &[AtomicU64], at: usize, work: impl FnOnce(&[AtomicU64])) {
    locked(words, at + block::SEQUENCE, work);
}

/// Changes what the number at `index` guards.
fn locked(words: &[AtomicU64], index: usize, work: impl FnOnce(&[AtomicU64])) {
    let before = load(words, index);
    sequence::change(&words[index], before + 1, before + 2, || work(words));
}

/// Takes the table at `path` away, whose writer is gone: its files go, and readers learn that there is none.
///
/// # Errors
/// It could not be removed; it stays as it is.
pub fn remove(path: &Path) -> Result<(), SharedError> {
    let before = there(path);
    let removed = std::fs::remove_file(path);
    if let Some(before) = before {
        retire(&before);
    }
    files::clean(path);
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SharedError::Io(path.to_owned(), error)),
        _ => Ok(()),
    }
}

/// The table that lies at `path`, open to be retired.
fn there(path: &Path) -> Option<File> {
    OpenOptions::new().read(true).write(true).open(path).ok()
}

/// Tells those who read `table` that it is no more what lies at its path.
fn retire(table: &File) {
    if table.metadata().is_ok_and(|facts| facts.len() >= (header::END * 8) as u64)
        && let Ok(old) = Mapping::new(table, header::END, true)
        && load(old.words(), header::MAGIC) == layout::MAGIC
    {
        old.words()[header::RETIRED].store(1, Ordering::Release);
    }
}

/// The epoch of the table that is there; 0 if there is none that can be read.
fn previous_epoch(path: &Path) -> u64 {
    open(path).map_or(0, |mapping| load(mapping.words(), header::EPOCH))
}
