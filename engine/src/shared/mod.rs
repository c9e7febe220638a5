//! Real shared memory: tables here, and beside them [`Counter`]s and rings ([`Producer`], [`Consumer`]).
//!
//! A table has one writer, any number of readers in any process, and a read is no system call. It is a file of fixed
//! size, best in `/dev/shm`, one for each namespace: its size is the namespace's quota, its permissions say who may
//! read. [`Writer`] fills it, [`Reader`] looks things up; `layout` says where things lie, `files` how they come to be,
//! `mapping` holds the only unsafe code. What goes in and why is the caller's.
//!
//! # Never torn
//! Each entry is a block behind a sequence lock: odd while it changes. The writer stores the odd number, then (after
//! a release fence) the words, then the even number with release; a reader loads the number with acquire, the words,
//! and (after an acquire fence) the number again, and believes only what lies between two equal even ones. All words
//! are relaxed atomics, so that a race is a race of values and never undefined. On top lies a checksum, for memory
//! that something else has written to.
//!
//! # Never wrong about what is not there
//! A reader that finds its key believes the block. One that finds nothing may have passed while the key moved to a
//! larger block, so it believes that only if the number of the whole table's structure was even and stayed the same.
//!
//! Where something was left out for want of room, the table says so, and absence is believed no more.
//!
//! # Survives deaths
//! Readers write nothing, so their death leaves nothing. A writer that dies in mid-write leaves an odd number: readers
//! are bounded and say [`SharedError::Unreadable`], and a reader falls back to the store. The next writer makes a whole
//! new file, fills it, and renames it over the old one, which it marks as retired: readers never see a mix.
//!
//! Source of the memory order: Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?", MSPC 2012.

mod counter;
mod files;
mod layout;
mod mapping;
mod reader;
mod ring;
mod sequence;
mod slots;
mod writer;

#[cfg(test)]
mod tests;

pub use counter::Counter;
pub use reader::{Progress, Read, Reader, Room, now};
pub use ring::{Consumer, Producer, Taken};
pub use writer::{Writer, remove};

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why something in shared memory could not be made, written or read.
#[derive(Debug)]
pub enum SharedError {
    /// The file can't be opened, made or mapped.
    Io(PathBuf, io::Error),
    /// The file is not what it was opened as, or of another layout; says what was found and what would be right.
    Foreign(PathBuf, String),
    /// The entry changes just now, or its writer died while it did: ask the store.
    Unreadable,
    /// An entry's checksum is wrong, or points outside: something else wrote to the file. Ask the store.
    Damaged,
    /// It is not in the table, which has had no room for all: ask the store.
    LeftOut,
    /// No room is left for an entry; nothing was changed.
    Full {
        /// Bytes that the entry needs.
        needed: u64,
        /// Bytes of the whole table.
        size: u64,
    },
    /// An argument is out of range.
    Invalid(String),
    /// Another process writes this table.
    Busy(PathBuf),
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "shared memory {}: {error}", path.display()),
            Self::Foreign(path, reason) => write!(f, "shared memory {}: {reason}", path.display()),
            Self::Unreadable => f.write_str("the entry is being written, or its writer died while it was"),
            Self::Damaged => f.write_str("the shared memory is damaged: something other than its writer wrote to it"),
            Self::LeftOut => {
                f.write_str("the key is not there, and this shared memory has no room for all that there is")
            }
            Self::Full { needed, size } => {
                write!(f, "no room for an entry of {needed} bytes in the {size} bytes of this shared memory")
            }
            Self::Invalid(reason) => f.write_str(reason),
            Self::Busy(path) => write!(f, "shared memory {} already has a writer", path.display()),
        }
    }
}

impl std::error::Error for SharedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            _ => None,
        }
    }
}
