//! A thousand who watch, half of whom never read: nobody else notices, and it costs next to nothing.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::bystander::Bystander;
use crate::crowd::{Crowd, never_reader};
use crate::directory::Directory;
use crate::process::{PATIENCE, Server, raise_own_limit, wait_for};
use crate::revisions::revision;
use crate::shutdown::upload;
use crate::tokens::TokenFile;
use crate::usage::{Usage, expect_peak, forget_peak, wait_for_descriptors};
use crate::watch::watchers;
use crate::watcher::{Parser, Watcher};

const READERS: usize = 500;
const NEVER_READERS: usize = 500;

/// Threads that read for all readers.
const THREADS: usize = 2;

/// Some who watch, on one thread.
struct Readers(Vec<Reader>);

struct Reader {
    stream: TcpStream,
    /// What has come of the answer's head.
    head: Vec<u8>,
    parser: Parser,
    /// The revisions of the changes that it has been told of.
    changes: Vec<u64>,
    ended: bool,
}

impl Readers {
    fn connect(server: &Server, count: usize, query: &str) -> Readers {
        let connect = |_| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.write_all(request(query).as_bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
            Reader {
                stream,
                head: Vec::new(),
                parser: Parser::default(),
                changes: Vec::new(),
                ended: false,
            }
        };
        Readers((0..count).map(connect).collect())
    }

    /// Reads until that is so of all.
    fn read_until(&mut self, what: &str, done: impl Fn(&Reader) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.0.iter().any(|reader| !done(reader)) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            let open: Vec<usize> = (0..self.0.len()).filter(|it| !self.0[*it].ended).collect();
            let poll_fd = |it: &usize| PollFd::new(&self.0[*it].stream, PollFlags::IN);
            let mut all: Vec<PollFd<'_>> = open.iter().map(poll_fd).collect();
            let second = Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            poll(&mut all, Some(&second)).unwrap();
            let ready: Vec<bool> = all.iter().map(|it| !it.revents().is_empty()).collect();
            for (reader, _) in open.iter().zip(ready).filter(|(_, ready)| *ready) {
                self.0[*reader].read();
            }
        }
    }
}

impl Reader {
    fn read(&mut self) {
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return self.ended = true,
                Ok(length) => self.take(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.head.ends_with(b"\r\n\r\n") {
            self.parser.feed(bytes);
        } else {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|it| it == b"\r\n\r\n") else {
                return;
            };
            assert!(self.head.starts_with(b"HTTP/1.1 200 "));
            self.head.truncate(end + 4);
            self.parser.feed(&bytes[end + 4 - before..]);
        }
        for event in self.parser.events.drain(..) {
            if event.name == "put" {
                self.changes.push(event.revision());
            }
        }
    }
}

fn request(query: &str) -> String {
    format!("GET /api/v1/watch?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Some who ask and never read.
fn never_readers(server: &Server) -> Vec<TcpStream> {
    let request = request("");
    (0..NEVER_READERS)
        .map(|_| never_reader(server.address, &request).unwrap())
        .collect()
}

/// Waits until so many watch.
fn wait_for_watchers(server: &Server, count: usize) {
    let mut client = server.connect();
    wait_for("as many watchers", || {
        (watchers(&mut client) == count as u64).then_some(())
    });
}

#[test]
fn those_who_never_read_harm_nobody_and_are_cut_off() {
    raise_own_limit();
    let server = Server::start(&[]);
    let bystander = Bystander::start(&server);
    let before = Usage::of(&server);
    let dead = never_readers(&server);
    // Values are for a few, or this would be a test of the machine.
    let mut groups: Vec<Readers> = (0..THREADS)
        .map(|_| Readers::connect(&server, READERS / THREADS - 5, "prefix=large&values=false"))
        .collect();
    groups.push(Readers::connect(&server, THREADS * 5, "prefix=large"));
    wait_for_watchers(&server, READERS + NEVER_READERS);
    forget_peak(&server);

    // More than the sockets of those who do not read will hold.
    const WRITERS: usize = 4;
    const WRITES: usize = 38;
    let value = "v".repeat(80_000);
    let mut written = Vec::new();
    thread::scope(|scope| {
        let write = |writer: usize| {
            let (server, value) = (&server, &value);
            move || {
                let mut client = server.connect();
                let path = format!("/kv/large:{writer}");
                let put = |_| {
                    let put = client.send("PUT", &path, value);
                    assert_eq!(put.status, 200);
                    revision(&put)
                };
                (0..WRITES).map(put).collect::<Vec<u64>>()
            }
        };
        let writers: Vec<_> = (0..WRITERS).map(|it| scope.spawn(write(it))).collect();
        for group in &mut groups {
            scope.spawn(|| {
                let all = WRITERS * WRITES;
                group.read_until("every event", |reader| reader.changes.len() >= all);
            });
        }
        for writer in writers {
            written.extend(writer.join().unwrap());
        }
    });
    written.sort_unstable();
    let mut readers = groups.iter().flat_map(|group| &group.0);
    assert!(readers.all(|reader| reader.changes == written && !reader.ended));
    // Kept for each, it would be 6 GB; the history has 16 MiB.
    expect_peak(&server, &before, 200_000_000);

    wait_for_watchers(&server, READERS);
    bystander.end();
    // Who reads stays.
    let last = revision(&server.put("/kv/large:0", "v"));
    for group in &mut groups {
        group.read_until("one more", |reader| reader.changes.last() == Some(&last));
    }
    for mut stream in dead {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest); // what was in the sockets, and then the end or a reset
    }
    drop(groups);
    wait_for_watchers(&server, 0);
    wait_for_descriptors(&server, &before);
    server.delete("/clear").expect(200, "");
    wait_for("memory to be given back", || {
        (Usage::of(&server).memory < before.memory + 50_000_000).then_some(())
    });
}

#[test]
fn a_revoked_token_ends_its_streams_and_no_others() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let options = ["one", "other"].map(|name| ["--name", name, "--read-only"]);
    let [one, other] = options.map(|options| tokens.create(&options));
    let writer = format!("X-API-Key: {}\r\n", tokens.create(&[]));
    let server = Server::start(&["--auth", tokens.path()]);
    let watch = |token: &String| {
        let header = format!("X-API-Key: {token}\r\n");
        let watcher = Watcher::ask(server.address, &header, "").unwrap();
        let mut watcher = watcher.unwrap();
        watcher.ready();
        watcher
    };
    let mut gone: Vec<Watcher> = (0..20).map(|_| watch(&one)).collect();
    let mut kept: Vec<Watcher> = (0..20).map(|_| watch(&other)).collect();
    assert!(tokens.run("revoke", &["--name", "one"]).status.success());
    let since = Instant::now();
    for watcher in &mut gone {
        watcher.expect_end();
    }
    // The promise is a second; the rest is for the machine.
    assert!(since.elapsed() < Duration::from_secs(10));
    let put = server.connect().send_with(&writer, "PUT", "/kv/a", "v");
    let data = json!({"key": "a", "value": "v"});
    for watcher in &mut kept {
        watcher
            .next()
            .expect("put", data.clone(), revision(&put), true);
    }
}

#[test]
fn draining_ends_all_streams_before_requests_in_flight() {
    raise_own_limit();
    let mut server = Server::start(&[]);
    let dead = never_readers(&server);
    let mut readers = Readers::connect(&server, READERS, "values=false");
    wait_for_watchers(&server, READERS + NEVER_READERS);
    let value = "v".repeat(5_000_000);
    let last = [1, 2, 3]
        .map(|_| revision(&server.put("/kv/a", &value)))
        .last()
        .copied();
    readers.read_until("the events", |reader| {
        reader.changes.last() == last.as_ref()
    });

    let mut upload = upload(&server);
    let since = Instant::now();
    server.signal("-TERM");
    readers.read_until("the end", |reader| reader.ended);
    // So it was not the end of the process that ended them.
    upload.write("v".repeat(500_000));
    upload.read("PUT").expect(200, "");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log:?}");
    // Requests that do not finish are waited for, 15 seconds; streams are not.
    assert!(
        !log.iter().any(|line| line.contains("did not finish")),
        "{log:?}"
    );
    assert!(
        since.elapsed() < Duration::from_secs(14),
        "{:?}",
        since.elapsed()
    );
    drop(dead);
}

#[test]
fn a_quiet_stream_is_neither_idle_nor_slow() {
    let options = [
        "--idle-timeout=1",
        "--head-timeout=1",
        "--transfer-timeout=1",
    ];
    let server = Server::start(&[&options[..], &["--min-rate=100000000"]].concat());
    let mut watcher = Watcher::open(&server, "");
    watcher.ready();
    // Those who came later and do nothing are gone before, twice.
    for _ in 0..2 {
        Crowd::connect(server.address, 5, "", "").drip_until_ended();
    }
    let put = revision(&server.put("/kv/a", "v"));
    assert_eq!(watcher.next().id, Some(put));
}

#[test]
fn newcomers_take_no_watcher_s_connection() {
    let server = Server::start(&["--max-connections=20"]);
    let mut all: Vec<Watcher> = (0..10).map(|_| Watcher::open(&server, "")).collect();
    for watcher in &mut all {
        watcher.ready();
    }
    let mut newcomers = Crowd::new(server.address, 50, "", "");
    let opening = "GET /kv/missing HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut busy = Crowd::new(server.address, 50, opening, "");
    for _ in 0..10 {
        newcomers.refill();
        busy.refill();
        newcomers.drip();
        busy.drip();
    }
    drop((newcomers, busy));
    let mut told: HashMap<u64, usize> = HashMap::new();
    let put = wait_for("a place for one more", || {
        let mut client = crate::client::Client::try_connect(server.address).ok()?;
        let request = "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv";
        client.try_write(request).ok()?;
        let answer = client.try_read("PUT").ok()?;
        (answer.status == 200).then(|| revision(&answer))
    });
    for watcher in &mut all {
        *told.entry(watcher.next().revision()).or_default() += 1;
    }
    assert_eq!(told, HashMap::from([(put, 10)]));
}
