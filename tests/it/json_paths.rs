//! Paths of the JSON API: which there are, which methods each has, and which keys may stand in them.

use serde_json::{Value, json};

use crate::client::Response;
use crate::process::Server;

const OK: &str = r#"{"status":"ok"}"#;

#[test]
fn a_key_may_be_named_bulk() {
    let server = Server::start(&[]);
    for path in ["/api/v1/kv/bulk", "/api/v1/kv/%62ulk"] {
        server.put(path, r#"{"value":1}"#).expect_json(OK);
        server
            .get(path)
            .expect_json(r#"{"status":"ok","data":{"value":1}}"#);
        assert_eq!(server.send("HEAD", path, "").status, 200);
        server
            .get(&format!("{path}/ttl"))
            .expect_json(r#"{"status":"ok","data":{"ttl":null}}"#);
        server.get("/kv/bulk").expect(200, "1");
        server.delete(path).expect_json(OK);
        server
            .get(path)
            .expect_error(404, "NOT_FOUND", json!({"key": "bulk"}));
    }
    // It is touched in bulk, or under its other name.
    server.put("/kv/bulk", "v").expect(200, "");
    server
        .post(
            "/api/v1/kv/bulk/touch",
            r#"{"operations":[{"key":"bulk","ttl":60}]}"#,
        )
        .expect_data(json!({"bulk": "ok"}));
    server
        .post("/api/v1/kv/%62ulk/touch", r#"{"ttl":60}"#)
        .expect_json(OK);
    server
        .post("/api/v1/kv/bulk/touch", r#"{"ttl":60}"#)
        .expect_error(
            400,
            "INVALID_REQUEST",
            json!({"line": 1, "column": 10, "field": "operations"}),
        );
    // The same goes for the other words of the API.
    for key in ["get", "delete", "touch", "ttl", "kv", ".", ".."] {
        let path = format!("/api/v1/kv/{key}");
        server
            .put(&path, format!(r#"{{"value":"{key}"}}"#))
            .expect_json(OK);
        server.get(&path).expect_data(json!({"value": key}));
        server
            .post(&format!("{path}/touch"), r#"{"ttl":60}"#)
            .expect_json(OK);
        server.get(&format!("/kv/{key}")).expect(200, key);
    }
}

#[test]
fn head_answers_like_get_without_the_body() {
    let server = Server::start(&[]);
    server.put("/kv/small", "v").expect(200, "");
    server.put("/kv/large", "v".repeat(100_000)).expect(200, "");
    let mut client = server.connect();
    for path in [
        "/api/v1/kv",
        "/api/v1/kv?prefix=none",
        "/api/v1/kv?limit=0",
        "/api/v1/kv/small",
        "/api/v1/kv/large",
        "/api/v1/kv/missing",
        "/api/v1/kv/",
        "/api/v1/kv/small/ttl",
        "/api/v1/kv/bulk",
        "/api/v1/health",
        "/api/v1/status",
        "/api/v1/openapi.json",
        "/api/v1/nowhere",
    ] {
        let head = client.send("HEAD", path, "");
        // Had there been a body, this answer would not be readable.
        let get = client.send("GET", path, "");
        assert_eq!(head.status, get.status, "{path}");
        let same = |name| assert_eq!(head.header(name), get.header(name), "{path} {name}");
        same("content-type");
        same("transfer-encoding");
        // The figures in these change from one request to the next.
        if path != "/api/v1/status" {
            same("content-length");
        }
    }
    let head = client.send("HEAD", "/api/v1/kv/bulk/get", "");
    assert_eq!((head.status, head.header("allow")), (405, Some("POST")));
}

#[test]
fn a_method_that_a_path_does_not_have_is_answered_by_those_it_has() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let one = "GET, HEAD, PUT, DELETE";
    for (path, allow) in [
        ("/api/v1/kv", "GET, HEAD, DELETE"),
        ("/api/v1/kv/a", one),
        ("/api/v1/kv/", one),
        ("/api/v1/kv/a%20b", one),
        ("/api/v1/kv/%62ulk", one),
        ("/api/v1/kv/a/ttl", "GET, HEAD"),
        ("/api/v1/kv/bulk/ttl", "GET, HEAD"),
        ("/api/v1/kv/a/touch", "POST"),
        ("/api/v1/kv/bulk", "POST, GET, HEAD, PUT, DELETE"),
        ("/api/v1/kv/bulk/get", "POST"),
        ("/api/v1/kv/bulk/delete", "POST"),
        ("/api/v1/kv/bulk/touch", "POST"),
        ("/api/v1/health", "GET, HEAD"),
        ("/api/v1/status", "GET, HEAD"),
        ("/api/v1/openapi.json", "GET, HEAD"),
    ] {
        for method in [
            "GET", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "get", "BREW",
        ] {
            if allow.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let answer = client.send(method, path, r#"{"value":1}"#);
            answer.expect_error(405, "METHOD_NOT_ALLOWED", json!({"allow": allow}));
            assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        }
    }
    server
        .get("/api/v1/kv")
        .expect_json(r#"{"status":"ok","data":{}}"#);
}

#[test]
fn a_path_that_there_is_not_is_answered_in_json() {
    let server = Server::start(&[]);
    for path in [
        "/api/v1",
        "/api/v1/",
        "/api/v1/nowhere",
        "/api/v1/KV",
        "/api/v1//kv",
        "/api/v1/kv/a/b",
        "/api/v1/kv/a/",
        "/api/v1/kv/a/ttl/",
        "/api/v1/kv/a/TTL",
        "/api/v1/kv/bulk/put",
        "/api/v1/kv/bulk/get/touch",
        "/api/v1/health/",
        "/api/v1/openapi",
        "/api/v1/%6bv",
    ] {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            server
                .send(method, path, "{}")
                .expect_error(404, "NOT_FOUND", Value::Null);
        }
    }
    for path in ["/api", "/api/", "/api/v2/kv", "/api/v10", "/API/v1/kv"] {
        server.get(path).expect(404, "not found\n");
    }
}

#[test]
fn a_key_has_1_to_1024_bytes_of_its_alphabet() {
    let server = Server::start(&[]);
    let (short, long) = ("k", "k".repeat(1024));
    let encoded = "%6B".repeat(1024);
    let alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.-";
    for (sent, key) in [
        (short, short),
        (&long, &long),
        (&encoded, &long),
        (alphabet, alphabet),
        ("a%3Ab%2d%5f%2E", "a:b-_."),
        ("A", "A"),
    ] {
        let path = format!("/api/v1/kv/{sent}");
        let value = format!(r#"{{"value":"{sent}"}}"#);
        server.put(&path, value).expect_json(OK);
        server.get(&format!("/kv/{key}")).expect(200, sent);
        server.get(&path).expect_data(json!({"value": sent}));
        server
            .get(&format!("{path}/ttl"))
            .expect_data(json!({"ttl": null}));
        let keys = json!({"keys": [key]}).to_string();
        server
            .post("/api/v1/kv/bulk/delete", keys)
            .expect_data(json!({key: "ok"}));
    }
    let too_long = "k".repeat(1025);
    let alphabet = "Key may only contain ASCII letters, digits and the characters : _ . -";
    let length = "Key cannot be longer than 1024 bytes, this one has 1025";
    for (sent, key, message) in [
        ("", "", "Key cannot be empty"),
        (&*too_long, &*too_long, length),
        ("a%20b", "a b", alphabet),
        ("a+b", "a+b", alphabet),
        ("a%2Fb", "a/b", alphabet),
        ("a%00", "a\0", alphabet),
        ("%F0%9F%8C%8D", "🌍", alphabet),
        ("%C3%A4", "ä", alphabet),
        ("%ff", "\u{fffd}", alphabet),
        ("a%", "a%", alphabet),
        ("%zz", "%zz", alphabet),
        ("a%250", "a%0", alphabet),
    ] {
        let sizes = |mut details: Value| {
            if message == length {
                details["limit"] = json!(1024);
                details["length"] = json!(1025);
            }
            details
        };
        let expect = |answer: Response, details| {
            assert_eq!(answer.expect_error(400, "INVALID_KEY", details), message);
        };
        let in_path = || match sizes(json!({})) {
            details if details == json!({}) => Value::Null,
            details => details,
        };
        let path = format!("/api/v1/kv/{sent}");
        expect(server.get(&path), in_path());
        expect(server.put(&path, r#"{"value":1}"#), in_path());
        expect(server.delete(&path), in_path());
        expect(server.get(&format!("{path}/ttl")), in_path());
        expect(
            server.post(&format!("{path}/touch"), r#"{"ttl":1}"#),
            in_path(),
        );
        for (path, field, body) in [
            ("bulk/get", "keys[1]", json!({"keys": ["a", key]})),
            ("bulk/delete", "keys[0]", json!({"keys": [key, "a"]})),
            (
                "bulk",
                "operations[1].key",
                json!({"operations": [{"key": "a", "value": 1}, {"key": key, "value": 1}]}),
            ),
            (
                "bulk/touch",
                "operations[0].key",
                json!({"operations": [{"key": key, "ttl": 1}]}),
            ),
        ] {
            let answer = server.post(&format!("/api/v1/kv/{path}"), body.to_string());
            expect(answer, sizes(json!({"field": field})));
        }
    }
    server
        .get("/api/v1/kv")
        .expect_json(r#"{"status":"ok","data":{}}"#);
}
