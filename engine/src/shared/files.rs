//! The files of shared memory: made whole under another name before anyone sees them, recognised before they are believed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use super::SharedError;
use super::layout::{self, header};

/// Ends of the names of what lies beside the file.
const NEW: &str = "new";
const LOCK: &str = "writer";

/// The right to write what lies at `path`, until the file is dropped; the kernel lets go of it with the process.
///
/// # Errors
/// Another process has it, or the lock's file can't be made.
pub fn lock_of_writer(path: &Path) -> Result<File, SharedError> {
    let lock = open_or_make(&beside(path, LOCK))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| SharedError::Busy(path.to_owned()))?;
    Ok(lock)
}

/// A new file of `size` bytes beside `path`, whose place it takes when it is [put there](put_in_place).
///
/// # Errors
/// It can't be made, or the memory is not there.
pub fn fresh(path: &Path, size: u64) -> Result<File, SharedError> {
    drop_fresh(path); // of a writer that died before it was done
    let file = open_or_make(&beside(path, NEW))?;
    // Taken now: where memory is short, a later write would end the process by SIGBUS.
    fallocate(&file, FallocateFlags::empty(), 0, size)
        .map_err(|error| SharedError::Io(path.to_owned(), error.into()))?;
    Ok(file)
}

/// Puts the [`fresh`] file in the place of what lies at `path`.
///
/// # Errors
/// It could not be renamed; what lay there does so still.
pub fn put_in_place(path: &Path) -> Result<(), SharedError> {
    std::fs::rename(beside(path, NEW), path).map_err(|error| SharedError::Io(path.to_owned(), error))
}

/// Takes away a [`fresh`] file that will not be put in place, if there is one.
pub fn drop_fresh(path: &Path) {
    let _ = std::fs::remove_file(beside(path, NEW));
}

/// Takes away all that a writer has beside `path`.
pub fn clean(path: &Path) {
    drop_fresh(path);
    let _ = std::fs::remove_file(beside(path, LOCK));
}

/// Words of `file`, if it is a whole `kind` of thing, as its `magic` says, of our layout and of at least `least` words.
///
/// # Errors
/// It is something else, of another layout, or damaged.
pub fn whole_file(file: &File, path: &Path, magic: u64, kind: &str, least: usize) -> Result<u64, SharedError> {
    let foreign = |reason: String| SharedError::Foreign(path.to_owned(), reason);
    let length = file.metadata().map_err(|error| SharedError::Io(path.to_owned(), error))?.len();
    let mut raw = [0; 24];
    if file.read_exact_at(&mut raw, 0).is_err() || layout::word(&raw, header::MAGIC) != magic {
        return Err(foreign(format!("is no {kind} of unisono")));
    }
    let found = layout::word(&raw, header::LAYOUT);
    if found != layout::LAYOUT {
        let ours = layout::LAYOUT;
        return Err(foreign(format!(
            "has layout {found}, this version of unisono reads layout {ours}; use the version that the node has"
        )));
    }
    let words = layout::word(&raw, header::WORDS);
    if words.checked_mul(8) != Some(length) || words < least as u64 {
        return Err(foreign(format!("is damaged: {length} bytes, and it says {words} words")));
    }
    Ok(words)
}

fn open_or_make(path: &Path) -> Result<File, SharedError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    file.map_err(|error| SharedError::Io(path.to_owned(), error))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    PathBuf::from(name)
}
