//! What one client asks a server for, request after request, and what must be there afterwards.

use std::collections::BTreeMap;
use std::io;

use serde_json::json;

use crate::client::{Client, Response};

/// The log is replaced by a snapshot when it has so many bytes.
pub const SNAPSHOT_AFTER: &str = "20000";

/// A value of so many bytes makes the log that long, also behind a snapshot with another one of its kind.
const LARGE: usize = 26_000;

/// What a key has: its value, and whether it expires.
pub type State = BTreeMap<String, (String, bool)>;

/// A request that writes.
pub enum Step {
    Put(&'static str, String),
    Delete(&'static str),
    Touch(&'static str),
    Bulk(Vec<(&'static str, String)>),
    Clear,
    /// A put that makes the log so long that a snapshot replaces it. Ends when that has happened.
    PutLarge(&'static str, u32),
}

use Step::{Bulk, Clear, Delete, Put, PutLarge, Touch};

impl Step {
    pub fn send(&self, client: &mut Client) -> io::Result<Response> {
        let (method, path, body) = match self {
            Put(key, value) => ("PUT", format!("/kv/{key}"), value.clone()),
            PutLarge(key, n) => ("PUT", format!("/kv/{key}"), text(*n, LARGE)),
            Delete(key) => ("DELETE", format!("/kv/{key}"), String::new()),
            Touch(key) => {
                let body = json!({"ttl": 100_000}).to_string();
                ("POST", format!("/api/v1/kv/{key}/touch"), body)
            }
            Bulk(entries) => {
                let item = |(key, value): &(_, String)| json!({"key": key, "value": value});
                let items: Vec<_> = entries.iter().map(item).collect();
                let body = json!({"operations": items}).to_string();
                ("POST", "/api/v1/kv/bulk".to_owned(), body)
            }
            Clear => ("DELETE", "/clear".to_owned(), String::new()),
        };
        let length = body.len();
        client.try_write(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        ))?;
        client.try_read(method)
    }

    /// Whether it takes room.
    pub fn puts(&self) -> bool {
        matches!(self, Put(..) | PutLarge(..) | Bulk(_))
    }

    pub fn apply(&self, state: &mut State) {
        let mut put = |key: &str, value: String| {
            state.insert(key.to_owned(), (value, false));
        };
        match self {
            Put(key, value) => put(key, value.clone()),
            PutLarge(key, n) => put(key, text(*n, LARGE)),
            Bulk(entries) => entries
                .iter()
                .for_each(|(key, value)| put(key, value.clone())),
            Delete(key) => drop(state.remove(*key)),
            Touch(key) => {
                if let Some((_, expires)) = state.get_mut(*key) {
                    *expires = true;
                }
            }
            Clear => state.clear(),
        }
    }
}

/// So many bytes that tell where they came from.
fn text(n: u32, bytes: usize) -> String {
    let mut text = format!("{n};").repeat(bytes / 2);
    text.truncate(bytes);
    text
}

/// What may be there, as far as answers tell.
#[derive(Clone)]
pub struct Known(pub Vec<State>);

impl Known {
    /// Nothing has been written yet.
    pub fn nothing() -> Known {
        Known(vec![State::new()])
    }

    /// The step has been carried out.
    pub fn carried_out(&mut self, step: &Step) {
        self.0.iter_mut().for_each(|state| step.apply(state));
    }

    /// Nobody knows whether the step has been carried out.
    pub fn asked(&mut self, step: &Step) {
        let before = self.clone();
        self.carried_out(step);
        self.0.extend(before.0);
    }

    /// Whether the key that a step is about may be missing.
    pub fn may_miss(&self, step: &Step) -> bool {
        match step {
            Delete(key) | Touch(key) => self.0.iter().any(|state| !state.contains_key(*key)),
            _ => false,
        }
    }

    /// What is there must be possible; after this, nothing else is.
    pub fn expect(&mut self, found: State, label: &str) {
        let possible: Vec<String> = self.0.iter().map(short).collect();
        assert!(
            self.0.contains(&found),
            "{label}: there is {}, but there should be {possible:#?}",
            short(&found)
        );
        self.0 = vec![found];
    }
}

/// Keys and the beginnings of their values.
fn short(state: &State) -> String {
    let entry = |(key, (value, expires)): (&String, &(String, bool))| {
        let expires = if *expires { " with a ttl" } else { "" };
        let beginning: String = value.chars().take(6).collect();
        format!("{key}={beginning}({}){expires}", value.len())
    };
    state.iter().map(entry).collect::<Vec<_>>().join(" ")
}

/// What the first process of a store is asked for, in an empty directory.
pub fn first_steps() -> Vec<Step> {
    vec![
        Put("a", "first".into()),
        Put("b", text(1, 700)),
        Put("gone", "v".into()),
        Delete("gone"),
        Put("a", "second 🌍".into()),
        Touch("b"),
        Bulk(vec![
            ("m1", text(2, 900)),
            ("m2", text(3, 1500)),
            ("m3", "short".into()),
        ]),
        PutLarge("large", 4),
        Put("c", text(5, 512)),
        Delete("m1"),
        Bulk(vec![("m2", "replaced".into()), ("m4", text(6, 2000))]),
        PutLarge("large", 7),
        Touch("c"),
        Clear,
        Put("a", "after clear".into()),
        Bulk(vec![("m1", text(8, 600)), ("m2", text(9, 600))]),
        PutLarge("larger", 10),
        Put("d", text(11, 100)),
        Put("a", text(12, 3000)),
        Delete("m2"),
        Bulk(vec![("m1", "last".into()), ("e", text(13, 1000))]),
    ]
}

/// What the second one is asked for.
pub fn second_steps() -> Vec<Step> {
    vec![
        Put("again", text(14, 300)),
        Bulk(vec![("m1", text(15, 800)), ("f", text(16, 800))]),
        Delete("d"),
        Put("f", text(17, 1200)),
    ]
}

/// What the third one is asked for.
pub fn third_steps() -> Vec<Step> {
    vec![Put("g", text(18, 700)), PutLarge("large", 19), Touch("g")]
}
