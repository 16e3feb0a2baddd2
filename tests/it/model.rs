//! Random commands of both APIs do what they would do to a plain map, whatever their order, restarts and crashes included.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::client::Client;
use crate::directory::Directory;
use crate::process::Server;

/// Few, so that commands meet; one of them is part of a path of the JSON API.
const KEYS: &[&str] = &["a", "a.b", "a.c", "B", "b:1", "bulk", "z-9"];

/// In JSON, exactly as they are sent.
const VALUES: &[&str] = &[
    r#""""#,
    r#""text""#,
    r#""1.0""#,
    r#""\u00e9 \"quoted\"\n\ud83c\udf0d""#,
    "null",
    "true",
    "1.0",
    "123456789012345678901234567890",
    r#"{"b": [1,  2], "a": {}}"#,
    r#"["\u00e9"]"#,
];

/// Seconds; so long that none of them runs out.
const TTLS: &[u64] = &[3600, 7200, 1_000_000];

#[derive(Clone, Debug)]
enum Step {
    PlainPut(&'static str, String),
    PlainGet(&'static str),
    PlainDelete(&'static str),
    Clear,
    Put(&'static str, Item),
    Get(&'static str),
    Delete(&'static str),
    Touch(&'static str, u64),
    Ttl(&'static str),
    BulkPut(Vec<(&'static str, Item)>),
    BulkGet(Vec<&'static str>),
    BulkDelete(Vec<&'static str>),
    BulkTouch(Vec<(&'static str, u64)>),
    List {
        prefix: Option<&'static str>,
        after: Option<&'static str>,
        limit: Option<usize>,
    },
    Restart,
    Crash,
}

/// A value in JSON, and a time to live.
type Item = (String, Option<u64>);

fn step(u: &mut Unstructured<'_>) -> Result<Step> {
    let key = *u.choose(KEYS)?;
    Ok(match u.int_in_range(0..=32)? {
        0..=2 => Step::PlainPut(key, text(u)?),
        3..=4 => Step::PlainGet(key),
        5 => Step::PlainDelete(key),
        6 => Step::Clear,
        7..=10 => Step::Put(key, item(u)?),
        11..=13 => Step::Get(key),
        14 => Step::Delete(key),
        15..=16 => Step::Touch(key, *u.choose(TTLS)?),
        17..=18 => Step::Ttl(key),
        19..=21 => Step::BulkPut(some(u, |u| Ok((*u.choose(KEYS)?, item(u)?)))?),
        22..=23 => Step::BulkGet(some(u, |u| Ok(*u.choose(KEYS)?))?),
        24..=25 => Step::BulkDelete(some(u, |u| Ok(*u.choose(KEYS)?))?),
        26..=27 => Step::BulkTouch(some(u, |u| Ok((*u.choose(KEYS)?, *u.choose(TTLS)?)))?),
        28..=30 => Step::List {
            prefix: *u.choose(&[None, Some("a"), Some("a."), Some("b"), Some("x")])?,
            after: u.ratio(1, 2)?.then_some(key),
            limit: *u.choose(&[None, Some(1), Some(2), Some(4)])?,
        },
        31 => Step::Restart,
        _ => Step::Crash,
    })
}

/// One to five of them.
fn some<T>(
    u: &mut Unstructured<'_>,
    mut one: impl FnMut(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    (0..u.int_in_range(1..=5)?).map(|_| one(u)).collect()
}

fn text(u: &mut Unstructured<'_>) -> Result<String> {
    if u.ratio(1, 9)? {
        return Ok("v".repeat(50_000));
    }
    let letters = ["a", "z", "0", "9", "\"", "\\", "{", "é"];
    Ok(some(u, |u| Ok(*u.choose(&letters)?))?.concat())
}

fn item(u: &mut Unstructured<'_>) -> Result<Item> {
    let value = if u.ratio(1, 9)? {
        // Some beyond the sizes at which bodies and answers take other ways.
        let bytes = *u.choose(&[2_000, 20_000, 100_000])?;
        format!("\"{}\"", "é\\n".repeat(bytes / 4))
    } else {
        (*u.choose(VALUES)?).to_owned()
    };
    let ttl = *u.choose(TTLS)?;
    Ok((value, u.ratio(1, 2)?.then_some(ttl)))
}

/// One that fails names a seed: `.seed(..)` behind `arbtest(..)` runs it again, `.minimize()` behind that makes it short.
#[test]
fn random_commands_do_what_they_would_do_to_a_map() {
    arbtest(|u| {
        let mut steps = Vec::new();
        while !u.is_empty() {
            steps.push(step(u)?);
        }
        Run::new().follow(&steps);
        Ok(())
    })
    .size_min(100)
    .size_max(800)
    .budget(Duration::from_secs(2));
}

/// What is under a key: the value in JSON, and its time to live.
type Model = BTreeMap<&'static str, Item>;

struct Run {
    directory: Directory,
    server: Server,
    client: Client,
    model: Model,
}

impl Run {
    fn new() -> Run {
        let directory = Directory::new();
        let server = start(&directory);
        let client = server.connect();
        Run {
            directory,
            server,
            client,
            model: Model::new(),
        }
    }

    fn follow(mut self, steps: &[Step]) {
        for step in steps {
            self.take(step);
        }
        self.take(&Step::Crash);
        self.take(&Step::List {
            prefix: None,
            after: None,
            limit: None,
        });
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::PlainPut(key, text) => {
                let sent = self.client.send("PUT", &format!("/kv/{key}"), text);
                sent.expect(200, "");
                let json = serde_json::to_string(text).unwrap();
                self.model.insert(key, (json, None));
            }
            Step::PlainGet(key) => {
                let read = self.client.send("GET", &format!("/kv/{key}"), "");
                match self.model.get(key) {
                    Some((json, _)) => read.expect(200, &as_text(json)),
                    None => read.expect(404, "key not found\n"),
                }
            }
            Step::PlainDelete(key) => {
                let deleted = self.client.send("DELETE", &format!("/kv/{key}"), "");
                deleted.expect(200, "");
                self.model.remove(key);
            }
            Step::Clear => {
                self.client.send("DELETE", "/clear", "").expect(200, "");
                self.model.clear();
            }
            Step::Put(key, (value, ttl)) => {
                let body = match ttl {
                    Some(ttl) => format!(r#"{{"value":{value},"ttl":{ttl}}}"#),
                    None => format!(r#"{{"value":{value}}}"#),
                };
                self.json("PUT", &format!("/{key}"), body, 200);
                self.model.insert(key, (value.clone(), *ttl));
            }
            Step::Get(key) => {
                let found = self.model.get(key).cloned();
                let path = format!("/{key}?with_ttl=true");
                let status = if found.is_some() { 200 } else { 404 };
                let answer = self.json("GET", &path, String::new(), status);
                if let Some(item) = found {
                    assert_item(&answer, "data", &item);
                }
            }
            Step::Delete(key) => {
                self.json("DELETE", &format!("/{key}"), String::new(), 200);
                self.model.remove(key);
            }
            // This path is the one of the bulk request.
            Step::Touch("bulk", _) => {}
            Step::Touch(key, ttl) => {
                let found = self.touch(key, *ttl);
                let body = json!({ "ttl": ttl }).to_string();
                let status = if found { 200 } else { 404 };
                self.json("POST", &format!("/{key}/touch"), body, status);
            }
            Step::Ttl(key) => {
                let found = self.model.get(key).cloned();
                let status = if found.is_some() { 200 } else { 404 };
                let answer = self.json("GET", &format!("/{key}/ttl"), String::new(), status);
                if let Some((_, ttl)) = found {
                    let answer: Value = serde_json::from_str(&answer).unwrap();
                    assert_ttl(&answer["data"]["ttl"], ttl);
                }
            }
            Step::BulkPut(items) => {
                let operations = items.iter().map(|(key, (value, ttl))| {
                    let ttl = ttl.map_or("null".into(), |ttl| ttl.to_string());
                    format!(r#"{{"key":"{key}","value":{value},"ttl":{ttl}}}"#)
                });
                let operations: Vec<String> = operations.collect();
                let body = format!(r#"{{"operations":[{}]}}"#, operations.join(","));
                let answer = self.json("POST", "/bulk", body, 200);
                for (key, item) in items {
                    self.model.insert(key, item.clone());
                }
                let done = items.iter().map(|(key, _)| (*key, true));
                assert_each(&answer, done.collect());
            }
            Step::BulkGet(keys) => {
                let body = json!({"keys": keys, "with_ttl": true}).to_string();
                let answer = self.json("POST", "/bulk/get", body, 200);
                for key in keys {
                    match self.model.get(key) {
                        Some(item) => assert_item(&answer, &format!("data/{key}"), item),
                        None => assert_eq!(part(&answer, &format!("data/{key}")), MISSING),
                    }
                }
            }
            Step::BulkDelete(keys) => {
                let body = json!({ "keys": keys }).to_string();
                let answer = self.json("POST", "/bulk/delete", body, 200);
                let found = keys.iter().map(|key| (*key, self.model.contains_key(key)));
                assert_each(&answer, found.collect());
                self.model.retain(|key, _| !keys.contains(key));
            }
            Step::BulkTouch(items) => {
                let operations: Vec<Value> = items
                    .iter()
                    .map(|(key, ttl)| json!({"key": key, "ttl": ttl}))
                    .collect();
                let body = json!({ "operations": operations }).to_string();
                let answer = self.json("POST", "/bulk/touch", body, 200);
                let found = items.iter().map(|(key, ttl)| (*key, self.touch(key, *ttl)));
                assert_each(&answer, found.collect());
            }
            Step::List {
                prefix,
                after,
                limit,
            } => self.list(*prefix, *after, *limit),
            Step::Restart => {
                self.server.signal("-TERM");
                assert!(self.server.wait().0.success());
                self.begin_again();
            }
            Step::Crash => {
                self.server.kill();
                self.begin_again();
            }
        }
    }

    fn begin_again(&mut self) {
        self.server = start(&self.directory);
        self.client = self.server.connect();
    }

    fn touch(&mut self, key: &'static str, ttl: u64) -> bool {
        let item = self.model.get_mut(key);
        item.map(|item| item.1 = Some(ttl)).is_some()
    }

    fn list(&mut self, prefix: Option<&str>, after: Option<&str>, limit: Option<usize>) {
        let mut query = String::from("?with_ttl=true");
        for (name, value) in [("prefix", prefix), ("after", after)] {
            if let Some(value) = value {
                query += &format!("&{name}={value}");
            }
        }
        if let Some(limit) = limit {
            query += &format!("&limit={limit}");
        }
        let answer = self.json("GET", &query, String::new(), 200);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let listed = self.model.range::<str, _>((from, Bound::Unbounded));
        let listed = listed.filter(|(key, _)| key.starts_with(prefix.unwrap_or_default()));
        let listed: Vec<_> = listed.take(limit.unwrap_or(usize::MAX)).collect();
        let parsed: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(&part(&answer, "data")).unwrap();
        assert!(
            parsed.keys().eq(listed.iter().map(|(key, _)| *key)),
            "{answer}"
        );
        for (key, item) in listed {
            assert_item(&answer, &format!("data/{key}"), item);
        }
        // In the order of the bytes of the keys.
        let places = parsed
            .keys()
            .map(|key| answer.find(&format!("\"{key}\":{{\"value\"")));
        assert!(places.is_sorted(), "{answer}");
    }

    /// Sends a request under `/api/v1/kv` and checks the status.
    fn json(&mut self, method: &str, path: &str, body: String, status: u16) -> String {
        let answer = self.client.send(method, &format!("/api/v1/kv{path}"), body);
        let text = answer.text().to_owned();
        assert_eq!(answer.status, status, "{method} {path}: {text}");
        text
    }
}

fn start(directory: &Directory) -> Server {
    Server::start(&["--working-dir", directory.path_str()])
}

const MISSING: &str = r#"{"status":"error","error":"not_found"}"#;

/// How the plain API returns a value.
fn as_text(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}

/// The text of a part of some JSON, by the names on the way to it.
fn part(json: &str, path: &str) -> String {
    let mut text = json.to_owned();
    for name in path.split('/') {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).unwrap();
        text = fields[name].get().to_owned();
    }
    text
}

/// Checks a value and a time to live. A string may come back with other escapes, anything else is exactly what was sent.
fn assert_item(answer: &str, path: &str, (value, ttl): &Item) {
    let item = part(answer, path);
    let returned = part(&item, "value");
    match serde_json::from_str::<String>(value) {
        Ok(text) => assert!(serde_json::from_str::<String>(&returned).unwrap() == text),
        Err(_) => assert_eq!(returned, *value),
    }
    let parsed: Value = serde_json::from_str(&item).unwrap();
    assert_eq!(parsed.get("ttl").is_some(), ttl.is_some(), "{item}");
    assert_ttl(parsed.get("ttl").unwrap_or(&Value::Null), *ttl);
}

fn assert_ttl(returned: &Value, ttl: Option<u64>) {
    match ttl {
        None => assert_eq!(*returned, Value::Null),
        // It may have been set a while ago.
        Some(ttl) => assert!((ttl - 300..=ttl).contains(&returned.as_u64().unwrap())),
    }
}

/// Checks what a bulk request says about each key.
fn assert_each(answer: &str, each: BTreeMap<&str, bool>) {
    let told = each.into_iter().map(|(key, found)| {
        let told = if found {
            json!("ok")
        } else {
            serde_json::from_str(MISSING).unwrap()
        };
        (key.to_owned(), told)
    });
    let expected = json!({"status": "ok", "data": told.collect::<serde_json::Map<_, _>>()});
    assert_eq!(serde_json::from_str::<Value>(answer).unwrap(), expected);
}
