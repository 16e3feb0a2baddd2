//! A disk that gets full: writes are refused until there is room, and nothing that was answered is lost.

use std::path::Path;
use std::process::Command;

use crate::client::Client;
use crate::directory::Directory;
use crate::durability::start_in;
use crate::process::{is_root, wait_for};

#[test]
fn a_full_disk_refuses_writes_until_there_is_room_and_keeps_what_was_answered() {
    if !is_root("mounting a small disk") {
        return;
    }
    let directory = Directory::new();
    let small = "size=40m";
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", small, "threadkv-test"])
        .arg(directory.path())
        .status();
    assert!(mounted.unwrap().success());
    let _unmount = Unmount(directory.path());
    let value = |n: usize| format!("{n};").repeat(100_000);
    let mut server = start_in(&directory, &[]);
    let mut client = server.connect();
    let mut kept = 0;
    let refusal = loop {
        let answer = client.send("PUT", &format!("/kv/key{kept}"), value(kept));
        if answer.status != 200 {
            break answer;
        }
        kept += 1;
        assert!(kept < 200, "the disk does not get full");
    };
    refusal.expect(503, "the store cannot be written to\n");
    assert_eq!(refusal.header("retry-after"), Some("5"));
    let line = server.wait_for_log("cannot write to");
    assert!(line.contains("No space left on device"), "{line}");
    assert_eq!(server.get("/api/v1/health").status, 503);
    let there = |client: &mut Client, keys: std::ops::Range<usize>| {
        for n in keys {
            let found = client.send("GET", &format!("/kv/key{n}"), "");
            assert!(found.text() == value(n), "key {n} of {kept}");
        }
    };
    // Reads go on, of all that was answered and nothing else.
    there(&mut client, 0..kept);
    let refused = format!("/kv/key{kept}");
    client
        .send("GET", &refused, "")
        .expect(404, "key not found\n");

    // Also after a restart, keys can be deleted.
    server.kill();
    let mut server = start_in(&directory, &[]);
    let mut client = server.connect();
    there(&mut client, 0..kept);
    for n in 0..3 {
        let deleted = client.send("DELETE", &format!("/kv/key{n}"), "");
        deleted.expect(200, "");
    }
    there(&mut client, 3..kept);

    // With room, it goes on without a restart.
    let larger = Command::new("mount")
        .args(["-o", "remount,size=400m"])
        .arg(directory.path())
        .status();
    assert!(larger.unwrap().success());
    client.send("PUT", "/kv/small", "v").expect(200, "");
    client.send("PUT", &refused, value(kept)).expect(200, "");
    wait_for("health", || {
        (server.get("/api/v1/health").status == 200).then_some(())
    });
    server.kill();
    let server = start_in(&directory, &[]);
    let mut client = server.connect();
    there(&mut client, 3..kept + 1);
    client
        .send("GET", "/kv/key0", "")
        .expect(404, "key not found\n");
}

#[test]
fn a_clear_gets_out_of_a_full_disk() {
    if !is_root("mounting a small disk") {
        return;
    }
    let directory = Directory::new();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=20m", "threadkv-test"])
        .arg(directory.path())
        .status();
    assert!(mounted.unwrap().success());
    let _unmount = Unmount(directory.path());
    let server = start_in(&directory, &[]);
    let mut client = server.connect();
    let mut n = 0;
    while client
        .send("PUT", &format!("/kv/key{n}"), "v".repeat(1_000_000))
        .status
        == 200
    {
        n += 1;
        assert!(n < 50, "the disk does not get full");
    }
    client.send("DELETE", "/clear", "").expect(200, "");
    wait_for("room", || {
        let put = client.send("PUT", "/kv/new", "v".repeat(1_000_000));
        (put.status == 200).then_some(())
    });
    drop(server);
    let server = start_in(&directory, &[]);
    assert_eq!(server.get("/kv/new").text().len(), 1_000_000);
    server.get("/kv/key0").expect(404, "key not found\n");
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        // Lazily, since the server may just be ending.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
