//! Random kills for long, half of them while the server starts: nothing that was answered is lost, and nothing is torn.
//!
//! `cargo test --test it -- disk_soak --ignored --nocapture`; `TESTS_SOAK_KILLS` says how many kills (default 20000, some 20 minutes),
//! `TESTS_SEED` which ones.

#![expect(
    clippy::print_stderr,
    reason = "whoever runs this for long wants to see how far it is"
)]

use std::env;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::Duration;

use crate::client::Client;
use crate::directory::Directory;
use crate::process::{Server, wait_for};

const WRITERS: usize = 6;

/// Keys of each writer that are put, touched and deleted one by one.
const KEYS: usize = 20;

/// Keys of each writer that are only ever put together, to the same value.
const BULK: usize = 5;

#[test]
#[ignore = "takes 20 minutes"]
fn thousands_of_random_kills_take_back_nothing_that_was_answered() {
    let kills = env::var("TESTS_SOAK_KILLS").map_or(20_000, |it| it.parse().unwrap());
    run(kills);
}

#[test]
fn some_random_kills_take_back_nothing_that_was_answered() {
    run(16);
}

fn run(kills: u64) {
    let seed = env::var("TESTS_SEED").map_or(1, |it| it.parse().unwrap());
    let mut random = Random(seed);
    for mode in ["sync", "os"] {
        let directory = Directory::new();
        let options = [
            "--working-dir",
            directory.path_str(),
            "--durability",
            mode,
            "--snapshot-after",
            "20000",
        ];
        let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
        for kill in 0..kills / 2 {
            let what = format!("{mode}, seed {seed}, kill {kill}");
            if kill % 2 == 0 {
                kill_while_starting(&options, Duration::from_micros(random.below(40_000)));
                continue;
            }
            let mut server = Server::start(&options);
            let mut client = server.connect();
            for writer in &mut writers {
                writer.check(&mut client, &what);
            }
            let enough = 20 + random.below(400);
            writers = write_until_killed(&mut server, writers, enough, random.next());
            if kill % 1000 == 999 {
                eprintln!("{what}: nothing lost");
            }
        }
        let server = Server::start(&options);
        for writer in &mut writers {
            writer.check(&mut server.connect(), mode);
        }
    }
}

fn kill_while_starting(options: &[&str], after: Duration) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_threadkv"))
        .args(["--port", "0"])
        .args(options)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Any moment will do: it is not waited for anything.
    thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Has all writers at work until so many requests have been answered, and kills the server then.
fn write_until_killed(
    server: &mut Server,
    writers: Vec<Writer>,
    enough: u64,
    seed: u64,
) -> Vec<Writer> {
    // Before a fast writer alone has had enough answers.
    let clients: Vec<Client> = writers.iter().map(|_| server.connect()).collect();
    let (answers, killed) = (AtomicU64::new(0), AtomicBool::new(false));
    // Whoever clears everything waits until nobody else has asked for something.
    let clearing = RwLock::new(());
    let writers: Vec<Mutex<Writer>> = writers.into_iter().map(Mutex::new).collect();
    thread::scope(|scope| {
        for ((n, writer), mut client) in writers.iter().enumerate().zip(clients) {
            let (answers, killed, clearing) = (&answers, &killed, &clearing);
            let all = &writers;
            scope.spawn(move || {
                let mut random = Random(seed ^ (n as u64 + 1) << 32);
                while !killed.load(Ordering::Acquire) {
                    let answered = if n == 0 && random.below(40) == 0 {
                        let _alone = clearing.write().unwrap();
                        let mut all: Vec<_> = all.iter().map(|it| it.lock().unwrap()).collect();
                        all.iter_mut().for_each(|it| it.ask_for_clear());
                        let answered = ask(&mut client, "DELETE", "/clear", "");
                        if answered {
                            all.iter_mut().for_each(|it| it.cleared());
                        }
                        answered
                    } else {
                        let _beside_others = clearing.read().unwrap();
                        writer.lock().unwrap().step(&mut client, &mut random)
                    };
                    if !answered {
                        break;
                    }
                    answers.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        wait_for("answers", || {
            (answers.load(Ordering::Acquire) >= enough).then_some(())
        });
        server.kill();
        killed.store(true, Ordering::Release);
    });
    let writers = writers.into_iter();
    writers.map(|it| it.into_inner().unwrap()).collect()
}

/// Whether a request was answered before the server was killed.
fn ask(client: &mut Client, method: &str, path: &str, body: &str) -> bool {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = client.try_write(request);
    match answer.and_then(|()| client.try_read(method)) {
        Ok(answer) => {
            assert!(answer.status == 200 || answer.status == 404, "{answer:?}");
            true
        }
        Err(_) => false,
    }
}

/// What a key may have: a value and whether it expires, or nothing. The last is what was asked for last.
type Possible = Vec<Option<(String, bool)>>;

/// A writer, and what it knows of its keys.
struct Writer {
    number: usize,
    steps: u64,
    keys: Vec<Possible>,
    bulk: Possible,
}

impl Writer {
    fn new(number: usize) -> Writer {
        Writer {
            number,
            steps: 0,
            keys: vec![vec![None]; KEYS],
            bulk: vec![None],
        }
    }

    /// One request. Returns whether it was answered.
    fn step(&mut self, client: &mut Client, random: &mut Random) -> bool {
        self.steps += 1;
        let key = random.below(KEYS as u64) as usize;
        let path = format!("/api/v1/kv/w{}:{key}", self.number);
        let length = if random.below(10) == 0 { 3000 } else { 60 };
        let value = format!("{}.{};", self.number, self.steps).repeat(length / 8);
        let kind = random.below(6);
        if kind == 0 {
            let items = (0..BULK)
                .map(|n| format!(r#"{{"key":"w{}:bulk{n}","value":"{value}"}}"#, self.number));
            let items = items.collect::<Vec<_>>().join(",");
            let body = format!(r#"{{"operations":[{items}]}}"#);
            self.bulk.push(Some((value, false)));
            let answered = ask(client, "POST", "/api/v1/kv/bulk", &body);
            return settle(&mut self.bulk, answered);
        }
        let possible = &mut self.keys[key];
        let answered = match kind {
            1 => {
                possible.push(None);
                ask(client, "DELETE", &path, "")
            }
            2 => {
                let touched = possible.last().unwrap().clone();
                possible.push(touched.map(|(value, _)| (value, true)));
                ask(client, "POST", &format!("{path}/touch"), r#"{"ttl":3600}"#)
            }
            3 => {
                possible.push(Some((value.clone(), true)));
                let body = format!(r#"{{"value":"{value}","ttl":3600}}"#);
                ask(client, "PUT", &path, &body)
            }
            _ => {
                possible.push(Some((value.clone(), false)));
                ask(client, "PUT", &path, &format!(r#"{{"value":"{value}"}}"#))
            }
        };
        settle(&mut self.keys[key], answered)
    }

    fn ask_for_clear(&mut self) {
        let keys = self.keys.iter_mut().chain([&mut self.bulk]);
        keys.for_each(|possible| possible.push(None));
    }

    fn cleared(&mut self) {
        let keys = self.keys.iter_mut().chain([&mut self.bulk]);
        keys.for_each(|possible| *possible = vec![None]);
    }

    /// Compares what there is with what may be there, which is then known.
    fn check(&mut self, client: &mut Client, what: &str) {
        for (key, possible) in self.keys.iter_mut().enumerate() {
            let found = find(client, &format!("w{}:{key}", self.number));
            let fits = possible.contains(&found);
            assert!(fits, "{what}: writer {} key {key}: {found:?}", self.number);
            *possible = vec![found];
        }
        let bulk = |n| format!("w{}:bulk{n}", self.number);
        let found = find(client, &bulk(0));
        assert!(self.bulk.contains(&found), "{what}: {found:?}");
        for n in 1..BULK {
            let other = find(client, &bulk(n));
            assert!(other == found, "{what}: {} is torn", bulk(n));
        }
        self.bulk = vec![found];
    }
}

/// What was answered is known; what was not may have happened or not.
fn settle(possible: &mut Possible, answered: bool) -> bool {
    if answered {
        possible.drain(..possible.len() - 1);
    }
    answered
}

fn find(client: &mut Client, key: &str) -> Option<(String, bool)> {
    let path = format!("/api/v1/kv/{key}?with_ttl=true");
    let found = client.send("GET", &path, "");
    if found.status == 404 {
        return None;
    }
    let data = &found.json()["data"];
    let value = data["value"].as_str().unwrap().to_owned();
    Some((value, data.get("ttl").is_some()))
}

/// Numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
