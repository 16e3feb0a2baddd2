use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use crossbeam_channel::bounded;

use super::*;

mod model;

fn key(text: &str) -> Key {
    Key::try_from(text.as_bytes()).unwrap()
}

fn commit(store: &Store, command: impl Into<Command>) -> Committed {
    let (done, result) = bounded(1);
    store.submit(command.into(), move |it, _| done.send(it).unwrap());
    result.recv().unwrap().unwrap()
}

fn unlimited() -> Arc<Budget> {
    Arc::new(Budget::new(u64::MAX))
}

/// A working directory for one test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("threadkv-store-{}-{number}", process::id());
        Scratch(std::env::temp_dir().join(name))
    }

    /// Opens it. A snapshot that an earlier store of this process is still writing holds the directory until it has ended.
    fn open(&self, durability: Durability) -> Store {
        let deadline = Instant::now() + Duration::from_secs(60);
        let options = DiskOptions {
            durability,
            snapshot_after: 1 << 14,
            history: 1 << 16,
        };
        loop {
            let deliver = |replies: Vec<Reply>| replies.into_iter().for_each(Reply::deliver);
            match Store::open(&self.0, options, unlimited(), deliver) {
                Err(OpenError::Locked(_)) if Instant::now() < deadline => thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // in vain at worst
    }
}

/// Only if the key has that revision; 0: only if it is not there.
fn if_revision(revision: Revision) -> When {
    let mut condition = Condition::default();
    match revision {
        0 => condition.if_none_match = Some(Revisions::Any),
        _ => condition.if_match = Some(Revisions::Listed(vec![revision])),
    }
    condition.when()
}

/// Adds one to the number under a key, and tries again until nobody was quicker.
fn increment(store: &Store, name: &str) {
    loop {
        let entry = store.get(&key(name));
        let (seen, number) = entry.as_ref().map_or((0, 0), |entry| {
            (entry.revision(), entry.value().parse::<u64>().unwrap())
        });
        let put = Operation::Put(Entry::of(name, &(number + 1).to_string()));
        let committed = commit(store, Command::One(put, if_revision(seen)));
        match committed.outcome {
            Outcome::Done => {
                assert!(committed.revision > seen);
                return;
            }
            Outcome::ConditionFailed(unmet) => {
                assert_ne!(unmet[0].revision, Some(seen));
            }
            other => panic!("{other:?}"),
        }
    }
}

const THREADS: usize = 64;

fn increment_together(store: &Store, each: usize) {
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..each).for_each(|_| increment(store, "counter")));
        }
    });
}

#[test]
fn many_who_increment_one_key_lose_nothing_in_memory() {
    let store = Store::in_memory(HISTORY_BYTES, unlimited()).unwrap();
    increment_together(&store, 20);
    let counter = store.get(&key("counter")).unwrap();
    assert_eq!(counter.value(), (THREADS * 20).to_string());
    assert_eq!(store.revision(), counter.revision());
}

#[test]
fn many_who_increment_one_key_lose_nothing_on_disk_through_restarts() {
    const EACH: usize = 5; // each takes a sync of the disk
    for durability in [Durability::Sync, Durability::Os, Durability::None] {
        let scratch = Scratch::new();
        let mut last = 0;
        for round in 1..=3 {
            let store = scratch.open(durability);
            assert!(store.revision() >= last);
            increment_together(&store, EACH);
            let counter = store.get(&key("counter")).unwrap();
            assert_eq!(counter.value(), (round * THREADS * EACH).to_string());
            assert!(counter.revision() > last);
            last = commit(&store, Command::Clear).revision;
            assert!(last > counter.revision());
            // It is there again, with another revision.
            let put = Operation::Put(counter);
            last = commit(&store, Command::One(put, if_revision(0))).revision;
            store.close().unwrap();
        }
    }
}

#[test]
fn a_listing_skips_what_it_is_told_to() {
    let store = Store::in_memory(HISTORY_BYTES, unlimited()).unwrap();
    for group in ["a/", "b/", "c/"].map(|it| it.replace('/', ":")) {
        for n in 0..1000 {
            let put = Operation::Put(Entry::of(&format!("{group}{n:03}"), "v"));
            commit(&store, put);
        }
    }
    commit(&store, Operation::Put(Entry::of("b", "v")));
    let put = commit(&store, Operation::Put(Entry::of("b:", "v")));
    let mut listing = store.list(String::new(), None);
    assert_eq!(listing.revision(), put.revision);
    let mut found = Vec::new();
    while let Some(entry) = listing.next() {
        found.push(entry.key().to_owned());
        if let Some((group, _)) = entry.key().split_once(':') {
            listing.skip_prefix(&format!("{group}:"));
            // It does not go back.
            listing.skip_prefix("a");
        }
    }
    assert_eq!(found, ["a:000", "b", "b:", "c:000"]);
    assert_eq!(store.count("b:"), 1001);
    assert_eq!(store.count(""), 3002);

    let mut listing = store.list("b".into(), None);
    listing.skip_prefix("a");
    assert_eq!(listing.next().unwrap().key(), "b");
    listing.skip_prefix("z");
    assert!(listing.next().is_none());
}
