//! A bulk request is one step: checked whole, applied in order, seen whole or not at all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::directory::Directory;
use crate::json::expect_ttl;
use crate::process::Server;

#[test]
fn of_a_repeated_key_the_last_item_counts() {
    let server = Server::start(&[]);
    let put = r#"{"operations":[
        {"key":"a","value":1,"ttl":60},{"key":"b","value":2},{"key":"a","value":3},{"key":"b","value":4,"ttl":60}
    ]}"#;
    let since = Instant::now();
    server
        .post("/api/v1/kv/bulk", put)
        .expect_data(json!({"a": "ok", "b": "ok"}));
    let read = server.get("/api/v1/kv?with_ttl=true");
    let ttl = expect_ttl(&read.json()["data"]["b"]["ttl"], 60, since);
    read.expect_data(json!({"a": {"value": 3}, "b": {"value": 4, "ttl": ttl}}));

    let touch = r#"{"operations":[{"key":"a","ttl":60},{"key":"x","ttl":1},{"key":"a","ttl":7200},{"key":"x","ttl":2}]}"#;
    let since = Instant::now();
    let missing = || json!({"status": "error", "error": "not_found"});
    server
        .post("/api/v1/kv/bulk/touch", touch)
        .expect_data(json!({"a": "ok", "x": missing()}));
    let read = server.get("/api/v1/kv/a/ttl");
    expect_ttl(&read.json()["data"]["ttl"], 7200, since);

    let keys = r#"{"keys":["a","x","a","b","x","a"]}"#;
    server.post("/api/v1/kv/bulk/get", keys).expect_data(json!({
        "a": {"status": "ok", "value": 3},
        "x": missing(),
        "b": {"status": "ok", "value": 4},
    }));
    // It was there, and is not any more.
    server
        .post("/api/v1/kv/bulk/delete", keys)
        .expect_data(json!({"a": "ok", "x": missing(), "b": "ok"}));
    server
        .post("/api/v1/kv/bulk/delete", keys)
        .expect_data(json!({"a": missing(), "x": missing(), "b": missing()}));
}

/// In an answer no name comes twice, which parsers take in different ways.
#[test]
fn a_repeated_key_is_answered_once() {
    let server = Server::start(&[]);
    server
        .post(
            "/api/v1/kv/bulk",
            r#"{"operations":[{"key":"a","value":1},{"key":"a","value":2}]}"#,
        )
        .expect_json(r#"{"status":"ok","data":{"a":"ok"}}"#);
    server
        .post(
            "/api/v1/kv/bulk/touch",
            r#"{"operations":[{"key":"a","ttl":60},{"key":"a","ttl":70}]}"#,
        )
        .expect_json(r#"{"status":"ok","data":{"a":"ok"}}"#);
    server
        .post("/api/v1/kv/bulk/get", r#"{"keys":["a","a"]}"#)
        .expect_json(r#"{"status":"ok","data":{"a":{"status":"ok","value":2}}}"#);
    server
        .post("/api/v1/kv/bulk/delete", r#"{"keys":["a","a"]}"#)
        .expect_json(r#"{"status":"ok","data":{"a":"ok"}}"#);
}

#[test]
fn one_bad_item_anywhere_changes_nothing() {
    let directory = Directory::new();
    for server in [
        Server::start(&["--max-value-bytes", "300"]),
        Server::start(&[
            "--max-value-bytes",
            "300",
            "--working-dir",
            directory.path_str(),
        ]),
    ] {
        server.put("/kv/before", "v").expect(200, "");
        let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
        let long = format!("\"{}\"", "v".repeat(301));
        for (item, status, code) in [
            (r#"{"key":"","value":1}"#, 400, "INVALID_KEY"),
            (r#"{"key":"a b","value":1}"#, 400, "INVALID_KEY"),
            (r#"{"key":"bad"}"#, 400, "INVALID_REQUEST"),
            (r#"{"value":1}"#, 400, "INVALID_REQUEST"),
            (r#"{"key":1,"value":1}"#, 400, "INVALID_REQUEST"),
            (r#"["bad",1]"#, 400, "INVALID_REQUEST"),
            ("null", 400, "INVALID_REQUEST"),
            (
                r#"{"key":"bad","value":1,"ttl":"1"}"#,
                400,
                "INVALID_REQUEST",
            ),
            (
                r#"{"key":"bad","value":1,"ttl":0}"#,
                400,
                "VALIDATION_ERROR",
            ),
            (r#"{"key":"bad","value":"\ud800"}"#, 400, "INVALID_REQUEST"),
            (
                &format!(r#"{{"key":"bad","value":{deep}}}"#),
                400,
                "VALIDATION_ERROR",
            ),
            (
                &format!(r#"{{"key":"bad","value":{long}}}"#),
                413,
                "PAYLOAD_TOO_LARGE",
            ),
        ] {
            for place in [0, 5, 9] {
                let mut items = vec![r#"{"key":"before","value":"after"}"#; 9];
                items.insert(place, item);
                let body = format!(r#"{{"operations":[{}]}}"#, items.join(","));
                let answer = server.post("/api/v1/kv/bulk", body);
                assert_eq!(answer.status, status, "{item}: {}", answer.text());
                assert_eq!(answer.json()["error"]["code"], code, "{item}");
            }
        }
        for (path, body) in [
            ("delete", r#"{"keys":["before","bad key"]}"#),
            ("delete", r#"{"keys":["before",1]}"#),
            (
                "touch",
                r#"{"operations":[{"key":"before","ttl":1},{"key":"before","ttl":0}]}"#,
            ),
            (
                "touch",
                r#"{"operations":[{"key":"before","ttl":1},{"key":"before"}]}"#,
            ),
        ] {
            let answer = server.post(&format!("/api/v1/kv/bulk/{path}"), body);
            assert_eq!(answer.status, 400, "{body}");
        }
        server
            .get("/api/v1/kv?with_ttl=true")
            .expect_json(r#"{"status":"ok","data":{"before":{"value":"v"}}}"#);
    }
}

#[test]
fn a_batch_has_1_to_500_items_or_as_many_as_the_option_says() {
    let server = Server::start(&[]);
    for (server, most) in [
        (&server, 500),
        (&Server::start(&["--max-batch", "3"]), 3),
        (&Server::start(&["--max-batch=2000"]), 2000),
    ] {
        for (path, field) in [
            ("/api/v1/kv/bulk", "operations"),
            ("/api/v1/kv/bulk/touch", "operations"),
            ("/api/v1/kv/bulk/get", "keys"),
            ("/api/v1/kv/bulk/delete", "keys"),
        ] {
            let body = |items: usize| {
                let item = |n| match field {
                    "keys" => json!(format!("k{n}")),
                    _ => json!({"key": format!("k{n}"), "value": n, "ttl": 60}),
                };
                json!({field: (0..items).map(item).collect::<Vec<_>>()}).to_string()
            };
            let answer = server.post(path, body(most));
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.json()["data"].as_object().unwrap().len(), most);
            for items in [most + 1, most + 100] {
                let details = json!({"field": field, "limit": most, "length": items});
                server
                    .post(path, body(items))
                    .expect_error(413, "BATCH_TOO_LARGE", details);
            }
            server.post(path, body(0)).expect_error(
                400,
                "VALIDATION_ERROR",
                json!({"field": field}),
            );
        }
    }
    // Keys count as often as they come.
    let keys = json!({"keys": vec!["a"; 501]}).to_string();
    let details = json!({"field": "keys", "limit": 500, "length": 501});
    server
        .post("/api/v1/kv/bulk/get", keys)
        .expect_error(413, "BATCH_TOO_LARGE", details);
    // Far too many are counted without being kept.
    let keys = format!(r#"{{"keys":["a"{}]}}"#, r#","a""#.repeat(5_000_000));
    let details = json!({"field": "keys", "limit": 500, "length": 5_000_001});
    server
        .post("/api/v1/kv/bulk/get", keys)
        .expect_error(413, "BATCH_TOO_LARGE", details);
    // A field that only the other request has.
    server
        .post("/api/v1/kv/bulk/delete", r#"{"keys":["a"],"with_ttl":5}"#)
        .expect_data(json!({"a": {"status": "error", "error": "not_found"}}));
}

/// Writers put two keys, each time to the same value; readers never see them differ, nor go back.
fn nobody_sees_half_of_a_bulk_put(server: &Server, puts: u64) {
    let done = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    let put = |value: u64| {
        // Other keys in between, so that there is a between.
        let other = |n| json!({"key": format!("other{n}"), "value": value});
        let mut items: Vec<Value> = (0..50).map(other).collect();
        items.insert(0, json!({"key": "first", "value": value}));
        items.push(json!({"key": "last", "value": value}));
        json!({"operations": items}).to_string()
    };
    assert_eq!(server.post("/api/v1/kv/bulk", put(0)).status, 200);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = server.connect();
            for value in 1..=puts {
                assert_eq!(
                    client.send("POST", "/api/v1/kv/bulk", put(value)).status,
                    200
                );
            }
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            let (mut client, mut before) = (server.connect(), 0);
            let keys = r#"{"keys":["last","other25","first"]}"#;
            while !done.load(Ordering::Acquire) {
                let data = client.send("POST", "/api/v1/kv/bulk/get", keys).json()["data"].take();
                let value = |key: &str| data[key]["value"].as_u64().unwrap();
                let last = value("last");
                assert_eq!((value("first"), value("other25")), (last, last));
                assert!(before <= last);
                before = last;
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        // One by one, what is read later is at least as new.
        scope.spawn(|| {
            let mut client = server.connect();
            let mut read = |path| client.send("GET", path, "").text().parse::<u64>().unwrap();
            while !done.load(Ordering::Acquire) {
                let last = read("/kv/last");
                assert!(last <= read("/kv/first"));
                let first = read("/kv/first");
                assert!(first <= read("/kv/last"));
            }
        });
    });
    assert!(reads.into_inner() > 10, "hardly anything was read");
}

#[test]
fn nobody_sees_half_of_a_bulk_put_in_memory() {
    nobody_sees_half_of_a_bulk_put(&Server::start(&["--workers", "4"]), 500);
}

#[test]
fn nobody_sees_half_of_a_bulk_put_on_disk() {
    let directory = Directory::new();
    let options = ["--workers", "4", "--working-dir", directory.path_str()];
    nobody_sees_half_of_a_bulk_put(&Server::start(&options), 300);
}

#[test]
fn of_two_racing_bulk_deletes_one_deletes_each_key() {
    let directory = Directory::new();
    for server in [
        Server::start(&["--workers", "4"]),
        Server::start(&["--workers", "4", "--working-dir", directory.path_str()]),
    ] {
        let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
        let put: Vec<Value> = keys
            .iter()
            .map(|key| json!({"key": key, "value": 1}))
            .collect();
        let put = json!({"operations": put}).to_string();
        let mut backwards = keys.clone();
        backwards.reverse();
        let bodies = [&keys[..], &backwards[..]].map(|keys| json!({"keys": keys}).to_string());
        let mut clients = [server.connect(), server.connect()];
        for _ in 0..100 {
            assert_eq!(server.post("/api/v1/kv/bulk", &put).status, 200);
            for (client, body) in clients.iter_mut().zip(&bodies) {
                let length = body.len();
                client.write(format!(
                    "POST /api/v1/kv/bulk/delete HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
                ));
            }
            let answers = clients.each_mut().map(|client| client.read("POST").json());
            let deleted = answers.each_ref().map(|answer| {
                let answers = keys.iter().map(|key| answer["data"][key] == "ok");
                answers.filter(|deleted| *deleted).count()
            });
            // Each is one step, so one of them found all the keys and the other none.
            assert!([[20, 0], [0, 20]].contains(&deleted), "{deleted:?}");
        }
    }
}

#[test]
fn fifty_megabytes_go_in_and_come_out_in_one_piece() {
    let server = Server::start(&[]);
    let value = |n: usize| format!("{n};").repeat(1_000_000 / format!("{n};").len());
    let items: Vec<String> = (0..50)
        .map(|n| format!(r#"{{"key":"k{n}","value":"{}"}}"#, value(n)))
        .collect();
    // Some twenty of them are as much as a body may have.
    for items in items.chunks(17) {
        let body = format!(r#"{{"operations":[{}]}}"#, items.join(","));
        assert_eq!(server.post("/api/v1/kv/bulk", body).status, 200);
    }
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let keys = json!({"keys": keys}).to_string();
    // A client that goes away in the middle of it harms nobody.
    let mut client = server.connect();
    let length = keys.len();
    client.write(format!(
        "POST /api/v1/kv/bulk/get HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{keys}"
    ));
    drop(client);
    let answer = server.post("/api/v1/kv/bulk/get", keys);
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    let data = answer.json()["data"].take();
    for n in 0..50 {
        let entry = &data[format!("k{n}")];
        assert!(
            entry["status"] == "ok" && entry["value"] == value(n),
            "key {n}"
        );
    }
}
