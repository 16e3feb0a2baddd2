//! What a start makes of files that a crash has torn, or that have gone bad.

use std::mem;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::store::change::{Cause, Change};
use crate::store::keyspace::Changes;
use crate::store::{Entry, Key};

/// A working directory for one test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("threadkv-recovery-{}-{number}", process::id());
        Scratch(std::env::temp_dir().join(name))
    }

    fn start(&self, durability: Durability) -> Result<Recovered, OpenError> {
        self.start_at(durability, 1000)
    }

    /// A start at that time.
    fn start_at(&self, durability: Durability, clock: Revision) -> Result<Recovered, OpenError> {
        let directory = Arc::new(Directory::open(&self.0, clock)?);
        recover(&directory, durability, 1 << 20, clock)
    }

    /// The number of keys that a start finds.
    #[track_caller]
    fn keys(&self) -> usize {
        match self.start(Durability::Sync) {
            Ok(recovered) => recovered.entries.len(),
            Err(error) => panic!("{error}"),
        }
    }

    /// What a start says that is refused.
    #[track_caller]
    fn refusal(&self) -> String {
        match self.start(Durability::Sync) {
            Ok(recovered) => panic!("it started, with {} keys", recovered.entries.len()),
            Err(error) => error.to_string(),
        }
    }

    fn file(&self, number: u64) -> PathBuf {
        self.0.join(format!("log-{number:020}"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // in vain at worst
    }
}

fn put(log: &mut Log, key: &str, value: &str) {
    let changes = Changes {
        list: vec![Change::Put(Entry::of(key, value))],
        ..Changes::default()
    };
    log.append(&changes, true).unwrap();
}

/// A log whose last batch is not synced yet, as far as anything tells: where that begins, and the file.
fn with_last_batch(scratch: &Scratch, durability: Durability, value: &str) -> (usize, Vec<u8>) {
    let mut log = scratch.start(durability).unwrap().log;
    // So long that the others begin right behind each other, in one sector.
    put(&mut log, "a", &"v".repeat(250));
    put(&mut log, "b", "v");
    let before = log.bytes() as usize;
    put(&mut log, "c", value);
    let mut bytes = fs::read(scratch.file(0)).unwrap();
    bytes.truncate(log.bytes() as usize);
    (before, bytes)
}

#[test]
fn a_last_batch_that_lacks_any_sectors_is_cut_off() {
    for value in ["v".repeat(2000), "\0".repeat(2000)] {
        let scratch = Scratch::new();
        let (before, bytes) = with_last_batch(&scratch, Durability::Sync, &value);
        let first = before / 512;
        let sectors = bytes.len().div_ceil(512) - first;
        for missing in 1..1_u32 << sectors {
            let mut torn = bytes.clone();
            for sector in (0..sectors).filter(|sector| missing & 1 << sector != 0) {
                // What was in the sector before is still there.
                let start = before.max((first + sector) * 512);
                let end = bytes.len().min((first + sector + 1) * 512);
                torn[start..end].fill(0);
            }
            torn.resize(bytes.len() + 3000, 0);
            fs::write(scratch.file(0), &torn).unwrap();
            let _ = fs::remove_file(scratch.file(2));
            let mut recovered = scratch.start(Durability::Sync).unwrap();
            assert_eq!(recovered.entries.len(), 2, "{missing:b}");
            // It goes on there.
            put(&mut recovered.log, "d", "v");
            drop(recovered);
            assert_eq!(scratch.keys(), 3, "{missing:b}");
            fs::remove_file(scratch.file(3)).unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_the_last_two_batches_is_damage() {
    let scratch = Scratch::new();
    let (_, bytes) = with_last_batch(&scratch, Durability::Sync, &"\0v".repeat(300));
    // Behind the header of the file and the first batch.
    let first = Frame::read(&bytes, HEADER, scratch_id(&scratch)).unwrap();
    for at in first.end() as usize..bytes.len() {
        let bit = at % 8;
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        fs::write(scratch.file(0), &flipped).unwrap();
        let refusal = scratch.refusal();
        assert!(
            refusal.contains("is damaged"),
            "byte {at} bit {bit}: {refusal}"
        );
        assert!(fs::read(scratch.file(0)).unwrap() == flipped);
    }
}

const HEADER: u64 = change_log::HEADER;

fn scratch_id(scratch: &Scratch) -> u64 {
    Directory::open(&scratch.0, 1000).unwrap().id()
}

#[test]
fn without_syncs_a_page_may_be_missing_in_front_of_others_and_with_them_not() {
    for (durability, starts) in [(Durability::Os, true), (Durability::Sync, false)] {
        let scratch = Scratch::new();
        let mut log = scratch.start(durability).unwrap().log;
        for n in 0..20 {
            put(&mut log, &n.to_string(), &"v".repeat(1000));
        }
        drop(log);
        let mut bytes = fs::read(scratch.file(0)).unwrap();
        bytes[8192..12_288].fill(0);
        fs::write(scratch.file(0), &bytes).unwrap();
        if starts {
            assert_eq!(scratch.keys(), 7);
            assert_eq!(scratch.keys(), 7);
        } else {
            assert!(scratch.refusal().contains("a part of it is missing"));
        }
    }
}

#[test]
fn a_file_that_was_begun_and_not_named_by_a_seal_is_begun_again() {
    let scratch = Scratch::new();
    let (_, bytes) = with_last_batch(&scratch, Durability::Sync, "v");
    for length in [0, 20, 35] {
        {
            let directory = Directory::open(&scratch.0, 1000).unwrap();
            drop(change_log::create(&directory, 3).unwrap());
        }
        let header = fs::read(scratch.file(3)).unwrap();
        fs::write(scratch.file(3), &header[..length]).unwrap();
        fs::write(scratch.file(0), &bytes).unwrap();
        assert_eq!(scratch.keys(), 3, "{length}");
        assert_eq!(scratch.keys(), 3, "{length}");
    }
    // If there had been more in front of it, that would be missing now.
    drop(change_log::create(&Directory::open(&scratch.0, 1000).unwrap(), 5).unwrap());
    fs::write(scratch.file(0), &bytes).unwrap();
    fs::remove_file(scratch.file(3)).unwrap();
    assert!(scratch.refusal().contains("its end is missing"));
}

/// Writes a batch that puts a key, or deletes it if there is no value.
fn commit(log: &mut Log, revision: Revision, key: &str, value: Option<&str>) {
    let change = match value {
        Some(value) => Change::Put(Entry::of(key, value).at(revision)),
        None => Change::Remove {
            key: Key::try_from(key.as_bytes()).unwrap(),
            revision,
            cause: Cause::Deleted,
        },
    };
    let changes = Changes {
        list: vec![change],
        before: revision - 1,
        revision,
        ..Changes::default()
    };
    log.append(&changes, true).unwrap();
}

#[test]
fn revisions_grow_whatever_is_left_and_whatever_the_clock_says() {
    let scratch = Scratch::new();
    let at = |clock| scratch.start_at(Durability::Sync, clock).unwrap();
    let counter = |last, least| Counter { last, least };
    // Nothing has been written yet.
    assert_eq!(at(1000).counter, counter(1000, 1000));
    assert_eq!(at(500).counter, counter(1000, 500));
    let mut recovered = at(2000);
    assert_eq!(recovered.counter.next(), 2000);
    commit(&mut recovered.log, 2000, "a", Some("1"));
    commit(&mut recovered.log, 2005, "b", Some("1"));
    commit(&mut recovered.log, 2006, "b", None);
    drop(recovered);
    // The last one has left no entry.
    let mut recovered = at(100);
    assert_eq!(recovered.counter, counter(2006, 100));
    assert_eq!(revisions(&recovered.history), [2000, 2005, 2006]);
    let a = recovered.entries.get("a").unwrap();
    assert_eq!((a.revision(), recovered.entries.get("b")), (2000, None));
    let history = mem::take(&mut recovered.history);
    drop(recovered);

    let directory = Directory::open(&scratch.0, 100).unwrap();
    let kept = [Entry::of("a", "1").at(2000)];
    snapshot::write(&directory, (3, 2006), kept.into_iter(), &history).unwrap();
    delete_before(&directory, 3).unwrap();
    drop(directory);
    let recovered = at(100);
    assert_eq!(recovered.counter, counter(2006, 100));
    assert_eq!(revisions(&recovered.history), [2000, 2005, 2006]);
    assert_eq!(recovered.history.oldest(), 1000);
    assert_eq!(recovered.entries.get("a").unwrap().revision(), 2000);
    assert_eq!(recovered.counter.next(), 2007);
    drop(recovered);
    assert_eq!(at(9000).counter.next(), 9000);
}

/// The revisions of all changes that are known.
fn revisions(history: &History) -> Vec<Revision> {
    history.iter().map(|it| it.revision()).collect()
}

#[test]
fn a_format_that_was_changed_is_damaged() {
    let scratch = Scratch::new();
    drop(scratch.start(Durability::Sync).unwrap());
    let path = scratch.0.join("threadkv.format");
    let whole = fs::read(&path).unwrap();
    let damage = (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit)));
    for (at, bit) in damage {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << bit;
        fs::write(&path, &flipped).unwrap();
        scratch.refusal();
        assert!(fs::read(&path).unwrap() == flipped);
    }
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    scratch.refusal();
}

/// The id of the store that [`write_version_3`] writes.
const OLD_ID: u64 = 0x0123_4567_89ab_cdef;

/// A directory as version 3 left it: a snapshot, a log file with a seal, and one without.
fn write_version_3(scratch: &Scratch) {
    let entry = |key: &[u8], value: &[u8], expiry: Option<u64>| {
        let flags = 1 | if expiry.is_some() { 4 } else { 0 };
        let mut bytes = vec![flags];
        bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend(expiry.into_iter().flat_map(u64::to_le_bytes));
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(value);
        bytes
    };
    let write = |name: &str, frames: &[(Tag, u64, Vec<u8>)]| {
        let mut file = Vec::new();
        for (tag, number, body) in frames {
            frame::append(&mut file, 0, OLD_ID, (*tag, *number), |bytes| {
                bytes.extend_from_slice(body);
            });
        }
        fs::write(scratch.0.join(name), file).unwrap();
    };
    let batch = |changes: &[Vec<u8>]| {
        let mut body = vec![0; 8 + 1];
        changes.iter().for_each(|it| body.extend_from_slice(it));
        body
    };
    fs::create_dir(&scratch.0).unwrap();
    let format = format!("threadkv 3\nid {OLD_ID:016x}\n");
    fs::write(scratch.0.join("threadkv.format"), format).unwrap();
    let block = [entry(b"a", b"1", None), entry(b"b", b"2", Some(9))].concat();
    write(
        "snapshot-00000000000000000005",
        &[
            (Tag::Snapshot, 5, vec![]),
            (Tag::Block3, 0, block),
            (Tag::End, 1, 2_u64.to_le_bytes().into()),
        ],
    );
    let touched = [&[2 | 4, 1, 0, b'a'][..], &u64::MAX.to_le_bytes()].concat();
    write(
        "log-00000000000000000005",
        &[
            (Tag::Log, 5, vec![]),
            (Tag::Batch3, 5, batch(&[entry(b"c", b"3", None), touched])),
            (Tag::Seal, 6, vec![]),
        ],
    );
    write(
        "log-00000000000000000006",
        &[
            (Tag::Log, 6, vec![]),
            (Tag::Batch3, 6, batch(&[vec![0, 1, 0, b'b']])),
        ],
    );
}

#[test]
fn a_directory_of_version_3_is_taken_over_and_keeps_the_revision_it_got() {
    let scratch = Scratch::new();
    write_version_3(&scratch);
    let check = |clock, last, keys: &[(&str, Revision)]| {
        let recovered = scratch.start_at(Durability::Sync, clock).unwrap();
        let entries = recovered.entries.from(std::ops::Bound::Unbounded);
        let found: Vec<_> = entries.map(|it| (it.key(), it.revision())).collect();
        assert_eq!(found, keys);
        assert_eq!(recovered.counter, Counter { last, least: clock });
        assert_eq!(
            recovered.entries.get("a").unwrap().expiry,
            Some(Expiry::at_millis(u64::MAX))
        );
        recovered.log
    };
    let mut log = check(5000, 5000, &[("a", 5000), ("c", 5000)]);
    // Frames of both versions follow each other.
    commit(&mut log, 5001, "c", Some("4"));
    drop(log);
    let log = check(4000, 5001, &[("a", 5000), ("c", 5001)]);
    drop(log);
    let format = fs::read_to_string(scratch.0.join("threadkv.format")).unwrap();
    assert!(
        format.contains("threadkv 5\nid 0123456789abcdef\nrevision 5000\n"),
        "{format}"
    );
}

#[test]
fn a_damaged_directory_of_version_3_is_left_as_it_is() {
    let scratch = Scratch::new();
    write_version_3(&scratch);
    let path = scratch.file(5);
    let mut bytes = fs::read(&path).unwrap();
    bytes[80] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(scratch.refusal().contains("is damaged"));
    let format = fs::read_to_string(scratch.0.join("threadkv.format")).unwrap();
    assert!(format.starts_with("threadkv 3\n"));
    assert!(!scratch.0.join("threadkv.format.new").exists());
}
