//! Where things lie in a table, in words of 64 bits: header, buckets, blocks. No input or output here.
//!
//! A bucket holds the word at which the first block of its chain begins, or 0. A block never moves and never changes
//! its size, so a sequence number stays one for as long as the file lives, whatever the block is used for.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sequence::Word;

/// Of the words below and what they mean; rises with every change of them.
pub const LAYOUT: u64 = 2;
/// `UNISHMEM` in the order of bytes of this machine, so that a file of another one is refused.
pub const MAGIC: u64 = u64::from_ne_bytes(*b"UNISHMEM");

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The smallest table, in bytes.
pub const SIZE_BYTES_MIN: u64 = 16 * 1024;
/// The largest table, in bytes; the length of a value has 32 bits.
pub const SIZE_BYTES_MAX: u64 = 1 << 32;

/// Words of the header, by what they hold.
pub mod header {
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::LAYOUT`].
    pub const LAYOUT: usize = 1;
    /// Words of the whole file.
    pub const WORDS: usize = 2;
    /// Buckets, a power of two.
    pub const BUCKETS: usize = 3;
    /// Which writer this is: rises with each.
    pub const EPOCH: usize = 4;
    /// 1 once a newer file has taken this one's place.
    pub const RETIRED: usize = 5;
    /// 1 once something was left out for want of room: what is not found may be there all the same.
    pub const INCOMPLETE: usize = 6;
    /// Odd while a chain changes. In a cache line of its own, as are the next two.
    pub const STRUCTURE: usize = 8;
    /// Every change up to this revision is in the table.
    pub const REVISION: usize = 16;
    /// As of when that was all there was: nanoseconds of the machine's monotonic clock.
    pub const ALIVE: usize = 17;
    /// Where the buckets begin.
    pub const END: usize = 32;
}

/// Words of a block, by what they hold; `BODY` begins the key, then the value, each filled up to whole words.
pub mod block {
    /// Sequence number: odd while the block changes.
    pub const SEQUENCE: usize = 0;
    /// The next block of the chain, or 0.
    pub const NEXT: usize = 1;
    /// [`super::hash`] of the key.
    pub const HASH: usize = 2;
    /// Bytes of the key and, in the upper half, bytes of the value. 0: the block is free.
    pub const LENGTHS: usize = 3;
    /// Revision of the value.
    pub const REVISION: usize = 4;
    /// Timestamp of the value.
    pub const TIMESTAMP: usize = 5;
    /// Over all of these but the first two, and the body.
    pub const CHECKSUM: usize = 6;
    /// Where the key begins.
    pub const BODY: usize = 7;
}

/// Words that `bytes` bytes fill.
#[inline]
pub const fn words(bytes: usize) -> usize {
    bytes.div_ceil(8)
}

/// Buckets of a table of so many words: one for each 32 words, at least 16.
pub fn buckets(table_words: usize) -> usize {
    (table_words / 32).next_power_of_two().max(16)
}

/// The size of block that holds so many words: a power of two, or one and a half.
pub fn class(needed: usize) -> usize {
    let power = needed.next_power_of_two().max(16);
    let between = power / 4 * 3;
    if between >= needed { between } else { power }
}

/// Word number `index` of `bytes`, filled up with zeros.
#[inline]
pub fn word(bytes: &[u8], index: usize) -> u64 {
    let rest = &bytes[index * 8..];
    let mut raw = [0; 8];
    let length = rest.len().min(8);
    raw[..length].copy_from_slice(&rest[..length]);
    u64::from_ne_bytes(raw)
}

/// Spreads `word` over `state`, so that each bit of either changes about half of the result.
#[inline]
pub fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xd6e8_feb8_6659_fd93);
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
    let (low, high) = (product as u64, (product >> 64) as u64);
    low ^ high ^ state.rotate_left(23)
}

/// Of a key; the same in each process.
#[inline]
pub fn hash(key: &[u8]) -> u64 {
    (0..words(key.len())).fold(key.len() as u64, |state, index| mix(state, word(key, index)))
}

/// Bytes of the key and of the value.
#[inline]
pub fn lengths(word: u64) -> (usize, usize) {
    ((word & 0xffff_ffff) as usize, (word >> 32) as usize)
}

/// A number that no other call in this process gets.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Loads word `index`, in no order with others.
#[inline]
pub fn load<W: Word>(words: &[W], index: usize) -> u64 {
    words[index].load(Ordering::Relaxed)
}

/// Which word is the bucket of `hash`.
pub fn bucket(words: &[AtomicU64], hash: u64) -> usize {
    header::END + to_index(hash & (load(words, header::BUCKETS) - 1))
}

/// A word as a place in memory.
#[expect(clippy::cast_possible_truncation, reason = "an index into memory of a machine of 64 bits")]
pub fn to_index(word: u64) -> usize {
    word as usize
}
