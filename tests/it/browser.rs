//! Pages of other origins, in a real browser: those that are allowed can use everything, the others nothing.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::client::Response;
use crate::directory::Directory;
use crate::page::Page;
use crate::process::{PATIENCE, Server};
use crate::tokens::TokenFile;

/// Headers of a request with a body in JSON and a token.
fn with_json(token: &Value) -> Value {
    let mut headers = token.clone();
    headers["Content-Type"] = "application/json".into();
    headers
}

/// The ways of giving a token. For each of them the browser asks first whether it may.
fn ways(token: &str) -> [Value; 2] {
    [
        json!({"Authorization": format!("Bearer {token}")}),
        json!({"X-API-Key": token}),
    ]
}

/// Uses both APIs from a page, with a limit of a thousand requests a second and of 3 items a bulk request.
fn use_everything(page: &Page, server: &Server, token: &Value) {
    let with_json = with_json(token);
    let too_long = "v".repeat(2_000_000);
    let send = |headers: &Value, method, path, body| {
        let answer = page.fetch(server, headers.clone(), method, path, body);
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert_eq!(limits(&answer).0, 1000, "{method} {path}");
        answer
    };
    let plain = |method, path, body| send(token, method, path, body);
    let json = |method, path, body| send(&with_json, method, path, body);

    plain("PUT", "/kv/a", "Nairobi 🌍").expect(200, "");
    plain("GET", "/kv/a", "").expect(200, "Nairobi 🌍");
    plain("HEAD", "/kv/a", "").expect(200, "");
    let get = plain("GET", "/api/v1/kv/a", "");
    get.expect_json(r#"{"status":"ok","data":{"value":"Nairobi 🌍"}}"#);

    let done = r#"{"status":"ok"}"#;
    json("PUT", "/api/v1/kv/b", r#"{"value": [1.0], "ttl": 60}"#).expect_json(done);
    json("POST", "/api/v1/kv/b/touch", r#"{"ttl": 3600}"#).expect_json(done);
    plain("GET", "/api/v1/kv/b/ttl", "").expect_data(json!({"ttl": 3600}));
    let bulk = r#"{"operations": [{"key": "c", "value": "1"}, {"key": "d", "value": "2"}]}"#;
    json("POST", "/api/v1/kv/bulk", bulk).expect_data(json!({"c": "ok", "d": "ok"}));
    json("POST", "/api/v1/kv/bulk/get", r#"{"keys": ["c"]}"#)
        .expect_data(json!({"c": {"status": "ok", "value": "1"}}));
    json("POST", "/api/v1/kv/bulk/delete", r#"{"keys": ["d"]}"#).expect_data(json!({"d": "ok"}));
    let everything =
        json!({"a": {"value": "Nairobi 🌍"}, "b": {"value": [1.0]}, "c": {"value": "1"}});
    plain("GET", "/api/v1/kv", "").expect_data(everything);
    plain("DELETE", "/api/v1/kv/b", "").expect_json(done);
    assert_eq!(plain("GET", "/api/v1/status", "").status, 200);

    // Errors can be read as well.
    plain("DELETE", "/kv/a", "").expect(200, "");
    plain("GET", "/kv/a", "").expect(404, "key not found\n");
    let missing = plain("GET", "/api/v1/kv/a", "");
    missing.expect_error(404, "NOT_FOUND", json!({"key": "a"}));
    plain("PUT", "/kv/a", "").expect(400, "value cannot be empty\n");
    plain("PUT", "/kv/a", &too_long).expect(413, "value too large\n");
    let four = r#"{"keys": ["a", "b", "c", "d"]}"#;
    let refused = json("POST", "/api/v1/kv/bulk/get", four);
    let details = json!({"field": "keys", "limit": 3, "length": 4});
    refused.expect_error(413, "BATCH_TOO_LARGE", details);
    let broken = json("PUT", "/api/v1/kv/a", "{");
    assert_eq!(broken.json()["error"]["code"], "INVALID_REQUEST");
    plain("DELETE", "/clear", "").expect(200, "");
    plain("GET", "/api/v1/kv", "").expect_data(json!({}));
}

/// Reads from a page what the limit is, what remains of it, and when it is whole again.
#[track_caller]
fn limits(answer: &Response) -> (u64, u64, u64) {
    let number = |name| match answer.header(name) {
        Some(number) => number.parse().unwrap(),
        None => panic!("no {name} in {answer:?}"),
    };
    (
        number("x-ratelimit-limit"),
        number("x-ratelimit-remaining"),
        number("x-ratelimit-reset"),
    )
}

#[test]
fn an_allowed_page_uses_both_apis() {
    let Some(page) = Page::open() else { return };
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let token = tokens.create(&[]);
    let reader = tokens.create(&["--read-only"]);
    let mut options = vec!["--auth", tokens.path(), "--rate-limit", "1000/s"];
    options.extend(["--max-value-bytes", "100", "--max-batch", "3"]);
    options.extend(["--cors-origin", "https://example.com"]);
    options.extend(["--cors-origin", &page.origin]);
    let server = Server::start(&options);
    for way in ways(&token) {
        use_everything(&page, &server, &way);
    }

    let send = |headers: &Value, method, path, body| {
        let answer = page.fetch(&server, headers.clone(), method, path, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    };
    let none = json!({});
    send(&none, "GET", "/kv/a", "").expect(401, "unauthorized\n");
    send(&none, "GET", "/api/v1/kv/a", "").expect_error(401, "UNAUTHORIZED", Value::Null);
    for way in ways("wrong") {
        send(&way, "PUT", "/kv/a", "1").expect(401, "unauthorized\n");
        let refused = send(&with_json(&way), "PUT", "/api/v1/kv/a", r#"{"value": 1}"#);
        refused.expect_error(401, "UNAUTHORIZED", Value::Null);
    }
    for way in ways(&reader) {
        send(&way, "DELETE", "/kv/a", "").expect(403, "forbidden\n");
        let refused = send(&way, "DELETE", "/api/v1/kv/a", "");
        refused.expect_error(403, "FORBIDDEN", Value::Null);
    }
    send(&none, "GET", "/nowhere", "").expect(404, "not found\n");
    send(&none, "POST", "/kv/a", "1").expect(405, "method not allowed\n");
    // Also where the browser asks first.
    let [bearer, key] = ways(&token);
    send(&bearer, "GET", "/nowhere", "").expect(404, "not found\n");
    let missing = send(&key, "DELETE", "/api/v1/nowhere", "");
    missing.expect_error(404, "NOT_FOUND", Value::Null);
    for open in ["/api/v1/health", "/api/v1/openapi.json"] {
        assert_eq!(send(&none, "GET", open, "").status, 200);
    }
}

#[test]
fn an_allowed_page_reads_how_often_it_may_come_and_when_again() {
    let Some(page) = Page::open() else { return };
    let server = Server::start(&["--rate-limit", "30/m", "--cors-origin", &page.origin]);
    let send = |method, path, body| {
        let headers = json!({"Content-Type": "application/json"});
        page.fetch(&server, headers, method, path, body).unwrap()
    };
    // That the browser asks first does not count.
    let before = now();
    let first = send("PUT", "/api/v1/kv/a", r#"{"value": "1"}"#);
    let (limit, remaining, reset) = limits(&first);
    assert_eq!((first.status, limit, remaining), (200, 30, 29));
    assert!((before..=now() + 61).contains(&reset), "{before} {reset}");

    // One comes back every two seconds.
    let deadline = Instant::now() + PATIENCE;
    let use_up = |path| loop {
        let answer = send("GET", path, "");
        if answer.status != 200 {
            let (limit, remaining, reset) = limits(&answer);
            assert_eq!((limit, remaining), (30, 0));
            assert!((before..=now() + 61).contains(&reset), "{before} {reset}");
            break answer;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
    };
    let refused = use_up("/api/v1/kv/a");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["code"], "RATE_LIMITED");
    let refused = use_up("/kv/a");
    refused.expect(429, "rate limit exceeded\n");
    let wait = refused.header("retry-after").expect("when to try again");
    let wait = wait.parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    thread::sleep(Duration::from_secs(wait));
    send("GET", "/kv/a", "").expect(200, "1");
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

#[test]
fn a_page_that_is_not_allowed_reads_and_changes_nothing() {
    let Some(page) = Page::open() else { return };
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let token = tokens.create(&[]);
    // Others that look like it.
    let port = page.origin.rsplit(':').next().unwrap();
    let others = [
        format!("https://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        "http://127.0.0.1".to_owned(),
    ];
    let others = others.iter().flat_map(|other| ["--cors-origin", other]);
    for options in [others.collect(), Vec::new()] {
        let server = Server::start(&[&["--auth", tokens.path()], &*options].concat());
        let direct = |method, path, body| {
            let header = format!("X-API-Key: {token}\r\n");
            server.connect().send_with(&header, method, path, body)
        };
        direct("PUT", "/kv/a", "kept").expect(200, "");
        let bulk = r#"{"operations": [{"key": "a", "value": "changed"}]}"#;
        let requests = [
            ("GET", "/kv/a", ""),
            ("GET", "/api/v1/kv", ""),
            ("GET", "/api/v1/health", ""),
            ("GET", "/nowhere", ""),
            ("PUT", "/kv/a", "changed"),
            ("PUT", "/api/v1/kv/a", r#"{"value": "changed"}"#),
            ("POST", "/api/v1/kv/bulk", bulk),
            ("DELETE", "/kv/a", ""),
            ("DELETE", "/clear", ""),
        ];
        let [bearer, key] = ways(&token);
        for headers in [&json!({}), &bearer, &key, &with_json(&key)] {
            for (method, path, body) in requests {
                let answer = page.fetch(&server, headers.clone(), method, path, body);
                let error = answer.expect_err(path);
                assert_eq!(error, "TypeError", "{method} {path}");
            }
        }
        direct("GET", "/api/v1/kv", "").expect_data(json!({"a": {"value": "kept"}}));
    }
}

#[test]
fn a_page_that_is_not_allowed_writes_nothing_where_no_token_is_needed() {
    let Some(page) = Page::open() else { return };
    // No Content-Type, so the browser does not ask first.
    let bulk = r#"{"operations": [{"key": "a", "value": "changed"}]}"#;
    let requests = [
        ("/api/v1/kv/bulk", bulk),
        ("/api/v1/kv/bulk/delete", r#"{"keys": ["a"]}"#),
        ("/api/v1/kv/a/touch", r#"{"ttl": 1}"#),
    ];
    for options in [&[][..], &["--cors-origin", "https://example.com"]] {
        let server = Server::start(options);
        server.put("/kv/a", "kept").expect(200, "");
        for (path, body) in requests {
            let answer = page.fetch(&server, json!({}), "POST", path, body);
            assert_eq!(answer.expect_err(path), "TypeError");
        }
        let get = server.get("/api/v1/kv/a?with_ttl=true");
        get.expect_json(r#"{"status":"ok","data":{"value":"kept"}}"#);
    }
}

#[test]
fn a_star_allows_every_page() {
    let Some(page) = Page::open() else { return };
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let token = tokens.create(&[]);
    let mut options = vec!["--auth", tokens.path(), "--rate-limit", "1000/s"];
    options.extend(["--max-value-bytes", "100", "--max-batch", "3"]);
    let server = Server::start(&[&options[..], &["--cors-origin", "*"]].concat());
    for way in ways(&token) {
        use_everything(&page, &server, &way);
    }
}
