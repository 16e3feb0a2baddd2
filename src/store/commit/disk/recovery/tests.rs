//! What a start makes of files that a crash has torn, or that have gone bad.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::store::Entry;
use crate::store::keyspace::{Change, Changes};

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
        recover(&directory, durability, clock)
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
        entries: [Change::Set(Entry::of(key, value))].into(),
        ..Changes::default()
    };
    log.append(&changes, true).unwrap();
}

/// A log whose last batch is not synced yet, as far as anything tells: where that begins, and the file.
fn with_last_batch(scratch: &Scratch, durability: Durability, value: &str) -> (usize, Vec<u8>) {
    let mut log = scratch.start(durability).unwrap().log;
    put(&mut log, "a", &"v".repeat(300));
    put(&mut log, "b", "v");
    let before = log.bytes() as usize;
    put(&mut log, "c", value);
    let mut bytes = fs::read(scratch.file(0)).unwrap();
    bytes.truncate(log.bytes() as usize);
    (before, bytes)
}

#[test]
fn a_last_batch_that_lacks_any_sectors_is_cut_off() {
    for value in ["v".repeat(3000), "\0".repeat(3000)] {
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
fn any_flipped_bit_of_the_last_two_batches_is_damage() {
    let scratch = Scratch::new();
    let (_, bytes) = with_last_batch(&scratch, Durability::Sync, &"\0v".repeat(300));
    // Behind the header of the file and the first batch.
    let first = Frame::read(&bytes, HEADER, scratch_id(&scratch)).unwrap();
    for at in first.end() as usize..bytes.len() {
        for bit in 0..8 {
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
