//! Watching: every change gives its event, in order, to those who want it, and to nobody else.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::directory::Directory;
use crate::json_expiry::TICK;
use crate::process::{PATIENCE, Server, wait_for};
use crate::revisions::revision;
use crate::watcher::{Event, Watcher};

/// The store's revision.
pub fn state(client: &mut Client) -> u64 {
    let status = client.send("GET", "/api/v1/status", "").json();
    status["data"]["storage"]["revision"].as_u64().unwrap()
}

/// How many watch.
pub fn watchers(client: &mut Client) -> u64 {
    let status = client.send("GET", "/api/v1/status", "").json();
    status["data"]["watchers"].as_u64().unwrap()
}

/// Sends a request that has to succeed, and returns the store's revision after it.
#[track_caller]
fn change(client: &mut Client, method: &str, path: &str, body: &str) -> u64 {
    let answer = client.send(method, path, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    state(client)
}

/// Servers in memory and on disk, and the directory of the latter.
fn servers() -> ([Server; 2], Directory) {
    let directory = Directory::new();
    let durable = Server::start(&["--working-dir", directory.path_str()]);
    ([Server::start(&[]), durable], directory)
}

#[test]
fn each_change_has_its_event_in_order() {
    let (servers, _directory) = servers();
    for server in servers {
        let mut client = server.connect();
        let client = &mut client;
        let begun = state(client);
        let mut watcher = Watcher::open(&server, "");
        assert_eq!(watcher.ready(), begun);

        let put = client.send("PUT", "/kv/a:1", "Nairobi 🌍 \"\n\r\u{1}");
        let data = json!({"key": "a:1", "value": "Nairobi 🌍 \"\n\r\u{1}"});
        watcher.next().expect("put", data, revision(&put), true);

        let body = r#"{"value": {"z": [1.0, null, "x"], "a": 123456789012345678901234567890}, "ttl": 3600}"#;
        let put = client.send("PUT", "/api/v1/kv/a:2", body);
        let event = watcher.next();
        // The value is as it was sent, to the letter.
        let value = r#""value":{"z": [1.0, null, "x"], "a": 123456789012345678901234567890}"#;
        assert!(event.data.contains(value), "{event:?}");
        assert_eq!(event.json()["ttl"], 3600);
        assert_eq!((&*event.name, event.id), ("put", Some(revision(&put))));

        // A touch writes the entry.
        let now = change(client, "POST", "/api/v1/kv/a:1/touch", r#"{"ttl": 60}"#);
        let data = json!({"key": "a:1", "value": "Nairobi 🌍 \"\n\r\u{1}", "ttl": 60});
        watcher.next().expect("put", data, now, true);
        let now = change(client, "POST", "/api/v1/kv/a:1/touch", r#"{"ttl": null}"#);
        let data = json!({"key": "a:1", "value": "Nairobi 🌍 \"\n\r\u{1}"});
        watcher.next().expect("put", data, now, true);

        // What changes nothing is no event.
        let before = state(client);
        client.send("DELETE", "/kv/missing", "").expect(200, "");
        client.send("DELETE", "/api/v1/kv?prefix=missing", "");
        let checks = r#"{"operations": [{"op": "check", "key": "a:1", "if_revision": 0}]}"#;
        assert_eq!(client.send("POST", "/api/v1/kv/bulk", checks).status, 412);
        let unmet = client.send_with("If-None-Match: *\r\n", "PUT", "/kv/a:1", "v");
        assert_eq!((unmet.status, state(client)), (412, before));

        // One commit, whose last event has the id.
        let bulk = r#"{"operations": [
            {"key": "b:1", "value": 1}, {"op": "delete", "key": "a:2"}, {"op": "delete", "key": "missing"},
            {"op": "touch", "key": "a:1", "ttl": 9}, {"op": "check", "key": "b:2", "if_revision": 0},
            {"key": "b:1", "value": 2, "ttl": 7}, {"key": "c", "value": "3"}]}"#;
        let now = change(client, "POST", "/api/v1/kv/bulk", bulk);
        let mut commit = vec![watcher.next()];
        while commit.last().unwrap().id.is_none() {
            commit.push(watcher.next());
        }
        assert!(commit.iter().all(|event| event.revision() == now));
        assert_eq!(commit.last().unwrap().id, Some(now));
        let of = |key: &str| commit.iter().rfind(|event| event.json()["key"] == key);
        let [a1, a2, b1, c] = ["a:1", "a:2", "b:1", "c"].map(|key| of(key).unwrap());
        assert_eq!((&*a1.name, &a1.json()["ttl"]), ("put", &json!(9)));
        assert_eq!(&*a2.name, "delete");
        assert_eq!(
            (&b1.json()["value"], &b1.json()["ttl"]),
            (&json!(2), &json!(7))
        );
        assert_eq!(c.json()["value"], "3");
        assert!(of("missing").is_none() && of("b:2").is_none());

        for path in ["/kv/a:1", "/api/v1/kv/c"] {
            let now = change(client, "DELETE", path, "");
            let key = path.rsplit('/').next().unwrap();
            watcher
                .next()
                .expect("delete", json!({"key": key}), now, true);
        }
        let keys = r#"{"keys": ["b:1", "missing"]}"#;
        let now = change(client, "POST", "/api/v1/kv/bulk/delete", keys);
        watcher
            .next()
            .expect("delete", json!({"key": "b:1"}), now, true);

        // One event, whatever it removes.
        for (path, prefix) in [("/api/v1/kv?prefix=p:", "p:"), ("/clear", "")] {
            let keys: Vec<Value> = (0..5)
                .map(|n| json!({"key": format!("p:{n}"), "value": n}))
                .collect();
            let bulk = json!({"operations": keys}).to_string();
            change(client, "POST", "/api/v1/kv/bulk", &bulk);
            for n in 0..5 {
                let event = watcher.next();
                assert_eq!(
                    (event.json()["value"].as_u64(), event.id.is_some()),
                    (Some(n), n == 4)
                );
            }
            let now = change(client, "DELETE", path, "");
            watcher
                .next()
                .expect("clear", json!({"prefix": prefix}), now, true);
        }
        let before = state(client);
        assert_eq!(change(client, "DELETE", "/clear", ""), before);
        let put = client.send("PUT", "/kv/last", "v");
        let data = json!({"key": "last", "value": "v"});
        watcher.next().expect("put", data, revision(&put), true);
    }
}

#[test]
fn what_expires_gives_an_event_with_nobody_else_about() {
    let (servers, _directory) = servers();
    for server in servers {
        let mut client = server.connect();
        let mut watcher = Watcher::open(&server, "");
        watcher.ready();
        let asked = Instant::now();
        let put = client.send("PUT", "/api/v1/kv/a", r#"{"value": 1, "ttl": 1}"#);
        drop(client);
        let data = json!({"key": "a", "value": 1, "ttl": 1});
        watcher.next().expect("put", data, revision(&put), true);
        let event = watcher.next();
        assert!(event.revision() > revision(&put));
        event.expect("expire", json!({"key": "a"}), event.revision(), true);
        // The promise is a second; the rest is for the machine.
        let took = asked.elapsed();
        assert!(
            (Duration::from_secs(1) - TICK..Duration::from_secs(12)).contains(&took),
            "{took:?}"
        );
        assert_eq!(state(&mut server.connect()), event.revision());
        server.get("/kv/a").expect(404, "key not found\n");
    }
}

#[test]
fn a_quiet_stream_says_that_it_is_still_there_and_how_far_it_is() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut watcher = Watcher::open(&server, "prefix=quiet:");
    let begun = watcher.ready();
    // Others change all the time what this one does not want to know.
    let writes = thread::scope(|scope| {
        let progress = scope.spawn(|| watcher.next());
        let mut writes = Vec::new();
        while !progress.is_finished() {
            writes.push(revision(&client.send("PUT", "/kv/other", "v")));
            thread::sleep(Duration::from_millis(20));
        }
        let event = progress.join().unwrap();
        event.expect("progress", json!({}), event.revision(), true);
        assert!(
            event.revision() > begun && writes.contains(&event.revision()),
            "{event:?}"
        );
        writes
    });
    // It goes on from there, and without a gap.
    let query = format!("prefix=other&since={}", watcher.last_id.unwrap());
    let mut next = Watcher::open(&server, &query);
    let last = *writes.last().unwrap();
    while next.last_id < Some(last) {
        next.next();
    }
}

/// The names of the events that come for a watcher before the marker, with their keys or prefixes.
fn until_marker(watcher: &mut Watcher) -> Vec<(String, String)> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let event = watcher.next();
        let data = event.json();
        if data["value"] == "marker" {
            break;
        }
        events.push(event);
    }
    let told = |event: &Event| {
        let data = event.json();
        let about = if event.name == "clear" {
            &data["prefix"]
        } else {
            &data["key"]
        };
        // Here, each event is all that its commit has for this watcher.
        assert_eq!(event.id, Some(event.revision()), "{event:?}");
        (event.name.clone(), about.as_str().unwrap().to_owned())
    };
    events.iter().map(told).collect()
}

#[test]
fn filters_let_through_what_is_asked_for() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let queries = [
        "",
        "prefix=a:b",
        "key=a:b",
        "prefix=a:b&values=false",
        "key=a:b:1&values=0",
    ];
    let mut watchers = queries.map(|query| Watcher::open(&server, query));
    for watcher in &mut watchers {
        watcher.ready();
    }
    let put = |key: &str| json!({"key": key, "value": "v"});
    let mut bulk = |operations: Value| {
        let body = json!({"operations": operations}).to_string();
        assert_eq!(client.send("POST", "/api/v1/kv/bulk", body).status, 200);
    };
    // The id stands on the last event that each is sent.
    bulk(json!([put("a:b:0"), put("x")]));
    bulk(json!([{"op": "delete", "key": "x"}, {"op": "touch", "key": "a:b:0", "ttl": 60}]));
    let mut client = server.connect();
    for key in ["a", "a:b", "a:b:1", "a:c", "A:b"] {
        client
            .send("PUT", &format!("/kv/{key}"), "v")
            .expect(200, "");
    }
    for prefix in ["a:b:", "a:b:1", "a:c", "a:b", "a", "zz", "A"] {
        client.send("DELETE", &format!("/api/v1/kv?prefix={prefix}"), "");
    }
    client.send("PUT", "/kv/a:b:1", "v").expect(200, "");
    client.send("DELETE", "/clear", "").expect(200, "");
    for key in ["a:b", "a:b:1"] {
        client
            .send("PUT", &format!("/kv/{key}"), "marker")
            .expect(200, "");
    }

    let [all, prefix, key, bare, bare_key] = &mut watchers;
    let told = |told: &[(&str, &str)]| -> Vec<(String, String)> {
        let own = |(name, about): &(&str, &str)| ((*name).to_owned(), (*about).to_owned());
        told.iter().map(own).collect()
    };
    let seen = until_marker(prefix);
    // What removes nothing is no change.
    let under = [
        ("put", "a:b:0"),
        ("put", "a:b:0"),
        ("put", "a:b"),
        ("put", "a:b:1"),
        ("clear", "a:b:"),
        ("clear", "a:b"),
        ("clear", "a"),
        ("put", "a:b:1"),
        ("clear", ""),
    ];
    assert_eq!(seen, told(&under));
    let one = [
        ("put", "a:b"),
        ("clear", "a:b"),
        ("clear", "a"),
        ("clear", ""),
    ];
    assert_eq!(until_marker(key), told(&one));
    let mut names = Vec::new();
    loop {
        let event = all.next();
        if event.json()["value"] == "marker" {
            break;
        }
        names.push((event.name.clone(), event.id.is_some()));
    }
    let clears = names.iter().filter(|(name, _)| name == "clear").count();
    assert_eq!((names.len(), clears), (16, 6), "{names:?}");
    let split: Vec<bool> = names.iter().take(4).map(|(_, id)| *id).collect();
    assert_eq!(split, [false, true, false, true]);

    // Without values, and all else as before.
    for event in under {
        let next = bare.next();
        let data = next.json();
        let about = if next.name == "clear" {
            &data["prefix"]
        } else {
            &data["key"]
        };
        assert_eq!((&*next.name, about.as_str().unwrap()), event);
        assert!(data.get("value").is_none(), "{next:?}");
    }
    assert_eq!(until_keys(bare_key, 2), ["a:b:1"; 2]);
}

/// The keys of so many puts without values; clears are passed over.
fn until_keys(watcher: &mut Watcher, count: usize) -> Vec<String> {
    let mut keys = Vec::new();
    while keys.len() < count {
        let event = watcher.next();
        if event.name == "put" {
            assert!(event.json().get("value").is_none());
            keys.push(event.json()["key"].as_str().unwrap().to_owned());
        }
    }
    keys
}

#[test]
fn line_breaks_in_a_value_reach_the_watcher_as_line_breaks() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut watcher = Watcher::open(&server, "");
    watcher.ready();
    let long = " \r\n".repeat(60_000);
    for (sent, read) in [
        ("[1,\n2]", "[1,\n2]"),
        ("[1,\r2]", "[1,\n2]"),
        ("[1,\r\n2]", "[1,\n2]"),
        ("[\n\n1,\r\r2\r\n\r\n]", "[\n\n1,\n\n2\n\n]"),
        (
            "{\"a\":\n\r\n: 1}".replace(": ", " ").as_str(),
            "{\"a\":\n\n 1}",
        ),
        (
            &format!("[{long}1]"),
            &format!("[{}1]", " \n".repeat(60_000)),
        ),
    ] {
        let body = format!("{{\"value\": {sent}}}");
        let put = client.send("PUT", "/api/v1/kv/a", body);
        assert_eq!(put.status, 200, "{put:?}");
        let now = revision(&put);
        let event = watcher.next();
        let expected = format!("{{\"key\":\"a\",\"value\":{read},\"revision\":{now}}}");
        assert!(event.data == expected, "{:.200?}", event.data);
        assert_eq!(event.id, Some(now));
    }
    // Where they are escaped, they are what the text has.
    let put = client.send("PUT", "/kv/a", "\r\n\n\r");
    let data = json!({"key": "a", "value": "\r\n\n\r"});
    watcher.next().expect("put", data, revision(&put), true);
    // Large ones come whole.
    let large = "é\n".repeat(1_000_000);
    client.send("PUT", "/kv/a", &large).expect(200, "");
    assert!(watcher.next().json()["value"] == *large);
}

#[test]
fn watchers_are_counted_until_they_are_gone() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let all: Vec<Watcher> = (0..20).map(|_| Watcher::open(&server, "")).collect();
    assert_eq!(watchers(&mut client), 20);
    drop(all);
    // Nothing has to be sent to notice it.
    let since = Instant::now();
    wait_for("those who are gone to leave", || {
        (watchers(&mut client) == 0).then_some(())
    });
    assert!(since.elapsed() < PATIENCE);
}
