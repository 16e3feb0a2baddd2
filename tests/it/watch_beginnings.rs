//! How a watch begins, or is refused.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::Response;
use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::revisions::revision;
use crate::tokens::TokenFile;
use crate::watch::{state, watchers};
use crate::watcher::{Mirror, Watcher};

/// The answer to somebody who may not watch.
#[track_caller]
fn refusal(server: &Server, headers: &str, query: &str) -> Response {
    match Watcher::ask(server.address, headers, query).unwrap() {
        Ok(_) => panic!("{query} {headers} is let in"),
        Err(refusal) => refusal,
    }
}

#[test]
fn the_head_says_what_comes_and_the_first_line_when_to_come_back() {
    let server = Server::start(&[]);
    let mut waits = Vec::new();
    for _ in 0..40 {
        let mut watcher = Watcher::open(&server, "");
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
            ("connection", "close"),
        ] {
            assert_eq!(watcher.head.header(name), Some(value), "{name}");
        }
        for name in ["content-length", "transfer-encoding", "etag"] {
            assert_eq!(watcher.head.header(name), None, "{name}");
        }
        watcher.ready();
        waits.push(watcher.retry().expect("when to come back"));
    }
    assert!(
        waits.iter().all(|it| (500..=1500).contains(it)),
        "{waits:?}"
    );
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 10, "they would all come at once: {waits:?}");
}

#[test]
fn it_goes_on_behind_any_revision_that_is_remembered() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let begun = state(&mut client);
    let put = |n: u64| revision(&server.put(&format!("/kv/k{n}"), "v"));
    let revisions: Vec<u64> = [begun].into_iter().chain((0..50).map(put)).collect();
    let last = *revisions.last().unwrap();
    for (n, since) in revisions.iter().enumerate() {
        let query = format!("since={since}");
        let by_header = format!("Last-Event-ID: {since}\r\n");
        // The header wins, since it is what the browser knows, and the query what the page once knew.
        for (headers, query) in [
            ("", &*query),
            (&*by_header, ""),
            (&*by_header, "since=1"),
            (&*by_header, &*format!("since={last}")),
            ("Last-Event-ID: \r\n", &*query),
        ] {
            let mut watcher = Watcher::ask(server.address, headers, query)
                .unwrap()
                .unwrap_or_else(|refused| panic!("{headers}{query}: {refused:?}"));
            for (key, revision) in revisions.iter().enumerate().skip(n + 1) {
                let data = json!({"key": format!("k{}", key - 1), "value": "v"});
                watcher.next().expect("put", data, *revision, true);
            }
            assert_eq!(watcher.ready(), last);
        }
    }
    // And then comes what is new.
    let mut watcher = Watcher::open(&server, &format!("since={}", revisions[49]));
    assert_eq!(watcher.next().revision(), last);
    watcher.ready();
    let now = revision(&server.put("/kv/new", "v"));
    let data = json!({"key": "new", "value": "v"});
    watcher.next().expect("put", data, now, true);
}

#[test]
fn what_the_history_does_not_cover_is_gone_and_what_never_was_is_an_error() {
    let server = Server::start(&["--history", "20KiB"]);
    let mut client = server.connect();
    let begun = state(&mut client);
    let value = "v".repeat(100);
    for n in 0..1000 {
        let path = format!("/kv/k{}", n % 10);
        client.send("PUT", &path, &value).expect(200, "");
    }
    let status = client.send("GET", "/api/v1/status", "").json();
    let storage = &status["data"]["storage"];
    let (oldest, now) = (&storage["oldest_revision"], &storage["revision"]);
    let details = json!({"oldest": oldest, "revision": now});
    let (oldest, now) = (oldest.as_u64().unwrap(), now.as_u64().unwrap());
    assert!(begun < oldest && oldest < now, "{begun} {oldest} {now}");
    for since in [0, 1, begun - 1, begun, oldest - 1] {
        let refused = refusal(&server, "", &format!("since={since}"));
        refused.expect_error(410, "HISTORY_GONE", details.clone());
        let refused = refusal(&server, &format!("Last-Event-ID: {since}\r\n"), "");
        refused.expect_error(410, "HISTORY_GONE", details.clone());
    }
    let mut watcher = Watcher::open(&server, &format!("since={oldest}"));
    assert_eq!(watcher.next().revision(), oldest + 1);

    // Neither has been given by an earlier life of this store.
    for since in [now + 1, now + 1_000_000_000_000, u64::MAX] {
        let refused = refusal(&server, "", &format!("since={since}"));
        assert_eq!(refused.status, 400, "{refused:?}");
        let error = &refused.json()["error"];
        assert_eq!(error["code"], "VALIDATION_ERROR");
    }
    // With `initial=true` the stream begins anew instead.
    for since in [begun, oldest - 1, now + 1, u64::MAX] {
        let query = format!("initial=true&since={since}&prefix=k");
        let mut watcher = Watcher::open(&server, &query);
        let mut mirror = Mirror::default();
        let reset = watcher.next();
        reset.expect("reset", json!({}), now, false);
        mirror.apply(reset);
        while !mirror.apply(watcher.next()) {}
        assert_eq!((mirror.revision, mirror.entries.len()), (now, 10));
    }
    // Where it is remembered, there is no need to.
    let mut watcher = Watcher::open(&server, &format!("initial=true&since={}", now - 1));
    assert_eq!(watcher.next().id, Some(now));
    assert_eq!(watcher.ready(), now);
}

#[test]
fn a_revision_of_an_earlier_life_that_is_lost_is_gone_and_no_error() {
    let directory = Directory::new();
    let options = [
        "--working-dir",
        directory.path_str(),
        "--durability",
        "none",
    ];
    let mut server = Server::start(&options);
    let kept = revision(&server.put("/kv/kept", "v"));
    server.signal("-TERM");
    server.wait();
    let mut server = Server::start(&options);
    let mut watcher = Watcher::open(&server, &format!("since={kept}"));
    watcher.ready();
    let mut lost = Vec::new();
    for _ in 0..100 {
        lost.push(revision(&server.put("/kv/lost", "v")));
    }
    while watcher.last_id < lost.last().copied() {
        watcher.next();
    }
    server.kill();
    watcher.expect_end();
    let server = Server::start(&options);
    let now = state(&mut server.connect());
    for since in lost {
        match Watcher::ask(server.address, "", &format!("since={since}")).unwrap() {
            Ok(mut watcher) => assert!(watcher.next().revision() <= now),
            Err(refused) => assert_eq!(refused.status, 410, "{refused:?}"),
        }
        let mut watcher = Watcher::open(&server, &format!("since={since}&initial=1"));
        let mut mirror = Mirror::default();
        while !mirror.apply(watcher.next()) {}
        assert!(mirror.revision <= now);
    }

    // A store in memory has lost everything, and so has one that was copied back, but both know it.
    let server = Server::start(&[]);
    refusal(&server, "", &format!("since={kept}"));
    assert_eq!(refusal(&server, "", &format!("since={kept}")).status, 410);
}

#[test]
fn what_is_there_comes_first_where_it_is_asked_for() {
    let directory = Directory::new();
    for options in [&[][..], &["--working-dir", directory.path_str()]] {
        let server = Server::start(options);
        let mut client = server.connect();
        let mut watcher = Watcher::open(&server, "initial=true");
        assert_eq!(watcher.ready(), state(&mut client));
        let mut expected = BTreeMap::new();
        for n in 0..3000 {
            let (key, value) = (format!("k:{n:04}"), format!("value {n}"));
            let put = client.send("PUT", &format!("/kv/{key}"), &value);
            expected.insert(key, (json!(value), revision(&put)));
        }
        let long = client.send("PUT", "/kv/k:long", "v".repeat(1_000_000));
        let ttl = client.send("PUT", "/api/v1/kv/k:ttl", r#"{"value": [1,2], "ttl": 99}"#);
        expected.insert(
            "k:long".into(),
            (json!("v".repeat(1_000_000)), revision(&long)),
        );
        expected.insert("k:ttl".into(), (json!([1, 2]), revision(&ttl)));
        client.send("PUT", "/kv/other", "v").expect(200, "");
        let now = state(&mut client);

        let mut watcher = Watcher::open(&server, "initial=true&prefix=k:");
        let mut found = BTreeMap::new();
        let ready = loop {
            let event = watcher.next();
            if event.name == "ready" {
                break event;
            }
            let data = event.json();
            assert_eq!((&*event.name, event.id), ("put", None));
            let key = data["key"].as_str().unwrap().to_owned();
            assert_eq!(data.get("ttl").is_some(), key == "k:ttl");
            found.insert(key, (data["value"].clone(), event.revision()));
        };
        ready.expect("ready", json!({}), now, true);
        assert!(found == expected, "{} of {}", found.len(), expected.len());

        let mut one = Watcher::open(&server, "initial=true&key=k:0007&values=false");
        let data = json!({"key": "k:0007"});
        one.next().expect("put", data, expected["k:0007"].1, false);
        assert_eq!(one.ready(), now);
        let put = client.send("PUT", "/kv/k:0007", "v");
        let data = json!({"key": "k:0007", "value": "v"});
        watcher.next().expect("put", data, revision(&put), true);
        let mut none = Watcher::open(&server, "initial=true&prefix=nothing");
        none.ready();
    }
}

#[test]
fn bad_requests_are_refused_and_hold_no_place() {
    let server = Server::start(&["--max-watchers", "1"]);
    for (query, code) in [
        ("since=abc", "VALIDATION_ERROR"),
        ("since=-1", "VALIDATION_ERROR"),
        ("since=1.5", "VALIDATION_ERROR"),
        ("since=", "VALIDATION_ERROR"),
        ("values=maybe", "VALIDATION_ERROR"),
        ("initial=2", "VALIDATION_ERROR"),
        ("key=a&prefix=a", "VALIDATION_ERROR"),
        ("key=", "INVALID_KEY"),
        ("key=%20", "INVALID_KEY"),
    ] {
        let refused = refusal(&server, "", query);
        assert_eq!(refused.status, 400, "{query}");
        assert_eq!(refused.json()["error"]["code"], code, "{query}");
    }
    for id in ["abc", "\"5\"", "-1", "5, 6"] {
        let refused = refusal(&server, &format!("Last-Event-ID: {id}\r\n"), "");
        assert_eq!(refused.json()["error"]["code"], "VALIDATION_ERROR", "{id}");
    }
    let mut client = server.connect();
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let refused = client.send(method, "/api/v1/watch", "");
        refused.expect_error(405, "METHOD_NOT_ALLOWED", json!({"allow": "GET, HEAD"}));
        assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    }
    // It says what would come, and does not begin.
    let mut head = server.connect();
    let answer = head.send("HEAD", "/api/v1/watch", "");
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(server.send("HEAD", "/api/v1/watch?since=1", "").status, 410);
    assert_eq!(watchers(&mut client), 0);

    let mut first = Watcher::open(&server, "");
    let full = refusal(&server, "", "");
    assert_eq!(
        (full.status, &full.json()["error"]["code"]),
        (503, &json!("CLUSTER_UNAVAILABLE"))
    );
    assert!(full.header("retry-after").is_some());
    first.ready();
    server.put("/kv/a", "v").expect(200, "");
    assert_eq!(first.next().name, "put");
    // There is room again when one goes.
    drop(first);
    wait_for("a place", || {
        Watcher::ask(server.address, "", "").unwrap().ok()
    });
    let closed = Server::start(&["--max-watchers=0"]);
    assert_eq!(refusal(&closed, "", "").status, 503);
}

#[test]
fn an_old_client_watches_too() {
    let server = Server::start(&[]);
    for request in [
        "GET /api/v1/watch HTTP/1.0\r\n\r\n",
        "GET /api/v1/watch HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET http://localhost/api/v1/watch HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        // Behind another request, and before one that is never answered.
        "GET /api/v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\nGET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.write(request);
        let mut watcher = Watcher::begin(client).unwrap().unwrap();
        watcher.ready();
        let put = server.put("/kv/a", "v");
        let data = json!({"key": "a", "value": "v"});
        watcher.next().expect("put", data, revision(&put), true);
    }
}

#[test]
fn a_client_that_has_nothing_more_to_say_listens_on() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.write("GET /api/v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.finish_writing();
    let mut watcher = Watcher::begin(client).unwrap().unwrap();
    watcher.ready();
    for _ in 0..3 {
        server.put("/kv/a", "v").expect(200, "");
        assert_eq!(watcher.next().name, "put");
    }
}

#[test]
fn tokens_are_asked_for_as_for_reads() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let (token, reader) = (tokens.create(&[]), tokens.create(&["--read-only"]));
    let server = Server::start(&["--auth", tokens.path(), "--rate-limit", "1000/s"]);
    for headers in ["", "X-API-Key: wrong\r\n", "Authorization: Bearer x\r\n"] {
        let refused = refusal(&server, headers, "");
        refused.expect_error(401, "UNAUTHORIZED", Value::Null);
    }
    for token in [token, reader] {
        for header in ["X-API-Key: ", "Authorization: Bearer "] {
            let header = format!("{header}{token}\r\n");
            let watcher = Watcher::ask(server.address, &header, "").unwrap();
            let mut watcher = watcher.unwrap();
            assert_eq!(watcher.head.header("x-ratelimit-limit"), Some("1000"));
            watcher.ready();
        }
    }
}
