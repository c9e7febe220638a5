//! A number that processes of a machine count up and down together: one word of a file.
//!
//! An addition is one atomic step, so the death of whoever adds leaves it done or not done, and nothing else.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::SharedError;
use super::files::whole_file;
use super::layout::{self, LAYOUT};
use super::mapping::Mapping;

const MAGIC: u64 = u64::from_ne_bytes(*b"UNISHCNT");
/// Words of the file: magic, layout, and in a cache line of its own the number.
const WORDS: usize = 16;
const VALUE: usize = 8;

/// A number in shared memory, of 64 bits with a sign.
pub struct Counter(Mapping);

impl Counter {
    /// Opens the counter at `path`; makes it, at 0, if there is none.
    ///
    /// # Errors
    /// It can't be made or opened, or is something else.
    pub fn open(path: &Path) -> Result<Self, SharedError> {
        let failed = |error| SharedError::Io(path.to_owned(), error);
        if !path.exists() {
            make(path).map_err(failed)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let words = whole_file(&file, path, MAGIC, "counter", WORDS)?;
        if words != WORDS as u64 {
            return Err(SharedError::Foreign(path.to_owned(), format!("is damaged: {words} words for a counter")));
        }
        Mapping::new(&file, WORDS, true).map(Self).map_err(failed)
    }

    /// Adds `amount`; returns the number after it.
    ///
    /// # Errors
    /// The number would leave 64 bits; nothing was added.
    pub fn add(&self, amount: i64) -> Result<i64, SharedError> {
        let sum = |now: u64| now.cast_signed().checked_add(amount);
        self.word()
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| sum(now).map(i64::cast_unsigned))
            .ok()
            .and_then(sum)
            .ok_or_else(|| SharedError::Invalid(format!("{} + {amount} does not fit into 64 bits", self.get())))
    }

    /// The number.
    pub fn get(&self) -> i64 {
        self.word().load(Ordering::Acquire).cast_signed()
    }

    fn word(&self) -> &AtomicU64 {
        &self.0.words()[VALUE]
    }
}

/// Makes the file whole under another name first: nobody sees a part of it, and of several who make it one wins.
fn make(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}-{}", std::process::id(), layout::unique()));
    let temporary = Path::new(&name);
    let mut content = [0; WORDS * 8];
    content[..8].copy_from_slice(&MAGIC.to_ne_bytes());
    content[8..16].copy_from_slice(&LAYOUT.to_ne_bytes());
    content[16..24].copy_from_slice(&(WORDS as u64).to_ne_bytes());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    let made = file.write_all(&content).and_then(|()| std::fs::hard_link(temporary, path));
    std::fs::remove_file(temporary)?;
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Folder;
    use super::*;

    #[test]
    fn what_several_add_at_once_is_all_there() {
        let folder = Folder::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let counter = Counter::open(&folder.table()).unwrap();
                    for _ in 0..10_000 {
                        counter.add(1).unwrap();
                    }
                });
            }
        });

        assert_eq!(Counter::open(&folder.table()).unwrap().get(), 40_000);
        assert_eq!(std::fs::read_dir(folder.table().parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_sum_that_does_not_fit_is_refused_and_adds_nothing() {
        let folder = Folder::new();
        let counter = Counter::open(&folder.table()).unwrap();
        counter.add(i64::MAX).unwrap();

        assert!(matches!(counter.add(1), Err(SharedError::Invalid(_))));
        assert_eq!(counter.get(), i64::MAX);
        assert_eq!(counter.add(-1).unwrap(), i64::MAX - 1);
    }

    #[test]
    fn what_is_no_counter_is_refused() {
        let folder = Folder::new();
        std::fs::write(folder.table(), [0; WORDS * 8]).unwrap();

        assert!(matches!(Counter::open(&folder.table()), Err(SharedError::Foreign(..))));
    }
}
