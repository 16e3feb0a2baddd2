//! What clients see of keys that they all use fits one order of everything that happened, in which each request took effect between its
//! beginning and its end, see [`crate::order`], key by key.

use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::client::Client;
use crate::directory::Directory;
use crate::order::{Operation, is_linearizable};
use crate::process::Server;
use crate::revisions::revision;

const KEYS: [&str; 3] = ["x", "y", "z"];
const CLIENTS: u64 = 8;

/// What a request has shown of one key, or done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The key has this value and this revision, or is not there.
    Seen(Option<(u64, u64)>),
    /// The key has this revision, or is not there.
    Revision(Option<u64>),
    /// A value was put and got this revision. With a condition, the key had that revision; 0: it was not there.
    Put {
        value: u64,
        revision: u64,
        seen: Option<u64>,
    },
    /// It was deleted, at the revision that the condition named.
    Deleted { seen: Option<u64> },
}

/// A key: what it has, and the largest revision that it has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Key {
    entry: Option<(u64, u64)>,
    last: u64,
}

impl Key {
    /// What it is after an event; `None` if the event cannot happen now.
    fn after(self, event: Event) -> Option<Key> {
        let now = self.entry.map(|(_, revision)| revision);
        let fits = |seen: Option<u64>| seen.is_none_or(|seen| seen == now.unwrap_or(0));
        match event {
            Event::Seen(entry) => (entry == self.entry).then_some(self),
            Event::Revision(revision) => (revision == now).then_some(self),
            Event::Put {
                value,
                revision,
                seen,
            } => (fits(seen) && revision > self.last).then_some(Key {
                entry: Some((value, revision)),
                last: revision,
            }),
            Event::Deleted { seen } => fits(seen).then_some(Key {
                entry: None,
                ..self
            }),
        }
    }
}

/// A client that does this and that, and what it has recorded of each key.
struct Recorder {
    client: Client,
    /// The last revision that it has seen of each key; 0 where it was not there.
    known: BTreeMap<&'static str, u64>,
    recorded: BTreeMap<&'static str, Vec<Operation<Event>>>,
    /// For values that nobody else puts, and for what to do next.
    number: u64,
}

impl Recorder {
    fn record(&mut self, key: &'static str, start: Instant, event: Event) {
        let end = Some(Instant::now());
        let operation = Operation { start, end, event };
        self.recorded.entry(key).or_default().push(operation);
        let known = match event {
            Event::Seen(entry) => entry.map(|(_, revision)| revision),
            Event::Revision(revision) => revision,
            Event::Put { revision, .. } => Some(revision),
            Event::Deleted { .. } => None,
        };
        self.known.insert(key, known.unwrap_or(0));
    }

    fn step(&mut self, random: u64) {
        self.number += 1;
        let value = self.number;
        let key = KEYS[(random >> 8) as usize % KEYS.len()];
        let path = format!("/kv/{key}");
        let known = self.known.get(key).copied().unwrap_or(0);
        let (start, seen) = (Instant::now(), Some(known));
        let header = match known {
            0 => "If-None-Match: *\r\n".to_owned(),
            known => format!("If-Match: \"{known}\"\r\n"),
        };
        match random % 10 {
            0..=2 => {
                let answer = self.client.send("GET", &path, "");
                let entry = (answer.status == 200)
                    .then(|| (answer.text().parse().unwrap(), revision(&answer)));
                self.record(key, start, Event::Seen(entry));
            }
            kind @ 3..=6 => {
                let (header, seen) = if kind == 3 {
                    ("", None)
                } else {
                    (&*header, seen)
                };
                let text = value.to_string();
                let answer = self.client.send_with(header, "PUT", &path, text);
                let tag = answer.header("etag").map(|_| revision(&answer));
                let event = match (answer.status, tag) {
                    (200, Some(revision)) => Event::Put {
                        value,
                        revision,
                        seen,
                    },
                    (412, now) => Event::Revision(now),
                    (status, _) => panic!("{status}"),
                };
                self.record(key, start, event);
            }
            7 => {
                let conditional = random & 1 << 20 != 0 && known > 0;
                let (header, seen) = if conditional {
                    (&*header, seen)
                } else {
                    ("", None)
                };
                let answer = self.client.send_with(header, "DELETE", &path, "");
                let event = match answer.status {
                    200 => Event::Deleted { seen },
                    412 => Event::Revision(answer.header("etag").map(|_| revision(&answer))),
                    status => panic!("{status}"),
                };
                self.record(key, start, event);
            }
            _ => self.transact(value, start),
        }
    }

    /// Puts all keys but the last, which it checks, if all are as they are known.
    fn transact(&mut self, value: u64, start: Instant) {
        let known = KEYS.map(|key| self.known.get(key).copied().unwrap_or(0));
        let item = |n: usize| match n {
            2 => json!({"op": "check", "key": KEYS[n], "if_revision": known[n]}),
            _ => json!({"key": KEYS[n], "value": value, "if_revision": known[n]}),
        };
        let items: Vec<Value> = (0..KEYS.len()).map(item).collect();
        let body = json!({"operations": items, "with_revision": true}).to_string();
        let answer = self.client.send("POST", "/api/v1/kv/bulk", body);
        let told = answer.json();
        let failed = told["error"]["details"]["failed"].as_array();
        for (n, key) in KEYS.into_iter().enumerate() {
            let seen = Some(known[n]).filter(|known| *known > 0);
            let event = match answer.status {
                200 if n < 2 => Event::Put {
                    value,
                    revision: told["revision"].as_u64().unwrap(),
                    seen: Some(known[n]),
                },
                200 => Event::Revision(seen),
                412 => match failed.unwrap().iter().find(|it| it["index"] == n) {
                    Some(unmet) => Event::Revision(unmet["revision"].as_u64()),
                    None => Event::Revision(seen),
                },
                status => panic!("{status}"),
            };
            self.record(key, start, event);
        }
    }
}

/// Lets clients loose on a server, and checks what they have seen.
fn check(server: &Server) {
    let run = |number: u64| {
        let mut recorder = Recorder {
            client: server.connect(),
            known: BTreeMap::new(),
            recorded: BTreeMap::new(),
            number: number * 1_000_000,
        };
        let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..400 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            recorder.step(random >> 16);
        }
        recorder.recorded
    };
    let recorded: Vec<_> = thread::scope(|scope| {
        let runs = (1..=CLIENTS).map(|number| scope.spawn(move || run(number)));
        let runs: Vec<_> = runs.collect();
        runs.into_iter().map(|it| it.join().unwrap()).collect()
    });
    for key in KEYS {
        let clients: Vec<_> = recorded.iter().map(|it| it[key].clone()).collect();
        let all = || clients.iter().flatten();
        let won = |it: &&Operation<Event>| matches!(it.event, Event::Put { seen: Some(_), .. });
        let lost = |it: &&Operation<Event>| matches!(it.event, Event::Revision(_));
        assert!(all().filter(won).count() > 20 && all().filter(lost).count() > 20);
        assert!(is_linearizable(&clients, Key::after), "{key}");
    }
}

#[test]
fn what_clients_see_has_an_order_in_memory() {
    check(&Server::start(&["--workers=4"]));
}

#[test]
fn what_clients_see_has_an_order_on_disk() {
    for durability in ["sync", "os", "none"] {
        let directory = Directory::new();
        let path = directory.path_str();
        check(&Server::start(&[
            "--workers=4",
            "--durability",
            durability,
            "--working-dir",
            path,
        ]));
    }
}

#[test]
fn a_history_without_an_order_is_found_out() {
    let beginning = Instant::now();
    let at = |start: u64, end: u64, event| {
        let at = |millis| beginning + std::time::Duration::from_millis(millis);
        Operation {
            start: at(start),
            end: Some(at(end)),
            event,
        }
    };
    let put = |value, revision, seen| Event::Put {
        value,
        revision,
        seen,
    };
    let first = || vec![at(0, 1, put(1, 1, Some(0)))];
    for (clients, fine) in [
        (vec![first()], true),
        (
            vec![first(), vec![at(2, 3, Event::Seen(Some((1, 1))))]],
            true,
        ),
        // A read that began after the put had ended, and one that did not.
        (vec![first(), vec![at(2, 3, Event::Seen(None))]], false),
        (vec![first(), vec![at(0, 3, Event::Seen(None))]], true),
        // Two who have both replaced the same.
        (
            vec![
                first(),
                vec![at(2, 5, put(2, 2, Some(1)))],
                vec![at(2, 5, put(3, 3, Some(1)))],
            ],
            false,
        ),
        (
            vec![
                first(),
                vec![at(2, 5, put(2, 2, Some(1)))],
                vec![at(2, 5, Event::Revision(Some(2)))],
            ],
            true,
        ),
        // A condition that has failed for what was not there yet.
        (
            vec![
                first(),
                vec![at(6, 7, put(2, 2, Some(1)))],
                vec![at(2, 5, Event::Revision(Some(2)))],
            ],
            false,
        ),
        // A revision that goes back.
        (
            vec![vec![at(0, 1, put(1, 5, None)), at(2, 3, put(2, 4, None))]],
            false,
        ),
        (
            vec![
                first(),
                vec![
                    at(2, 3, Event::Deleted { seen: Some(1) }),
                    at(4, 5, Event::Seen(Some((1, 1)))),
                ],
            ],
            false,
        ),
    ] {
        assert_eq!(is_linearizable(&clients, Key::after), fine, "{clients:?}");
    }
}
