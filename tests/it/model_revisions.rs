//! Random transactions do what they would do to a plain map of values and revisions, restarts and crashes included.

use std::collections::BTreeMap;
use std::time::Duration;

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use serde_json::{Value, json};

use crate::directory::Directory;
use crate::process::Server;

/// Few, so that transactions meet.
const KEYS: &[&str] = &["a", "b", "c", "d"];

/// What a condition names.
#[derive(Clone, Copy, Debug)]
enum Named {
    /// What the key has now.
    Current,
    /// Something that it has not.
    Other,
    /// That it is not there.
    Missing,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    op: &'static str,
    key: &'static str,
    named: Option<Named>,
}

fn item(u: &mut Unstructured<'_>) -> Result<Item> {
    let op = *u.choose(&["put", "put", "delete", "touch", "check"])?;
    let named = *u.choose(&[Named::Current, Named::Current, Named::Other, Named::Missing])?;
    Ok(Item {
        op,
        key: u.choose(KEYS)?,
        // A check without a condition is refused.
        named: (op == "check" || u.ratio(1, 2)?).then_some(named),
    })
}

/// The revision of each key that is there, and its value.
type Model = BTreeMap<&'static str, (u64, usize)>;

struct Run {
    directory: Directory,
    server: Server,
    model: Model,
    /// The largest revision so far.
    last: u64,
    steps: usize,
}

impl Run {
    fn start_again(&mut self) {
        self.server = start(&self.directory);
    }

    fn transact(&mut self, items: &[Item]) {
        self.steps += 1;
        let revision = |key| self.model.get(key).map(|(revision, _)| *revision);
        let (mut operations, mut failed) = (Vec::new(), Vec::new());
        for (index, Item { op, key, named }) in items.iter().enumerate() {
            let now = revision(key);
            let condition = named.map(|named| match named {
                Named::Current => now.unwrap_or(0),
                Named::Other => self.last + 1,
                Named::Missing => 0,
            });
            if condition.is_some_and(|it| it != now.unwrap_or(0)) {
                failed.push(json!({"index": index, "key": key, "revision": now}));
            }
            let mut operation = json!({"op": op, "key": key, "if_revision": condition});
            match *op {
                "put" => operation["value"] = json!(self.steps),
                "touch" => operation["ttl"] = json!(3600),
                _ => {}
            }
            operations.push(operation);
        }
        let body = json!({"operations": operations, "with_revision": true}).to_string();
        let answer = self.server.post("/api/v1/kv/bulk", &body);
        let answered = answer.json();
        if !failed.is_empty() {
            assert_eq!(answer.status, 412, "{body}: {answered}");
            let details = &answered["error"]["details"]["failed"];
            assert_eq!(*details, json!(failed), "{body}");
            return;
        }
        assert_eq!(answer.status, 200, "{body}: {answered}");
        let committed = answered["revision"].as_u64().unwrap();
        let mut changed = false;
        for Item { op, key, .. } in items {
            let there = self.model.contains_key(key);
            match *op {
                "put" => {
                    self.model.insert(key, (committed, self.steps));
                }
                "touch" if there => {
                    if let Some(entry) = self.model.get_mut(key) {
                        entry.0 = committed;
                    }
                }
                "delete" if there => {
                    self.model.remove(key);
                }
                _ => continue,
            }
            changed = true;
        }
        if changed {
            assert!(committed > self.last, "{committed}, after {}", self.last);
            self.last = committed;
        } else {
            assert_eq!(committed, self.last, "{body}");
        }
    }

    fn check(&self) {
        let body = json!({"keys": KEYS, "with_revision": true}).to_string();
        let answer = self.server.post("/api/v1/kv/bulk/get", &body).json();
        assert_eq!(answer["revision"], self.last);
        for key in KEYS {
            let found = &answer["data"][key];
            match self.model.get(key) {
                Some((revision, value)) => {
                    assert_eq!(found["value"], *value, "{key}");
                    assert_eq!(found["revision"], *revision, "{key}");
                }
                None => assert_eq!(found["error"], "not_found", "{key}"),
            }
        }
    }
}

fn start(directory: &Directory) -> Server {
    Server::start(&["--working-dir", directory.path_str()])
}

/// What the store says before anything was written.
fn revision(server: &Server) -> u64 {
    let answer: Value = server.get("/api/v1/kv?with_revision=true").json();
    answer["revision"].as_u64().unwrap()
}

#[test]
fn random_transactions_do_what_they_would_do_to_a_map() {
    arbtest(|u| {
        let directory = Directory::new();
        let server = start(&directory);
        let mut run = Run {
            last: revision(&server),
            directory,
            server,
            model: Model::new(),
            steps: 0,
        };
        while !u.is_empty() {
            match u.int_in_range(0..=15)? {
                0 => {
                    run.server.signal("-TERM");
                    assert!(run.server.wait().0.success());
                    run.start_again();
                }
                1 => {
                    run.server.kill();
                    run.start_again();
                }
                _ => {
                    let items = (0..u.int_in_range(1..=4)?).map(|_| item(u));
                    run.transact(&items.collect::<Result<Vec<Item>>>()?);
                }
            }
            run.check();
        }
        Ok(())
    })
    .size_min(100)
    .size_max(800)
    .budget(Duration::from_secs(2));
}
