//! Whatever goes bad in the files, a start reports it and changes nothing, or loses nothing.

use std::collections::HashMap;
use std::fs;

use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::refused_directories::{files, try_start, write_files};

/// Every file of a directory by its name.
type Files = HashMap<String, Vec<u8>>;

const KEYS: usize = 12;

fn value(n: usize) -> String {
    // Also zeros, of which nobody may think that they were never written.
    format!("{n};\0\0\0\0").repeat(100)
}

/// A store with a snapshot, a log of two files, and some batches in the last of them that were each answered.
fn store() -> Files {
    let directory = Directory::new();
    let options = [
        "--working-dir",
        directory.path_str(),
        "--snapshot-after",
        "4096",
    ];
    let server = Server::start(&options);
    for n in 0..KEYS - 4 {
        server.put(&format!("/kv/key{n}"), value(n)).expect(200, "");
    }
    wait_for("a snapshot", || {
        let mut names = files(directory.path()).into_keys();
        names
            .any(|name| name.starts_with("snapshot-0"))
            .then_some(())
    });
    drop(server);
    // Without another snapshot.
    let options = ["--working-dir", directory.path_str()];
    for part in [KEYS - 4..KEYS - 2, KEYS - 2..KEYS] {
        let server = Server::start(&options);
        for n in part {
            server.put(&format!("/kv/key{n}"), value(n)).expect(200, "");
        }
    }
    let mut files = files(directory.path());
    files.remove("reserve");
    files
}

/// The file of that kind with the highest number.
fn last(files: &Files, kind: &str) -> String {
    let names = files.keys().filter(|name| name.starts_with(kind));
    names.max().unwrap().clone()
}

/// Starts a server on these files. Returns whether it was refused; then no file has changed. If it was not, nothing may be missing.
fn is_refused(store: &Files, what: &str) -> bool {
    let directory = Directory::new();
    write_files(directory.path(), store);
    match try_start(directory.path()) {
        Ok(server) => {
            let mut client = server.connect();
            for n in 0..KEYS {
                let found = client.send("GET", &format!("/kv/key{n}"), "");
                assert!(found.text() == value(n), "{what}: key {n}");
            }
            false
        }
        Err(line) => {
            assert_eq!(line.lines().count(), 1, "{what}: {line}");
            assert!(line.starts_with("threadkv: "), "{what}: {line}");
            assert!(&files(directory.path()) == store, "{what}: {line}");
            true
        }
    }
}

/// Bytes of a file without the zeros at its end.
fn used(bytes: &[u8]) -> usize {
    bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count()
}

#[test]
fn a_flipped_bit_is_reported_or_loses_nothing() {
    let store = store();
    let (mut refused, mut tried) = (0, 0);
    for (name, bytes) in &store {
        // A different bit each time, spread over the file by a prime. Unit tests of frames flip every bit there is.
        for n in 0..40 {
            let at = (n * 7919 + n) % used(bytes).max(1);
            let mut store = store.clone();
            store.get_mut(name).unwrap()[at] ^= 1 << (n % 8);
            tried += 1;
            refused += usize::from(is_refused(&store, &format!("{name}, byte {at}")));
        }
    }
    // What does not matter is padding between frames.
    assert!(refused * 10 > tried * 9, "{refused} of {tried}");
}

#[test]
fn a_file_that_is_removed_emptied_cut_or_swapped_is_reported() {
    let store = store();
    let last_log = last(&store, "log-");
    for name in store.keys() {
        let mut changed = store.clone();
        let bytes = changed.remove(name).unwrap();
        assert!(is_refused(&changed, &format!("{name} removed")));
        changed.insert(name.clone(), Vec::new());
        assert!(is_refused(&changed, &format!("{name} emptied")));
        // A server that was killed tells nobody how much it had written, so the end of its log is taken for torn.
        if *name != last_log {
            changed.insert(name.clone(), bytes[..used(&bytes) / 2].to_vec());
            assert!(is_refused(&changed, &format!("{name} cut")));
        }
        for other in store.keys().filter(|other| *other > name) {
            let mut swapped = store.clone();
            swapped.insert(name.clone(), store[other].clone());
            swapped.insert(other.clone(), bytes.clone());
            assert!(is_refused(&swapped, &format!("{name} and {other}")));
        }
    }
}

#[test]
fn what_was_closed_in_order_tells_also_when_its_end_is_cut_off() {
    let directory = Directory::new();
    let mut server = Server::start(&["--working-dir", directory.path_str()]);
    for n in 0..KEYS {
        server.put(&format!("/kv/key{n}"), value(n)).expect(200, "");
    }
    server.signal("-TERM");
    assert!(server.wait().0.success());
    let store = files(directory.path());
    let first = "log-00000000000000000000".to_owned();
    for length in [0, 35, used(&store[&first]) / 2, used(&store[&first]) - 40] {
        let mut cut = store.clone();
        cut.get_mut(&first).unwrap().truncate(length);
        assert!(is_refused(&cut, &format!("{length} bytes")));
    }
    let mut without = store.clone();
    without.remove(&last(&store, "log-"));
    assert!(is_refused(&without, "the last file"));
    assert!(!is_refused(&store, "nothing"));
}

#[test]
fn files_of_another_store_are_not_taken() {
    let (one, other) = (store(), store());
    for name in one.keys().filter(|name| other.contains_key(*name)) {
        let mut mixed = one.clone();
        mixed.insert(name.clone(), other[name].clone());
        // Nothing else would tell: they hold the same.
        assert!(is_refused(&mixed, name));
    }
}

#[test]
fn an_answered_batch_with_a_bad_length_is_not_taken_for_torn() {
    let store = store();
    let name = last(&store, "log-");
    let bytes = &store[&name];
    // The second batch of the last file: behind its header and the first batch, each a head of 34 bytes, a body and a mark.
    let length = |at: usize| u64::from_le_bytes(bytes[at + 2..at + 10].try_into().unwrap());
    let mut at = 35;
    at += length(at) as usize + 35;
    at = if 512 - at % 512 < 34 {
        at.next_multiple_of(512)
    } else {
        at
    };
    assert_eq!(bytes[at], 255, "no frame at {at}");
    for bit in 0..64 {
        let mut store = store.clone();
        store.get_mut(&name).unwrap()[at + 2 + bit / 8] ^= 1 << (bit % 8);
        assert!(is_refused(&store, &format!("bit {bit}")));
    }
}

#[test]
fn a_start_that_has_no_descriptors_calls_nothing_damaged() {
    let directory = Directory::new();
    write_files(directory.path(), &store());
    for descriptors in 4..12 {
        let mut command = std::process::Command::new("prlimit");
        command
            .arg(format!("--nofile={descriptors}"))
            .args([env!("CARGO_BIN_EXE_threadkv"), "--port", "0"])
            .args(["--working-dir", directory.path_str()]);
        if let Err((_, lines)) = Server::try_spawn(command) {
            assert!(!lines.concat().contains("damaged"), "{lines:?}");
        }
    }
    let after = files(directory.path());
    assert!(!is_refused(&after, "with all descriptors"));
}

#[test]
fn what_a_first_start_leaves_when_it_is_killed_does_not_stop_the_next() {
    // In the order in which it makes them.
    let whole = {
        let directory = Directory::new();
        drop(Server::start(&["--working-dir", directory.path_str()]));
        files(directory.path())
    };
    let log = "log-00000000000000000000";
    for (log_bytes, draft_bytes) in [
        (0, None),
        (20, None),
        (35, None),
        (35, Some(0)),
        (35, Some(12)),
    ] {
        let directory = Directory::new();
        fs::write(directory.path().join(log), &whole[log][..log_bytes]).unwrap();
        if let Some(bytes) = draft_bytes {
            let draft = &whole["threadkv.format"][..bytes];
            fs::write(directory.path().join("threadkv.format.new"), draft).unwrap();
        }
        let server = try_start(directory.path()).unwrap_or_else(|error| panic!("{error}"));
        server.put("/kv/a", "1").expect(200, "");
        drop(server);
        try_start(directory.path())
            .unwrap()
            .get("/kv/a")
            .expect(200, "1");
    }
}
