//! A watcher that begins with what is there and does what it is told has what the store has, whatever is written.

use std::collections::BTreeMap;
use std::thread;

use serde_json::{Value, json};

use crate::client::Client;
use crate::directory::Directory;
use crate::faults::{Random, setting};
use crate::process::{Server, wait_for};
use crate::watcher::{Event, Mirror, Mirrored, Watcher};

const WRITERS: u64 = 3;
/// Unless `TESTS_WATCH_ROUNDS` says otherwise.
const ROUNDS: u64 = 12;
/// At a time.
const MIRRORS: usize = 8;
/// Of each writer, in each round.
const STEPS: usize = 120;

/// What somebody mirrors: the query, and the beginning of the keys it is about.
const PARTS: [(&str, &str); 4] = [
    ("initial=true", ""),
    ("initial=true&prefix=b:", "b:"),
    ("initial=true&prefix=b:1", "b:1"),
    ("initial=true&key=c:1:marker", "c:1:marker"),
];

/// Keys of which each mirror sees at least one. They are written last in each round.
const MARKERS: [&str; 4] = ["a:1:marker", "b:1:marker", "b:2:marker", "c:1:marker"];

/// A mirror, and where its news come from.
struct Watching {
    watcher: Watcher,
    mirror: Mirror,
    prefix: &'static str,
}

impl Watching {
    fn begin(server: &Server, (query, prefix): (&str, &'static str)) -> Watching {
        Watching {
            watcher: Watcher::open(server, query),
            mirror: Mirror::new(),
            prefix,
        }
    }

    /// Follows until it has seen the markers of a round.
    fn follow(&mut self, round: u64) {
        let mut seen = false;
        loop {
            let event = self.watcher.next();
            seen |= is_marker(&event, round);
            if self.mirror.apply(event) && seen {
                return;
            }
        }
    }

    /// Follows until it has what the store has.
    fn expect_copy(&mut self, client: &mut Client) {
        let mirror = wait_for("what has expired to be told", || {
            let (revision, found) = listing(client, self.prefix);
            while self.mirror.revision < revision && self.differs(&found) {
                self.mirror.apply(self.watcher.next());
            }
            // What the store does not show any more may still be about to be told.
            let left = self.mirror.entries.iter().filter(|(key, entry)| {
                found.get(*key) != Some(*entry) && (found.contains_key(*key) || !entry.expires)
            });
            let behind = self.mirror.revision > revision;
            assert!(behind || left.count() == 0, "{}", self.difference(&found));
            (!self.differs(&found)).then_some(found)
        });
        assert!(mirror == self.mirror.entries);
    }

    fn differs(&self, found: &BTreeMap<String, Mirrored>) -> bool {
        self.mirror.entries != *found
    }

    fn difference(&self, found: &BTreeMap<String, Mirrored>) -> String {
        let keys = self.mirror.entries.keys().chain(found.keys());
        let both = |key: &String| (key.clone(), self.mirror.entries.get(key), found.get(key));
        let differs = keys.map(both).filter(|(_, ours, theirs)| ours != theirs);
        let text = format!("{:?}", differs.take(3).collect::<Vec<_>>());
        text.chars().take(1000).collect()
    }
}

fn is_marker(event: &Event, round: u64) -> bool {
    event.data.contains(":marker\"") && event.json()["value"] == round
}

/// What a store has, and at which revision.
pub fn listing(client: &mut Client, prefix: &str) -> (u64, BTreeMap<String, Mirrored>) {
    let path = format!("/api/v1/kv?prefix={prefix}&with_revision=true&with_ttl=true");
    let mut answer = client.send("GET", &path, "").json();
    let revision = answer["revision"].as_u64().expect("a revision");
    let Value::Object(data) = answer["data"].take() else {
        panic!("{answer}")
    };
    let entry = |(key, mut value): (String, Value)| {
        let entry = Mirrored {
            value: value["value"].take(),
            revision: value["revision"].as_u64().unwrap(),
            expires: !value["ttl"].is_null(),
        };
        (key, entry)
    };
    (revision, data.into_iter().map(entry).collect())
}

/// Writes this and that.
fn write(client: &mut Client, random: &mut Random, writer: u64) {
    let key = |random: &mut Random| {
        let group = ["a", "b", "c"][random.below(3)];
        format!("{group}:{}:{}", random.below(3), random.below(8))
    };
    let value = |random: &mut Random| match random.below(60) {
        0 => json!("long ".repeat(random.below(40_000) + 1)),
        1..20 => json!([writer, random.below(1000), null]),
        _ => json!(format!("{writer}\n{}", random.below(1000))),
    };
    let ttl = |random: &mut Random| {
        [Value::Null, json!(1), json!(2), json!(600)][random.below(4)].clone()
    };
    let (method, path, body) = match random.below(100) {
        0..40 => {
            let body = json!({"value": value(random)});
            ("PUT", format!("/api/v1/kv/{}", key(random)), body)
        }
        40..50 => {
            let body = json!({"value": value(random), "ttl": random.below(3) + 1});
            ("PUT", format!("/api/v1/kv/{}", key(random)), body)
        }
        50..60 => {
            let body = json!({"ttl": ttl(random)});
            ("POST", format!("/api/v1/kv/{}/touch", key(random)), body)
        }
        60..75 => ("DELETE", format!("/kv/{}", key(random)), Value::Null),
        75..95 => {
            let operation = |random: &mut Random| match random.below(4) {
                0 => json!({"op": "delete", "key": key(random)}),
                1 => json!({"op": "touch", "key": key(random), "ttl": ttl(random)}),
                _ => json!({"key": key(random), "value": value(random), "ttl": ttl(random)}),
            };
            let count = random.below(20) + 1;
            let operations: Vec<Value> = (0..count).map(|_| operation(random)).collect();
            let body = json!({"operations": operations});
            ("POST", "/api/v1/kv/bulk".to_owned(), body)
        }
        95..98 => {
            let prefix = ["a", "b:", "b:1", "b:1:3", "c:1"][random.below(5)];
            ("DELETE", format!("/api/v1/kv?prefix={prefix}"), Value::Null)
        }
        _ => ("DELETE", "/clear".to_owned(), Value::Null),
    };
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = client.send(method, &path, body);
    assert!(
        [200, 404].contains(&answer.status),
        "{method} {path}: {answer:?}"
    );
}

#[test]
fn a_mirror_is_what_the_store_is() {
    // Without syncing, the disk does not set the pace.
    let directory = Directory::new();
    let options = ["--working-dir", directory.path_str(), "--durability=os"];
    let servers = [Server::start(&[]), Server::start(&options)];
    for (kind, server) in servers.iter().enumerate() {
        let mut client = server.connect();
        let mut all: Vec<Watching> = Vec::new();
        for round in 1..=setting("TESTS_WATCH_ROUNDS", ROUNDS) {
            let part = PARTS[round as usize % PARTS.len()];
            thread::scope(|scope| {
                let write = |writer| {
                    let mut client = server.connect();
                    let mut random = Random::new(writer + 10 * round + 1000 * kind as u64);
                    move || {
                        for _ in 0..STEPS {
                            write(&mut client, &mut random, writer);
                        }
                    }
                };
                let writers: Vec<_> = (0..WRITERS).map(|it| scope.spawn(write(it))).collect();
                // One more begins meanwhile, in a store that never stands still.
                all.truncate(MIRRORS - 1);
                all.insert(0, Watching::begin(server, part));
                for watching in &mut all {
                    scope.spawn(move || watching.follow(round));
                }
                for writer in writers {
                    writer.join().unwrap();
                }
                let marker = |key| json!({"key": key, "value": round});
                let markers: Vec<Value> = MARKERS.iter().map(marker).collect();
                let body = json!({"operations": markers}).to_string();
                let answer = client.send("POST", "/api/v1/kv/bulk", body);
                assert_eq!(answer.status, 200);
            });
            for watching in &mut all {
                watching.expect_copy(&mut client);
            }
        }
        assert!(all.iter().all(|it| it.mirror.resets == 0));
    }
}
