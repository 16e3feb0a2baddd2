//! Watchers who read at their own pace, and disks that do not keep up: nobody is told of what may still be lost, and nobody gets a gap.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use crate::client::Client;
use crate::crowd::never_reader;
use crate::directory::Directory;
use crate::faults::Random;
use crate::process::Server;
use crate::revisions::revision;
use crate::watch::state;
use crate::watch_mirror::listing;
use crate::watcher::{Mirror, Watcher};

/// Somebody whose sockets hold little, so that it depends on how fast it reads.
fn open(server: &Server, query: &str) -> Watcher {
    let request = format!("GET /api/v1/watch?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let stream = never_reader(server.address, &request).unwrap();
    Watcher::begin(Client::on(stream).unwrap())
        .unwrap()
        .unwrap()
}

#[test]
fn who_reads_late_gets_every_event_all_the_same() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let (mut watcher, mut other) = (open(&server, ""), Watcher::open(&server, "values=false"));
    watcher.ready();
    other.ready();
    // More than sockets hold, and less than the history.
    let value = "v".repeat(50_000);
    let mut written = Vec::new();
    let mut read = 0;
    for n in 0..250 {
        written.push(revision(&client.send("PUT", &format!("/kv/k{n}"), &value)));
        // Others are told at once.
        assert_eq!(other.next().id, written.last().copied());
        if n % 10 == 0 {
            assert_eq!(watcher.next().id, Some(written[read]));
            read += 1;
        }
    }
    for (n, revision) in written.iter().enumerate().skip(read) {
        let event = watcher.next();
        assert_eq!(event.id, Some(*revision));
        let data = event.json();
        assert_eq!(
            (&data["key"], data["value"] == *value),
            (&json!(format!("k{n}")), true)
        );
    }
}

#[test]
fn who_falls_out_of_the_history_gets_no_gap_but_the_end() {
    let server = Server::start(&["--history=1MiB"]);
    let mut client = server.connect();
    let mut watcher = open(&server, "");
    watcher.ready();
    let value = "v".repeat(100_000);
    let put = |n| revision(&client.send("PUT", &format!("/kv/k{}", n % 50), &value));
    let written: Vec<u64> = (0..300).map(put).collect();
    let mut read = 0;
    while let Some(event) = watcher.next_event() {
        assert_eq!(event.id, Some(written[read]), "event {read}");
        read += 1;
    }
    assert!(read < 300, "it was to fall out of the history");
    // It says so to who comes back.
    let last = watcher.last_id.unwrap();
    let gone = Watcher::ask(server.address, "", &format!("since={last}")).unwrap();
    assert_eq!(gone.err().map(|refused| refused.status), Some(410));
    let mut watcher = open(&server, &format!("since={last}&initial=true"));
    let mut mirror = Mirror::default();
    while !mirror.apply(watcher.next()) {}
    assert_eq!((mirror.resets, mirror.entries.len()), (1, 50));
    assert_eq!(mirror.revision, *written.last().unwrap());
}

/// Two of the values are more than the history has room for.
#[test]
fn who_reads_at_once_is_not_cut_off_for_what_others_write() {
    let server = Server::start(&[]);
    let mut one = Watcher::open(&server, "key=small");
    let mut bare = Watcher::open(&server, "values=false");
    let begun = one.ready();
    assert_eq!(bare.ready(), begun);
    let value = "v".repeat(9_000_000);
    let seen = thread::scope(|scope| {
        let write = |writer: usize| {
            let (server, value) = (&server, &value);
            move || {
                let mut client = server.connect();
                let path = format!("/kv/large:{writer}");
                let put = |_| revision(&client.send("PUT", &path, value));
                (0..12).map(put).collect::<Vec<u64>>()
            }
        };
        let writers: Vec<_> = (0..4).map(|it| scope.spawn(write(it))).collect();
        let seen: Vec<Option<u64>> = (0..48).map(|_| bare.next_event()?.id).collect();
        let written = writers.into_iter().flat_map(|it| it.join().unwrap());
        let mut written: Vec<Option<u64>> = written.map(Some).collect();
        written.sort_unstable();
        seen == written
    });
    assert!(seen, "it has missed some");
    let put = revision(&server.put("/kv/small", "v"));
    assert_eq!(one.next().id, Some(put));
}

#[test]
fn a_large_copy_is_of_one_revision_while_others_write() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let (mut random, value) = (Random::new(1), "v".repeat(4000));
    for start in (0..2000).step_by(500) {
        let item = |n| json!({"key": format!("k{n}"), "value": value});
        let items: Vec<_> = (start..start + 500).map(item).collect();
        let body = json!({"operations": items}).to_string();
        assert_eq!(client.send("POST", "/api/v1/kv/bulk", body).status, 200);
    }
    let (mut watcher, mut mirror) = (open(&server, "initial=true"), Mirror::new());
    for _ in 0..600 {
        let path = format!("/kv/k{}", random.below(2000));
        let (method, body) = if random.chance() {
            ("PUT", "new")
        } else {
            ("DELETE", "")
        };
        client.send(method, &path, body).expect(200, "");
        for _ in 0..random.below(5) {
            mirror.apply(watcher.next());
        }
    }
    let now = state(&mut client);
    while mirror.since() != Some(now) {
        mirror.apply(watcher.next());
    }
    let (revision, found) = listing(&mut client, "");
    assert!(revision == now && found == mirror.entries);
}

#[test]
fn a_commit_larger_than_any_buffer_comes_whole() {
    let directory = Directory::new();
    let options = ["--working-dir", directory.path_str(), "--history=1000"];
    let server = Server::start(&options);
    let mut client = server.connect();
    let mut watcher = open(&server, "");
    let begun = watcher.ready();
    let value = "v".repeat(20_000);
    let item = |n| json!({"key": format!("k{n:03}"), "value": value});
    let items: Vec<_> = (0..500).map(item).collect();
    let body = json!({"operations": items, "with_revision": true}).to_string();
    let answer = client.send("POST", "/api/v1/kv/bulk", body).json();
    let now = answer["revision"].as_u64().unwrap();
    // Also for somebody who goes on from before.
    let mut second = Watcher::open(&server, &format!("since={begun}"));
    for watcher in [&mut watcher, &mut second] {
        for n in 0..500 {
            let event = watcher.next();
            let data = json!({"key": format!("k{n:03}"), "value": value});
            event.expect("put", data, now, n == 499);
        }
    }
    assert_eq!(second.ready(), now);
}

#[test]
fn a_write_that_fails_is_no_event() {
    for durability in ["sync", "os"] {
        let directory = Directory::new();
        let options = ["--durability", durability];
        let mut server = Server::start_in_with(&directory, &options);
        let put = revision(&server.put("/kv/kept", "v"));
        let mut watcher = Watcher::open(&server, "");
        watcher.ready();
        server.fail_disk();
        for _ in 0..3 {
            assert_eq!(server.put("/kv/failed", "v").status, 503);
        }
        // Watching goes on from where things are.
        let mut second = Watcher::open(&server, &format!("since={put}"));
        assert_eq!(second.ready(), put);
        let mut third = Watcher::open(&server, "initial=1");
        assert_eq!(third.next().json()["key"], "kept");
        assert_eq!(third.ready(), put);
        server.kill();
        for watcher in [&mut watcher, &mut second, &mut third] {
            watcher.expect_end();
        }
        let server = Server::start_in_with(&directory, &options);
        let mut watcher = Watcher::open(&server, &format!("since={put}"));
        let next = watcher.next();
        if next.name != "ready" {
            // It was not answered with success, and has been kept all the same.
            assert_eq!(next.json()["key"], "failed");
        }
    }
}

#[test]
fn a_stream_that_may_begin_anew_is_never_refused() {
    let server = Server::start(&["--history=2KiB"]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..2 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let mut client = server.connect();
                while !stop.load(Ordering::Relaxed) {
                    client
                        .send("PUT", &format!("/kv/k{writer}"), "v")
                        .expect(200, "");
                }
            });
        }
        let mut client = server.connect();
        for _ in 0..500 {
            // What is forgotten at this very moment.
            let status = client.send("GET", "/api/v1/status", "").json();
            let oldest = status["data"]["storage"]["oldest_revision"]
                .as_u64()
                .unwrap();
            let header = format!("Last-Event-ID: {}\r\n", oldest + 2);
            let asked = Watcher::ask(server.address, &header, "initial=true").unwrap();
            assert!(asked.is_ok(), "{:?}", asked.err());
        }
        stop.store(true, Ordering::Relaxed);
    });
}
