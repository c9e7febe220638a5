//! The entries of shared state as of the newest commit, and the callers that may read and write them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

/// Callers that are known at once; more, and all are forgotten.
const KNOWN_MAX: usize = 10_000;

/// A value and the revisions that made and last changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it holds.
    pub value: Bytes,
    /// The revision that made the key.
    pub created: u64,
    /// The revision that last changed it.
    pub modified: u64,
}

/// One key's step: to an entry, or away with `None`.
pub type Change = (Bytes, Option<Entry>);

#[derive(Default)]
struct State {
    entries: HashMap<Bytes, Entry>,
    revision: u64,
    known: HashMap<Box<[u8]>, Arc<str>>,
}

/// Kept by the store's writer, read by the server.
#[derive(Default)]
pub struct Replica {
    state: RwLock<State>,
}

impl Replica {
    /// Take over what a batch of commits changed, up to `revision`: all of it at once.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>, revision: u64) {
        let mut state = self.write();
        for (key, entry) in changes {
            match entry {
                Some(entry) => state.entries.insert(key, entry),
                None => state.entries.remove(&key),
            };
        }
        state.revision = revision;
    }

    /// The entry of a key, and the revision as of which it is so.
    pub fn get(&self, key: &[u8]) -> (Option<Entry>, u64) {
        let state = self.read();
        (state.entries.get(key).cloned(), state.revision)
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.read().revision
    }

    /// The prefix of the namespace that is all open to who presents `credentials`.
    pub fn caller(&self, credentials: &[u8]) -> Option<Arc<str>> {
        self.read().known.get(credentials).cloned()
    }

    /// Who presents `credentials` may read and write all keys under `prefix`.
    pub fn learn(&self, credentials: &[u8], prefix: &str) {
        let mut state = self.write();
        if state.known.len() >= KNOWN_MAX {
            state.known.clear();
        }
        state.known.insert(credentials.into(), prefix.into());
    }

    /// Forget all callers: what they may do has changed.
    pub fn forget(&self) {
        self.write().known.clear();
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &'static [u8], modified: u64) -> Entry {
        Entry { value: Bytes::from_static(value), created: 1, modified }
    }

    #[test]
    fn a_batch_is_seen_whole_with_its_revision() {
        let replica = Replica::default();

        replica.apply([("a".into(), Some(entry(b"1", 1))), ("b".into(), Some(entry(b"2", 2)))], 2);
        replica.apply([("a".into(), None)], 3);

        assert_eq!((None, 3), replica.get(b"a"));
        assert_eq!((Some(entry(b"2", 2)), 3), replica.get(b"b"));
    }

    #[test]
    fn a_caller_that_was_forgotten_is_unknown() {
        let replica = Replica::default();
        replica.learn(b"Bearer x", "state/shop/");
        assert_eq!(Some("state/shop/".into()), replica.caller(b"Bearer x"));

        replica.forget();

        assert_eq!(None, replica.caller(b"Bearer x"));
    }
}
