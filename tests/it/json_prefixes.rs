//! Listings without values, counted, or grouped like directories; and deleting all that begins with a text.

use serde_json::{Value, json};

use crate::directory::Directory;
use crate::process::Server;

const KEYS: &[&str] = &[
    "a", "user", "user:1", "user:1:x", "user:1:y", "user:2", "user:2:x", "users", "v::1", "v::2",
    "z:",
];

fn server() -> Server {
    let server = Server::start(&[]);
    for key in KEYS {
        server.put(&format!("/kv/{key}"), *key).expect(200, "");
    }
    server
}

fn keys(answer: &Value) -> Vec<&str> {
    let data = answer["data"].as_object().unwrap();
    data.keys().map(String::as_str).collect()
}

#[test]
fn keys_may_be_listed_without_their_values() {
    let server = server();
    server
        .get("/api/v1/kv?keys_only=true&prefix=user:1")
        .expect_json(r#"{"status":"ok","data":{"user:1":{},"user:1:x":{},"user:1:y":{}}}"#);
    server
        .get("/api/v1/kv?keys_only=1&limit=1")
        .expect_json(r#"{"status":"ok","data":{"a":{}},"next":"a"}"#);
    let touch = server.post("/api/v1/kv/a/touch", r#"{"ttl":1000000}"#);
    assert_eq!(touch.status, 200);
    let answer = server.get("/api/v1/kv?keys_only=1&with_ttl=1&with_revision=1&prefix=a");
    let answer = answer.json();
    let a = &answer["data"]["a"];
    assert_eq!(a["revision"], answer["revision"]);
    assert!(a["ttl"].as_u64() > Some(999_000) && a.get("value").is_none());
}

#[test]
fn keys_may_be_counted() {
    let server = server();
    for (prefix, count) in [
        ("", 11),
        ("user", 7),
        ("user:", 5),
        ("user:1", 3),
        ("x", 0),
        ("%C3%A4", 0),
    ] {
        server
            .get(&format!("/api/v1/kv?count_only=true&prefix={prefix}"))
            .expect_data(json!({"count": count}));
    }
    server
        .get("/api/v1/kv?count_only=1&limit=1&after=b&keys_only=1&delimiter=:")
        .expect_data(json!({"count": 11}));
    let answer = server.get("/api/v1/kv?count_only=1&with_revision=1").json();
    let status = server.get("/api/v1/status").json();
    assert_eq!(answer["revision"], status["data"]["storage"]["revision"]);
    server.put("/api/v1/kv/a", r#"{"value":1,"ttl":1}"#);
    let counted = || server.get("/api/v1/kv?count_only=1").json()["data"]["count"].take();
    crate::process::wait_for("a to expire", || {
        (server.get("/kv/a").status == 404).then_some(())
    });
    assert_eq!(counted(), 10);
}

#[test]
fn keys_are_grouped_by_a_delimiter() {
    let server = server();
    for (query, listed, prefixes, next) in [
        ("delimiter=:", "a user users", "user: v: z:", None),
        ("delimiter=:&prefix=user", "user users", "user:", None),
        (
            "delimiter=:&prefix=user:",
            "user:1 user:2",
            "user:1: user:2:",
            None,
        ),
        (
            "delimiter=::",
            "a user user:1 user:1:x user:1:y user:2 user:2:x users z:",
            "v::",
            None,
        ),
        (
            "delimiter=nowhere&prefix=user:1",
            "user:1 user:1:x user:1:y",
            "",
            None,
        ),
        ("delimiter=:&limit=1", "a", "", Some("a")),
        ("delimiter=:&limit=3", "a user", "user:", Some("user:")),
        (
            "delimiter=:&limit=2&after=user",
            "users",
            "user:",
            Some("users"),
        ),
        ("delimiter=:&limit=2&after=user:", "users", "v:", Some("v:")),
        ("delimiter=:&limit=6", "a user users", "user: v: z:", None),
        // A prefix is greater than a text by itself, not by its keys.
        ("delimiter=:&after=user:1", "users", "v: z:", None),
        ("delimiter=:&after=v:", "", "z:", None),
        ("delimiter=:&after=z:", "", "", None),
        (
            "delimiter=:&prefix=user:&after=user:1",
            "user:2",
            "user:1: user:2:",
            None,
        ),
        ("delimiter=:&prefix=x", "", "", None),
    ] {
        let answer = server
            .get(&format!("/api/v1/kv?keys_only=1&{query}"))
            .json();
        assert_eq!(
            keys(&answer),
            listed.split_whitespace().collect::<Vec<_>>(),
            "{query}"
        );
        let expected: Vec<&str> = prefixes.split_whitespace().collect();
        assert_eq!(answer["prefixes"], json!(expected), "{query}");
        assert_eq!(answer.get("next").and_then(Value::as_str), next, "{query}");
    }
    server
        .get("/api/v1/kv?delimiter=:&prefix=z")
        .expect_json(r#"{"status":"ok","data":{},"prefixes":["z:"]}"#);
}

#[test]
fn pages_of_groups_put_together_are_the_whole() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for chunk in 0..10 {
        let item = |n: usize| json!({"key": format!("k{:03}:{}", n / 4, n % 4), "value": n});
        let items: Vec<Value> = (0..400).map(|n| item(chunk * 400 + n)).collect();
        let body = json!({"operations": items}).to_string();
        assert_eq!(client.send("POST", "/api/v1/kv/bulk", body).status, 200);
    }
    let whole: Vec<String> = (0..1000).map(|n| format!("k{n:03}:")).collect();
    for limit in ["1000", "1001", "7", "1", "100"] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/kv?delimiter=:&limit={limit}{after}");
            let answer = client.send("GET", &path, "").json();
            assert_eq!(answer["data"], json!({}));
            let page = answer["prefixes"].as_array().unwrap();
            found.extend(page.iter().map(|it| it.as_str().unwrap().to_owned()));
            let Some(next) = answer.get("next") else {
                break;
            };
            after = format!("&after={}", next.as_str().unwrap());
        }
        assert!(found == whole, "{limit} at a time");
    }
}

#[test]
fn what_begins_with_a_text_is_deleted_as_one() {
    let directory = Directory::new();
    let options = ["--working-dir", directory.path_str()];
    let mut server = Server::start(&options);
    for key in KEYS {
        server.put(&format!("/kv/{key}"), *key).expect(200, "");
    }
    for query in ["", "?prefix=", "?prefix", "?with_revision=true"] {
        server.delete(&format!("/api/v1/kv{query}")).expect_error(
            400,
            "VALIDATION_ERROR",
            json!({"parameter": "prefix"}),
        );
    }
    let twice = server.delete("/api/v1/kv?prefix=a&prefix=b");
    assert_eq!(twice.status, 400);
    for (prefix, deleted) in [
        ("user:1:", 2),
        ("x", 0),
        ("%C3%A4", 0),
        ("user:", 3),
        ("user:", 0),
        ("v:%3a", 2),
    ] {
        server
            .delete(&format!("/api/v1/kv?prefix={prefix}"))
            .expect_data(json!({"deleted": deleted}));
    }
    for _ in 0..2 {
        let answer = server.get("/api/v1/kv?keys_only=1").json();
        assert_eq!(keys(&answer), ["a", "user", "users", "z:"]);
        server.kill();
        server = Server::start(&options);
    }
}
