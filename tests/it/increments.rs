//! Many clients count up one key by compare-and-set, and no increment is lost or made twice.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, Response};
use crate::directory::Directory;
use crate::process::Server;

/// Sends one request; `None` where the server went away, and it is not known whether it was carried out.
fn try_send(client: &mut Client, method: &str, header: &str, body: &str) -> Option<Response> {
    let length = body.len();
    let request = format!(
        "{method} /api/v1/kv/counts HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: {length}\r\n\r\n{body}"
    );
    client.try_write(request).ok()?;
    client.try_read(method).ok()
}

/// A client that increments its own count in a list of all, which is the value of one key.
struct Counter<'a> {
    number: usize,
    address: &'a Mutex<SocketAddr>,
    refused: &'a AtomicUsize,
    /// What it is to have in the end.
    goal: u64,
    client: Option<Client>,
    /// What it has been told that it has.
    count: u64,
    /// Whether one more may have happened.
    perhaps: bool,
}

impl Counter<'_> {
    fn run(&mut self) {
        while self.count < self.goal {
            if self.step().is_none() {
                self.client = None;
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Reads, changes, and writes back. `None` where the server is not there.
    fn step(&mut self) -> Option<()> {
        if self.client.is_none() {
            let address = *self.address.lock().unwrap();
            self.client = Some(Client::try_connect(address).ok()?);
        }
        let client = self.client.as_mut()?;
        let read = try_send(client, "GET", "", "")?;
        let tag = read.header("etag").unwrap().to_owned();
        let mut counts = read.json()["data"]["value"].take();
        let mine = counts[self.number].as_u64().unwrap();
        // What was answered is there, and nothing is there that was not asked for.
        let most = self.count + u64::from(self.perhaps);
        assert!((self.count..=most).contains(&mine), "{mine}");
        self.count = mine;
        self.perhaps = false;
        if mine == self.goal {
            return Some(());
        }
        counts[self.number] = json!(mine + 1);
        let body = json!({"value": counts}).to_string();
        self.perhaps = true;
        let write = try_send(client, "PUT", &format!("If-Match: {tag}\r\n"), &body)?;
        self.perhaps = false;
        match write.status {
            200 => self.count += 1,
            412 => _ = self.refused.fetch_add(1, Ordering::Relaxed),
            // It is about to end, or the disk is.
            503 => self.perhaps = true,
            status => panic!("{status}: {}", write.text()),
        }
        Some(())
    }
}

/// Lets so many clients count up to `each`, and `meddle` with the server meanwhile. Checks the sum.
fn count(
    mut server: Server,
    clients: usize,
    each: u64,
    meddle: impl FnOnce(&mut Server, &Mutex<SocketAddr>, &AtomicUsize),
) {
    let zero = json!({"value": vec![0; clients], "if_revision": 0}).to_string();
    assert_eq!(server.put("/api/v1/kv/counts", zero).status, 200);
    let address = Mutex::new(server.address);
    let (refused, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..clients {
            let (address, refused, ended) = (&address, &refused, &ended);
            scope.spawn(move || {
                let mut counter = Counter {
                    number,
                    address,
                    refused,
                    goal: each,
                    client: None,
                    count: 0,
                    perhaps: false,
                };
                counter.run();
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        meddle(&mut server, &address, &ended);
    });
    let counts = server.get("/api/v1/kv/counts").json()["data"]["value"].take();
    assert_eq!(counts, json!(vec![each; clients]));
    let sum = counts.as_array().unwrap().iter().filter_map(Value::as_u64);
    assert_eq!(sum.sum::<u64>(), each * clients as u64);
    // Otherwise they have come one after the other, and nothing was tried.
    assert!(refused.into_inner() > 10);
}

#[test]
fn no_increment_is_lost_in_memory() {
    count(Server::start(&["--workers=4"]), 64, 5, |_, _, _| {});
}

#[test]
fn no_increment_is_lost_on_disk() {
    for durability in ["sync", "os", "none"] {
        let directory = Directory::new();
        let options = [
            "--durability",
            durability,
            "--working-dir",
            directory.path_str(),
        ];
        count(Server::start(&options), 16, 10, |_, _, _| {});
    }
}

#[test]
fn no_increment_is_lost_through_kills_and_restarts() {
    const CLIENTS: usize = 16;
    for durability in ["sync", "os"] {
        let directory = Directory::new();
        let options = [
            "--durability",
            durability,
            "--working-dir",
            directory.path_str(),
        ];
        count(
            Server::start(&options),
            CLIENTS,
            40,
            |server, address, ended| {
                let mut rounds = 0;
                while ended.load(Ordering::Relaxed) < CLIENTS && rounds < 12 {
                    let round = rounds;
                    rounds += 1;
                    thread::sleep(Duration::from_millis(20));
                    if round % 3 == 2 {
                        server.signal("-TERM");
                        assert!(server.wait().0.success());
                    } else {
                        server.kill();
                    }
                    *server = Server::start(&options);
                    *address.lock().unwrap() = server.address;
                }
                assert!(rounds > 1, "only {rounds} times");
            },
        );
    }
}

/// Of those who race with the same revision, one wins.
#[test]
fn of_all_who_have_seen_the_same_one_wins() {
    let directory = Directory::new();
    for server in [
        Server::start(&["--workers=4"]),
        Server::start(&["--workers=4", "--working-dir", directory.path_str()]),
    ] {
        let mut clients: Vec<Client> = (0..16).map(|_| server.connect()).collect();
        let mut tag = String::new();
        for round in 0..50 {
            let header = match round {
                0 => "If-None-Match: *\r\n".to_owned(),
                _ => format!("If-Match: {tag}\r\n"),
            };
            for (n, client) in clients.iter_mut().enumerate() {
                let body = format!("{round}:{n:02}");
                let length = body.len();
                // Both APIs, and two kinds of writes.
                client.write(match n {
                    0 if round > 0 => format!(
                        "POST /api/v1/kv/a/touch HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: 12\r\n\r\n{{\"ttl\": 600}}"
                    ),
                    _ => format!(
                        "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: {length}\r\n\r\n{body}"
                    ),
                });
            }
            let answers: Vec<Response> = clients.iter_mut().map(|it| it.read("PUT")).collect();
            let won = answers.iter().filter(|answer| answer.status == 200).count();
            let lost: Vec<&Response> = answers.iter().filter(|it| it.status == 412).collect();
            assert_eq!((won, lost.len()), (1, clients.len() - 1));
            // They are told what has won.
            let read = server.get("/kv/a");
            tag = read.header("etag").unwrap().to_owned();
            assert!(lost.iter().all(|it| it.header("etag") == Some(&*tag)));
        }
    }
}
