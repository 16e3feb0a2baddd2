//! The listing: in byte order, in pages, streamed, and whole while others write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::process::Server;

/// Puts these keys, each with its name as its value.
fn put(server: &Server, keys: &[String]) {
    let mut client = server.connect();
    for keys in keys.chunks(500) {
        let item = |key| json!({"key": key, "value": key});
        let items: Vec<Value> = keys.iter().map(item).collect();
        let body = json!({"operations": items}).to_string();
        assert_eq!(client.send("POST", "/api/v1/kv/bulk", body).status, 200);
    }
}

/// The text of a listing of these keys, each with its name as its value. `…` as the last key says that there are more.
fn listing(keys: &[impl AsRef<str>]) -> String {
    let entry = |key: &str| format!(r#""{key}":{{"value":"{key}"}}"#);
    let (keys, next) = match keys {
        [keys @ .., more] if more.as_ref() == "…" => {
            let last = keys.last().unwrap().as_ref();
            (keys, format!(r#","next":"{last}""#))
        }
        keys => (keys, String::new()),
    };
    let entries: Vec<String> = keys.iter().map(|key| entry(key.as_ref())).collect();
    let entries = entries.join(",");
    format!(r#"{{"status":"ok","data":{{{entries}}}{next}}}"#)
}

#[test]
fn an_empty_listing_is_an_empty_object() {
    let server = Server::start(&[]);
    for query in [
        "",
        "?",
        "?with_ttl=true&limit=1&prefix=a&after=b",
        "?limit=500",
    ] {
        server
            .get(&format!("/api/v1/kv{query}"))
            .expect_json(r#"{"status":"ok","data":{}}"#);
    }
}

#[test]
fn keys_come_in_byte_order_from_after_with_prefix_up_to_limit() {
    let server = Server::start(&[]);
    let keys = [
        "user:10", "b", "user:1", ".", "a", "user:2", "user", "users", "B", "-", "_", "0", "user:9",
    ];
    put(&server, &keys.map(str::to_owned));
    let mut client = server.connect();
    for (query, expected) in [
        ("", "- . 0 B _ a b user user:1 user:10 user:2 user:9 users"),
        ("?limit=1", "- …"),
        ("?limit=3", "- . 0 …"),
        (
            "?limit=13",
            "- . 0 B _ a b user user:1 user:10 user:2 user:9 users",
        ),
        ("?limit=007", "- . 0 B _ a b …"),
        (
            "?limit=99999999999999999999999999",
            "- . 0 B _ a b user user:1 user:10 user:2 user:9 users",
        ),
        (
            "?prefix=",
            "- . 0 B _ a b user user:1 user:10 user:2 user:9 users",
        ),
        ("?prefix=user", "user user:1 user:10 user:2 user:9 users"),
        ("?prefix=user:", "user:1 user:10 user:2 user:9"),
        ("?prefix=user%3A&limit=2", "user:1 user:10 …"),
        ("?prefix=user:&limit=4", "user:1 user:10 user:2 user:9"),
        ("?prefix=user:&after=user:10", "user:2 user:9"),
        ("?prefix=user:&after=user:10&limit=1", "user:2 …"),
        ("?prefix=user:&after=user:2&limit=1", "user:9"),
        ("?prefix=user:9", "user:9"),
        ("?prefix=user:99", ""),
        ("?prefix=User", ""),
        ("?prefix=user%20", ""),
        ("?prefix=%C3%A4", ""),
        ("?after=user:2", "user:9 users"),
        // It need not be there, nor be a key.
        ("?after=user:15", "user:2 user:9 users"),
        ("?after=c", "user user:1 user:10 user:2 user:9 users"),
        ("?after=user%20x", "user:1 user:10 user:2 user:9 users"),
        (
            "?after=",
            "- . 0 B _ a b user user:1 user:10 user:2 user:9 users",
        ),
        ("?after=users", ""),
        ("?after=%F0%9F%8C%8D", ""),
        ("?prefix=user:&after=a", "user:1 user:10 user:2 user:9"),
        ("?prefix=user:&after=users", ""),
        // What nobody knows is ignored.
        ("?x=1&LIMIT=0&limit=1&&=&%ff=%ff&with_TTL=7", "- …"),
        ("?&limit=1&", "- …"),
    ] {
        let expected: Vec<&str> = expected.split_whitespace().collect();
        client
            .send("GET", &format!("/api/v1/kv{query}"), "")
            .expect_json(&listing(&expected));
    }
}

#[test]
fn a_bad_query_parameter_is_named() {
    let server = Server::start(&[]);
    server.put("/kv/a", "v").expect(200, "");
    let long = "9".repeat(40) + "x";
    for (query, parameter, value) in [
        ("limit=0", "limit", "0"),
        ("limit=00", "limit", "00"),
        ("limit=-1", "limit", "-1"),
        ("limit=%2B1", "limit", "+1"),
        ("limit=1.0", "limit", "1.0"),
        ("limit=1e3", "limit", "1e3"),
        ("limit=ten", "limit", "ten"),
        ("limit=", "limit", ""),
        ("limit", "limit", ""),
        ("limit=+1", "limit", " 1"),
        ("limit=%D9%A1", "limit", "١"),
        (&*format!("limit={long}"), "limit", &*long),
        ("limit=1&limit=1", "limit", "1"),
        ("prefix=a&prefix=b", "prefix", "b"),
        ("after=&after=", "after", ""),
        ("with_ttl=true&x=1&with_ttl=true", "with_ttl", "true"),
        ("with_ttl=2", "with_ttl", "2"),
        ("with_ttl=TRUE", "with_ttl", "TRUE"),
        ("with_ttl=yes", "with_ttl", "yes"),
        ("with_ttl=", "with_ttl", ""),
        ("with_ttl", "with_ttl", ""),
        ("with%5Fttl=%00", "with_ttl", "\0"),
        ("with_revision=no", "with_revision", "no"),
        ("keys_only", "keys_only", ""),
        ("count_only=01", "count_only", "01"),
        ("count_only=1&count_only=1", "count_only", "1"),
        ("delimiter=", "delimiter", ""),
        ("delimiter=:&delimiter=:", "delimiter", ":"),
    ] {
        let details = || json!({"parameter": parameter, "value": value});
        let message = server.get(&format!("/api/v1/kv?{query}")).expect_error(
            400,
            "VALIDATION_ERROR",
            details(),
        );
        assert!(message.contains(parameter), "{message}");
        if parameter.starts_with("with_") {
            server.get(&format!("/api/v1/kv/a?{query}")).expect_error(
                400,
                "VALIDATION_ERROR",
                details(),
            );
        }
    }
}

#[test]
fn other_endpoints_take_no_notice_of_parameters_that_they_do_not_have() {
    let server = Server::start(&[]);
    server.put("/kv/a", "v").expect(200, "");
    let query = "limit=0&limit=x&prefix=b&prefix=c&after=z&after=a";
    server
        .get(&format!("/api/v1/kv/a?{query}"))
        .expect_data(json!({"value": "v"}));
    let query = format!("{query}&with_ttl=maybe");
    server
        .get(&format!("/api/v1/kv/a/ttl?{query}"))
        .expect_data(json!({"ttl": null}));
    server
        .put(&format!("/api/v1/kv/a?{query}"), r#"{"value":1}"#)
        .expect_json(r#"{"status":"ok"}"#);
    server
        .post(&format!("/api/v1/kv/bulk/get?{query}"), r#"{"keys":["a"]}"#)
        .expect_data(json!({"a": {"status": "ok", "value": 1}}));
    server
        .delete(&format!("/api/v1/kv/a?{query}"))
        .expect_json(r#"{"status":"ok"}"#);
    assert_eq!(server.get(&format!("/api/v1/health?{query}")).status, 200);
}

#[test]
fn pages_put_together_are_the_whole() {
    let server = Server::start(&[]);
    let mut keys: Vec<String> = (0..600).map(|n| format!("k{n}")).collect();
    put(&server, &keys);
    put(&server, &["before".to_owned(), "l".to_owned()]);
    keys.sort();
    let mut client = server.connect();
    for limit in [1, 7, 100, 600, 601] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/kv?prefix=k&limit={limit}{after}");
            let answer = client.send("GET", &path, "").json();
            let page = answer["data"].as_object().unwrap().keys().cloned();
            let page: Vec<String> = page.collect();
            assert!((1..=limit).contains(&page.len()));
            let last = page.last().cloned();
            found.extend(page);
            let Some(next) = answer.get("next") else {
                break;
            };
            assert_eq!(next.as_str(), last.as_deref());
            after = format!("&after={}", next.as_str().unwrap());
        }
        assert!(found == keys, "{limit} at a time");
    }
}

#[test]
fn a_long_listing_is_streamed_as_the_version_of_http_allows() {
    let server = Server::start(&[]);
    let mut keys: Vec<String> = (0..5000).map(|n| format!("key{n}")).collect();
    put(&server, &keys);
    keys.sort();
    let expected = listing(&keys);
    let mut client = server.connect();
    for _ in 0..2 {
        let answer = client.send("GET", "/api/v1/kv", "");
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        assert_eq!(answer.header("content-length"), None);
        answer.expect_json(&expected);
    }
    // The connection goes on, also behind a listing without its body.
    let head = client.send("HEAD", "/api/v1/kv", "");
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    client.send("GET", "/kv/key0", "").expect(200, "key0");
    // Whoever asks for HTTP/1.0 knows no chunks, and the end is that of the connection, whatever it asked for.
    for header in ["", "Connection: keep-alive\r\n"] {
        let mut client = server.connect();
        client.write(format!("GET /api/v1/kv HTTP/1.0\r\n{header}\r\n"));
        let answer = client.read("GET");
        assert_eq!(answer.header("transfer-encoding"), None);
        assert_eq!(answer.header("content-length"), None);
        assert_eq!(answer.header("connection"), Some("close"));
        answer.expect_json(&expected);
        client.expect_end();
    }
    let mut client = server.connect();
    for _ in 0..2 {
        client.write("HEAD /api/v1/kv HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.read("HEAD");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
    // A short one has a length, so that the connection can stay.
    let mut client = server.connect();
    for _ in 0..2 {
        client.write("GET /api/v1/kv?limit=1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.read("GET");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
        answer.expect_json(&listing(&["key0", "…"]));
    }
}

#[test]
fn a_listing_holds_what_is_there_from_its_beginning_to_its_end() {
    let server = Server::start(&["--workers", "2"]);
    let keys: Vec<String> = (0..2000).map(|n| format!("k{n:04}")).collect();
    put(&server, &keys);
    let listed = AtomicBool::new(false);
    thread::scope(|scope| {
        // Between those that stay, some come and go.
        scope.spawn(|| {
            let mut client = server.connect();
            for n in (0..2000).cycle().step_by(3) {
                if listed.load(Ordering::Acquire) {
                    break;
                }
                let path = format!("/kv/k{n:04}:x");
                client.send("PUT", &path, "x").expect(200, "");
                client.send("DELETE", &path, "").expect(200, "");
            }
        });
        let mut client = server.connect();
        for _ in 0..20 {
            let data = client.send("GET", "/api/v1/kv", "").json()["data"].take();
            let found = data.as_object().unwrap().keys();
            assert!(found.filter(|key| !key.ends_with(":x")).eq(&keys));
        }
        listed.store(true, Ordering::Release);
    });
}

#[test]
fn a_client_that_does_not_read_its_listing_harms_nobody() {
    let server = Server::start(&["--workers", "2"]);
    let value = json!({"value": "v".repeat(1_000_000)}).to_string();
    for n in 0..20 {
        let path = format!("/api/v1/kv/k{n}");
        assert_eq!(server.put(&path, &value).status, 200);
    }
    let mut hogs: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for hog in &mut hogs {
        hog.write("GET /api/v1/kv HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    let mut client = server.connect();
    for n in 0..20 {
        let path = format!("/api/v1/kv/k{n}");
        client
            .send("DELETE", &path, "")
            .expect_json(r#"{"status":"ok"}"#);
    }
    client.send("DELETE", "/clear", "").expect(200, "");
    client.send("GET", "/api/v1/kv", "").expect_data(json!({}));
    // What they get in the end has an end, however much of it is gone.
    for hog in &mut hogs {
        assert_eq!(hog.read("GET").json()["status"], "ok");
    }
}
