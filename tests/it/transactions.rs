//! A bulk request of several kinds of operations is a transaction: all of it happens, at one revision, or none of it.

use serde_json::{Value, json};

use crate::directory::Directory;
use crate::json::expect_ttl;
use crate::process::Server;
use crate::revisions::revision;

const BULK: &str = "/api/v1/kv/bulk";

fn missing() -> Value {
    json!({"status": "error", "error": "not_found"})
}

#[test]
fn operations_of_all_kinds_apply_in_order() {
    let directory = Directory::new();
    for server in [
        Server::start(&[]),
        Server::start(&["--working-dir", directory.path_str()]),
    ] {
        for key in ["b", "c", "d"] {
            server.put(&format!("/kv/{key}"), "old").expect(200, "");
        }
        let since = std::time::Instant::now();
        let body = r#"{"operations":[
            {"key":"a","value":1},
            {"op":"put","key":"b","value":null,"ttl":60},
            {"op":"delete","key":"c","value":7,"ttl":"x"},
            {"op":"delete","key":"x"},
            {"op":"touch","key":"d","ttl":60},
            {"op":"touch","key":"d","ttl":null},
            {"op":"touch","key":"y","ttl":null},
            {"op":"check","key":"z","if_revision":0},
            {"op":"put","key":"e","value":"1"},
            {"op":"delete","key":"e"},
            {"op":"delete","key":"f"},
            {"op":null,"key":"f","value":[]}
        ]}"#;
        server.post(BULK, body).expect_data(json!({
            "a": "ok", "b": "ok", "c": "ok", "x": missing(), "d": "ok", "y": missing(),
            "z": "ok", "e": "ok", "f": "ok",
        }));
        let listed = server.get("/api/v1/kv?with_ttl=1");
        let ttl = expect_ttl(&listed.json()["data"]["b"]["ttl"], 60, since);
        listed.expect_data(json!({
            "a": {"value": 1}, "b": {"value": null, "ttl": ttl}, "d": {"value": "old"},
            "f": {"value": []},
        }));
    }
}

#[test]
fn one_condition_that_is_not_met_fails_all() {
    let directory = Directory::new();
    for server in [
        Server::start(&[]),
        Server::start(&["--working-dir", directory.path_str()]),
    ] {
        let mut client = server.connect();
        let a = revision(&client.send("PUT", "/kv/a", "v"));
        let b = revision(&client.send("PUT", "/kv/b", "v"));
        let before = client.send("GET", "/api/v1/kv?with_revision=1", "").json();
        for (operations, failed) in [
            (
                json!([{"key": "a", "value": 1, "if_revision": a}, {"key": "b", "value": 1, "if_revision": a}]),
                json!([{"index": 1, "key": "b", "revision": b}]),
            ),
            (
                json!([
                    {"op": "check", "key": "x", "if_revision": 7},
                    {"op": "delete", "key": "a", "if_revision": 0},
                    {"op": "delete", "key": "b"},
                    {"op": "touch", "key": "y", "ttl": 1, "if_revision": 7},
                    {"op": "touch", "key": "b", "ttl": 1, "if_revision": b},
                    {"key": "b", "value": 1, "if_revision": b + 1},
                ]),
                json!([
                    {"index": 0, "key": "x", "revision": null},
                    {"index": 1, "key": "a", "revision": a},
                    {"index": 3, "key": "y", "revision": null},
                    {"index": 5, "key": "b", "revision": b},
                ]),
            ),
            // Judged against the state before, not against what the request itself has done by then.
            (
                json!([{"key": "x", "value": 1, "if_revision": 0}, {"op": "check", "key": "x", "if_revision": 1}]),
                json!([{"index": 1, "key": "x", "revision": null}]),
            ),
        ] {
            let body = json!({"operations": operations}).to_string();
            let answer = client.send("POST", BULK, body);
            answer.expect_error(412, "PRECONDITION_FAILED", json!({"failed": failed}));
            assert_eq!(answer.header("etag"), None);
            let after = client.send("GET", "/api/v1/kv?with_revision=1", "").json();
            assert_eq!(after, before);
        }
        let touch = json!({"operations": [{"key": "a", "ttl": 60, "if_revision": b}]}).to_string();
        let failed = json!({"failed": [{"index": 0, "key": "a", "revision": a}]});
        client
            .send("POST", "/api/v1/kv/bulk/touch", touch)
            .expect_error(412, "PRECONDITION_FAILED", failed);
        // All conditions are about the state before, so the same may stand twice.
        let body = json!({"operations": [
            {"key": "a", "value": 1, "if_revision": a},
            {"op": "delete", "key": "a", "if_revision": a},
            {"key": "x", "value": 1, "if_revision": 0},
            {"op": "check", "key": "x", "if_revision": 0},
            {"op": "check", "key": "b", "if_revision": b},
        ], "with_revision": true});
        let answer = client.send("POST", BULK, body.to_string()).json();
        assert_eq!(answer["data"], json!({"a": "ok", "x": "ok", "b": "ok"}));
        let listed = client.send("GET", "/api/v1/kv?with_revision=1", "").json();
        let now = &answer["revision"];
        let expected =
            json!({"b": {"value": "v", "revision": b}, "x": {"value": 1, "revision": now}});
        assert_eq!(listed["data"], expected);
        // Checks alone change nothing, and so do deletes of nothing.
        let body = json!({"operations": [
            {"op": "check", "key": "b", "if_revision": b},
            {"op": "delete", "key": "a", "if_revision": 0},
        ], "with_revision": true});
        let answer = client.send("POST", BULK, body.to_string()).json();
        assert_eq!(answer["data"], json!({"b": "ok", "a": missing()}));
        assert_eq!(answer["revision"], *now);
    }
}

#[test]
fn an_operation_that_there_is_not_is_named() {
    let server = Server::start(&[]);
    for op in ["", "Put", "get", "increment"] {
        let body =
            json!({"operations": [{"key": "a", "value": 1}, {"op": op, "key": "b", "value": 1}]});
        let answer = server.post(BULK, body.to_string());
        let message = answer.expect_error(
            400,
            "VALIDATION_ERROR",
            json!({"field": "operations[1].op"}),
        );
        assert!(message.contains("put, delete, touch or check"));
    }
    for (if_revision, code) in [("-1", "VALIDATION_ERROR"), ("\"1\"", "INVALID_REQUEST")] {
        let body =
            format!(r#"{{"operations":[{{"op":"check","key":"a","if_revision":{if_revision}}}]}}"#);
        let error = server.post(BULK, body).json()["error"].take();
        assert_eq!(error["code"], code);
        assert_eq!(error["details"]["field"], "operations[0].if_revision");
    }
    server.get("/api/v1/kv").expect_data(json!({}));
}

/// In words that say what to change.
#[test]
fn what_is_wrong_with_an_operation_is_said_with_its_field() {
    let server = Server::start(&[]);
    for (operation, field, said) in [
        (r#"{"op":"put","key":"a"}"#, "value", "is missing"),
        (r#"{"op":null,"key":"a","ttl":60}"#, "value", "is missing"),
        (r#"{"op":"touch","key":"a","value":1}"#, "ttl", "is missing"),
        (r#"{"op":"check","key":"a"}"#, "if_revision", "is missing"),
        (
            r#"{"op":"che\u0063k","key":"a"}"#,
            "if_revision",
            "is missing",
        ),
        (r#"{"op":"delete"}"#, "key", "is missing"),
        (r#"{"op":1,"key":"a","value":1}"#, "op", "must be a string"),
        (
            r#"{"op":["put"],"key":"a","value":1}"#,
            "op",
            "must be a string",
        ),
        (
            r#"{"op":"put","op":"put","key":"a","value":1}"#,
            "op",
            "must be given once only",
        ),
        (
            r#"{"key":"a","value":1,"value":1}"#,
            "value",
            "must be given once only",
        ),
        (
            r#"{"op":"check","key":"a","if_revision":null}"#,
            "if_revision",
            "must be a revision, or 0",
        ),
    ] {
        let body = format!(r#"{{"operations":[{{"key":"b","value":1}},{operation}]}}"#);
        let answer = server.post(BULK, body);
        let field = format!("operations[1].{field}");
        let details = answer.json()["error"]["details"].take();
        assert_eq!(details["field"], field, "{operation}");
        let message = answer.expect_error(400, "INVALID_REQUEST", details);
        assert_eq!(message, format!("{field} {said}"), "{operation}");
    }
    let body = r#"{"operations":[{"key":"a","value":1}],"with_revision":"true"}"#;
    let error = server.post(BULK, body).json()["error"].take();
    assert_eq!(error["message"], "with_revision must be true or false");
    server.get("/api/v1/kv").expect_data(json!({}));
}

#[test]
fn a_touch_may_let_a_key_live_for_ever() {
    let server = Server::start(&[]);
    server.put("/kv/a", "v").expect(200, "");
    let ttl = || server.get("/api/v1/kv/a/ttl").json()["data"]["ttl"].take();
    for (path, never) in [
        ("/api/v1/kv/a/touch", r#"{"ttl":null}"#),
        (
            "/api/v1/kv/bulk/touch",
            r#"{"operations":[{"key":"a","ttl":null}]}"#,
        ),
        (
            "/api/v1/kv/bulk",
            r#"{"operations":[{"op":"touch","key":"a","ttl":null}]}"#,
        ),
    ] {
        let touch = server.post("/api/v1/kv/a/touch", r#"{"ttl":60}"#);
        assert_eq!(touch.status, 200);
        assert!(ttl().is_u64());
        assert_eq!(server.post(path, never).status, 200, "{path}");
        assert_eq!(ttl(), Value::Null, "{path}");
    }
}
