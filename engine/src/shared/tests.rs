//! What a table promises, on real files; other processes and their deaths are in `tests/engine/test_shared.py`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;

use super::layout::{self, block, bucket, header, load, to_index};
use super::mapping::Mapping;
use super::{Read, Reader, Room, SharedError, Writer, now, remove};

/// A folder of a test, removed with it.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("unisono-shared-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn table(&self) -> PathBuf {
        self.0.join("table")
    }

    /// The table's words, to be damaged.
    fn words(&self) -> Mapping {
        let file = OpenOptions::new().read(true).write(true).open(self.table()).unwrap();
        let words = to_index(file.metadata().unwrap().len() / 8);
        Mapping::new(&file, words, true).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A value, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    value: Vec<u8>,
    revision: u64,
    timestamp: u64,
}

impl Reader {
    /// As [`Reader::read`], with the value in memory of its own.
    fn get(&self, key: &[u8]) -> Result<Option<Found>, SharedError> {
        let mut room = Room::default();
        let read = self.read(key, &mut room)?;
        Ok(read.map(|Read { revision, timestamp }| Found { value: room.bytes().to_vec(), revision, timestamp }))
    }
}

fn published(folder: &Folder, size: u64) -> (Writer, Reader) {
    let mut writer = Writer::create(&folder.table(), size).unwrap();
    writer.publish(0, now()).unwrap();
    (writer, Reader::open(&folder.table()).unwrap())
}

fn block_of(words: &[AtomicU64], key: &[u8]) -> usize {
    to_index(load(words, bucket(words, layout::hash(key))))
}

#[test]
fn a_value_is_read_as_it_was_written() {
    let folder = Folder::new();
    let (mut writer, reader) = published(&folder, 1 << 16);
    writer.put(b"cfg/limits", b"ten", 7, 9).unwrap();

    let found = Found { value: b"ten".to_vec(), revision: 7, timestamp: 9 };
    assert_eq!(reader.get(b"cfg/limits").unwrap(), Some(found));
    assert_eq!(reader.get(b"cfg/other").unwrap(), None);
}

#[test]
fn what_finds_no_room_is_refused_and_changes_nothing() {
    let folder = Folder::new();
    let (mut writer, reader) = published(&folder, layout::SIZE_BYTES_MIN);
    writer.put(b"key", b"old", 1, 1).unwrap();
    let refused = writer.put(b"key", &[0; 16 * 1024], 2, 2);

    assert!(matches!(refused, Err(SharedError::Full { size: layout::SIZE_BYTES_MIN, .. })), "{refused:?}");
    assert_eq!(reader.get(b"key").unwrap().unwrap().value, b"old");
}

#[test]
fn where_something_was_left_out_absence_is_not_believed() {
    let folder = Folder::new();
    let (mut writer, reader) = published(&folder, layout::SIZE_BYTES_MIN);
    writer.put(b"small", b"fits", 1, 1).unwrap();
    writer.put(b"grown", b"fitted", 1, 1).unwrap();
    assert!(writer.put(b"grown", &[0; 16 * 1024], 2, 2).is_err());
    writer.leave_out(b"grown");

    assert!(matches!(reader.get(b"grown"), Err(SharedError::LeftOut)));
    assert!(matches!(reader.get(b"other"), Err(SharedError::LeftOut)));
    assert_eq!(reader.get(b"small").unwrap().unwrap().value, b"fits");
}

#[test]
fn a_table_is_as_old_as_its_writer_says() {
    let folder = Folder::new();
    let (writer, reader) = published(&folder, layout::SIZE_BYTES_MIN);
    writer.progress(5, now() - 3_000_000_000);

    let progress = reader.progress().unwrap();
    assert_eq!(progress.revision, 5);
    assert!(progress.age_ns >= 3_000_000_000, "{progress:?}");
}

#[test]
fn readers_of_a_table_that_was_taken_away_learn_that_there_is_none() {
    let folder = Folder::new();
    let (mut writer, reader) = published(&folder, layout::SIZE_BYTES_MIN);
    writer.put(b"key", b"value", 1, 1).unwrap();
    drop(writer);
    remove(&folder.table()).unwrap();

    assert!(matches!(reader.get(b"key"), Err(SharedError::Io(..))));
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0);
}

#[test]
fn room_is_used_again() {
    let folder = Folder::new();
    let (mut writer, _reader) = published(&folder, layout::SIZE_BYTES_MIN);
    for round in 0..1000 {
        writer.put(b"key", &[1; 4000], round, 0).unwrap();
        assert!(writer.delete(b"key"));
    }

    assert!(!writer.delete(b"key"));
}

#[test]
fn a_second_writer_is_refused() {
    let folder = Folder::new();
    let (_writer, _reader) = published(&folder, 1 << 16);

    assert!(matches!(Writer::create(&folder.table(), 1 << 16), Err(SharedError::Busy(_))));
}

#[test]
fn readers_go_over_to_the_next_writers_table_at_once_and_as_a_whole() {
    let folder = Folder::new();
    let (mut writer, reader) = published(&folder, 1 << 16);
    writer.put(b"old", b"1", 1, 1).unwrap();
    drop(writer);
    let mut writer = Writer::create(&folder.table(), 1 << 16).unwrap();
    writer.put(b"new", b"2", 2, 2).unwrap();

    assert!(reader.get(b"new").unwrap().is_none(), "not published yet");
    assert!(reader.get(b"old").unwrap().is_some());
    writer.publish(2, now()).unwrap();
    assert!(reader.get(b"new").unwrap().is_some());
    assert!(reader.get(b"old").unwrap().is_none());
    assert_eq!((reader.progress().unwrap().epoch, reader.progress().unwrap().revision), (2, 2));
}

#[test]
fn an_entry_left_half_written_is_unreadable_until_the_next_writer() {
    let folder = Folder::new();
    let (mut writer, reader) = published(&folder, 1 << 16);
    writer.put(b"key", b"value", 1, 1).unwrap();
    let mapping = folder.words();
    let words = mapping.words();
    words[block_of(words, b"key") + block::SEQUENCE].fetch_add(1, Ordering::Relaxed);

    assert!(matches!(reader.get(b"key"), Err(SharedError::Unreadable)));
    drop(writer);
    let mut writer = Writer::create(&folder.table(), 1 << 16).unwrap();
    writer.put(b"key", b"again", 1, 1).unwrap();
    writer.publish(1, now()).unwrap();
    assert_eq!(reader.get(b"key").unwrap().unwrap().value, b"again");
}

#[test]
fn absence_is_not_believed_while_a_chain_changes() {
    let folder = Folder::new();
    let (_writer, reader) = published(&folder, 1 << 16);
    folder.words().words()[header::STRUCTURE].fetch_add(1, Ordering::Relaxed);

    assert!(matches!(reader.get(b"key"), Err(SharedError::Unreadable)));
}

#[test]
fn a_value_changed_without_the_sequence_is_found_by_its_checksum() {
    let folder = Folder::new();
    let (mut writer, reader) = published(&folder, 1 << 16);
    writer.put(b"key", &[1; 64], 1, 1).unwrap();
    let mapping = folder.words();
    let words = mapping.words();
    words[block_of(words, b"key") + block::BODY + 3].store(2, Ordering::Relaxed);

    assert!(matches!(reader.get(b"key"), Err(SharedError::Damaged)));
}

#[test]
fn places_outside_of_the_file_are_damage_and_no_crash() {
    let folder = Folder::new();
    let (_writer, reader) = published(&folder, 1 << 16);
    let mapping = folder.words();
    let words = mapping.words();
    words[bucket(words, layout::hash(b"key"))].store(u64::MAX, Ordering::Relaxed);

    assert!(matches!(reader.get(b"key"), Err(SharedError::Damaged)));
    words[header::BUCKETS].store(1 << 60, Ordering::Relaxed);
    assert!(matches!(reader.get(b"key"), Err(SharedError::Damaged)));
}

#[test]
fn another_layout_is_named_together_with_ours() {
    let folder = Folder::new();
    let (_writer, _reader) = published(&folder, 1 << 16);
    folder.words().words()[header::LAYOUT].store(99, Ordering::Relaxed);
    let refused = Reader::open(&folder.table()).err().unwrap().to_string();

    assert!(refused.contains("layout 99") && refused.contains("reads layout 2"), "{refused}");
}

#[test]
fn a_file_that_is_no_table_is_refused() {
    let folder = Folder::new();
    std::fs::write(folder.table(), b"something else").unwrap();

    assert!(matches!(Reader::open(&folder.table()), Err(SharedError::Foreign(..))));
}

/// Every word of a value is its revision, so a mix of two writes shows.
fn whole(found: &Found) -> bool {
    found.value.chunks(8).all(|word| word == found.revision.to_ne_bytes()) && found.timestamp == found.revision
}

#[test]
fn readers_never_see_a_mix_nor_miss_what_was_always_there() {
    let folder = Folder::new();
    let (mut writer, _) = published(&folder, 1 << 16);
    let keys: Vec<String> = (0..40).map(|number| format!("key/{number}")).collect();
    let value = |revision: u64| revision.to_ne_bytes().repeat(1 + to_index(revision % 37));
    for key in &keys {
        writer.put(key.as_bytes(), &value(1), 1, 1).unwrap();
    }
    let stop = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let reader = Reader::open(&folder.table()).unwrap();
                    let (mut reads, mut last) = (0_u64, BTreeMap::new());
                    while !stop.load(Ordering::Relaxed) {
                        for key in &keys {
                            match reader.get(key.as_bytes()) {
                                Ok(found) => {
                                    let found = found.expect("it is never removed");
                                    assert!(whole(&found), "torn: {found:?}");
                                    let before = last.insert(key, found.revision).unwrap_or(0);
                                    assert!(before <= found.revision, "went back");
                                    reads += 1;
                                }
                                Err(SharedError::Unreadable) => {} // the writer has lost its processor
                                Err(other) => panic!("{other}"),
                            }
                        }
                    }
                    reads
                })
            })
            .collect();
        for revision in 2..200_000_u64 {
            let key = &keys[to_index(revision * 7 % 40)];
            writer.put(key.as_bytes(), &value(revision), revision, revision).unwrap();
            if revision % 3 == 0 {
                writer.put(b"passing", &value(revision), revision, revision).unwrap();
                writer.delete(b"passing");
            }
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>()
    });

    assert!(reads > 0);
}

#[test]
fn a_writer_that_ignores_the_protocol_is_caught_by_the_same_check() {
    let mixed = Found { value: [1_u64.to_ne_bytes(), 2_u64.to_ne_bytes()].concat(), revision: 2, timestamp: 2 };

    assert!(!whole(&mixed));
}

proptest! {
    #[test]
    fn a_table_is_a_map(steps in prop::collection::vec((0..12_u8, prop::option::of(0..300_usize)), 1..200)) {
        let folder = Folder::new();
        let (mut writer, reader) = published(&folder, 1 << 16);
        let mut expected: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        for (revision, (key, length)) in steps.into_iter().enumerate() {
            let name = format!("key/{key}");
            if let Some(length) = length {
                writer.put(name.as_bytes(), &vec![key; length], revision as u64, 0).unwrap();
                expected.insert(key, vec![key; length]);
            } else {
                prop_assert_eq!(writer.delete(name.as_bytes()), expected.remove(&key).is_some());
            }
            for key in 0..12 {
                let found = reader.get(format!("key/{key}").as_bytes()).unwrap().map(|found| found.value);
                prop_assert_eq!(found.as_ref(), expected.get(&key));
            }
        }
    }
}
