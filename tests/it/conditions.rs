//! Nobody overwrites what they have not seen: conditions on revisions, in both APIs.

use serde_json::json;

use crate::client::Response;
use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::revisions::{put, revision};

/// The paths of a key in both APIs, and a body for a PUT there.
pub const BOTH: [(&str, &str); 2] = [("/kv/a", "v"), ("/api/v1/kv/a", r#"{"value":"v"}"#)];

/// Checks that an answer says that a condition is not met, and what the key has now.
#[track_caller]
fn expect_unmet(answer: &Response, path: &str, now: Option<u64>) {
    if path.starts_with("/kv/") {
        answer.expect(412, "precondition failed\n");
    } else {
        let details = json!({"key": "a", "revision": now});
        answer.expect_error(412, "PRECONDITION_FAILED", details);
    }
    let tag = now.map(|now| format!("\"{now}\""));
    assert_eq!(answer.header("etag"), tag.as_deref());
}

#[test]
fn a_write_happens_only_where_its_condition_is_met() {
    let directory = Directory::new();
    for server in [
        Server::start(&[]),
        Server::start(&["--working-dir", directory.path_str()]),
    ] {
        let mut client = server.connect();
        for (path, body) in BOTH {
            // With the key there: the header, with # for its revision, and whether it is met.
            for (header, met) in [
                ("If-Match: \"#\"", true),
                ("If-Match: *", true),
                ("If-Match: \"1\", \"#\", \"x,y\"", true),
                ("If-Match: \"1\"\r\nIf-Match: \"#\"", true),
                ("if-match:\"#\"", true),
                ("If-None-Match: \"1\"", true),
                ("If-None-Match: W/\"1\", \"\"", true),
                ("If-Match: \"#\"\r\nIf-None-Match: \"1\"", true),
                ("If-Match: \"1\"", false),
                ("If-Match: \"0#\"", false),
                ("If-Match: \"\"", false),
                ("If-Match: W/\"#\"", false),
                ("If-Match: \"1\", \"2\"", false),
                ("If-None-Match: *", false),
                ("If-None-Match: \"#\"", false),
                ("If-None-Match: W/\"#\"", false),
                ("If-Match: \"#\"\r\nIf-None-Match: \"#\"", false),
                ("If-Match: *\r\nIf-None-Match: *", false),
            ] {
                for method in ["PUT", "DELETE", "POST"] {
                    let (path, body) = match method {
                        "PUT" => (path, body),
                        "POST" if path.starts_with("/api") => {
                            ("/api/v1/kv/a/touch", r#"{"ttl":60}"#)
                        }
                        "POST" => continue,
                        _ => (path, ""),
                    };
                    let now = put(&mut client);
                    let header = format!("{}\r\n", header.replace('#', &now.to_string()));
                    let answer = client.send_with(&header, method, path, body);
                    let left = client.send("GET", "/kv/a", "");
                    if met {
                        assert_eq!(answer.status, 200, "{method} {path} {header}");
                        assert!(left.status == 404 || revision(&left) > now, "{header}");
                    } else {
                        expect_unmet(&answer, path, Some(now));
                        assert_eq!(revision(&left), now, "{method} {path} {header}");
                        let weakened = answer.text().contains("proxy");
                        let weak = header.starts_with("If-Match: W/") && path.starts_with("/api");
                        assert_eq!(weakened, weak, "{header}");
                    }
                }
            }
            // Without the key.
            for (header, met) in [
                ("If-Match: *", false),
                ("If-Match: \"1\"", false),
                ("If-Match: W/\"1\"", false),
                ("If-None-Match: *", true),
                ("If-None-Match: \"1\"", true),
            ] {
                let header = format!("{header}\r\n");
                for (method, body) in [("PUT", body), ("DELETE", "")] {
                    client.send("DELETE", "/kv/a", "").expect(200, "");
                    let answer = client.send_with(&header, method, path, body);
                    if met {
                        assert_eq!(answer.status, 200, "{method} {path} {header}");
                    } else {
                        expect_unmet(&answer, path, None);
                        client
                            .send("GET", "/kv/a", "")
                            .expect(404, "key not found\n");
                    }
                }
                client.send("DELETE", "/kv/a", "").expect(200, "");
                // There is nothing to read or to touch, whatever the condition.
                let read = client.send_with(&header, "GET", path, "");
                assert_eq!(read.status, 404, "{header}");
                let touch = "/api/v1/kv/a/touch";
                let touched = client.send_with(&header, "POST", touch, r#"{"ttl":60}"#);
                touched.expect_error(404, "NOT_FOUND", json!({"key": "a"}));
            }
        }
    }
}

#[test]
fn a_read_is_answered_by_its_condition() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let now = put(&mut client);
    for (header, status) in [
        ("If-None-Match: T", 304),
        ("If-None-Match: W/T", 304),
        ("If-None-Match: *", 304),
        ("If-None-Match: \"1\", W/T", 304),
        ("If-None-Match: \"1\"\r\nIf-None-Match: T", 304),
        ("If-None-Match: \"1\"", 200),
        ("If-Match: T", 200),
        ("If-Match: *", 200),
        ("If-Match: \"1\"", 412),
        ("If-Match: W/T", 412),
        ("If-Match: \"1\"\r\nIf-None-Match: T", 412),
        ("If-Match: T\r\nIf-None-Match: T", 304),
    ] {
        let header = format!("{header}\r\n").replace('T', &format!("\"{now}\""));
        for (path, _) in BOTH {
            for method in ["GET", "HEAD"] {
                let answer = client.send_with(&header, method, path, "");
                assert_eq!(answer.status, status, "{method} {path} {header}");
                assert_eq!(revision(&answer), now);
            }
            if status == 412 {
                expect_unmet(&client.send_with(&header, "GET", path, ""), path, Some(now));
            }
        }
        // The time to live runs on, so there is something new in any case.
        let path = "/api/v1/kv/a?with_ttl=true";
        let expected = if status == 304 { 200 } else { status };
        let answer = client.send_with(&header, "GET", path, "");
        assert_eq!((answer.status, revision(&answer)), (expected, now));
    }
}

#[test]
fn what_is_no_tag_is_refused_with_the_right_spelling() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let now = put(&mut client);
    let many = format!("\"{now}\",").repeat(65);
    for name in ["If-Match", "If-None-Match"] {
        for (value, said) in [
            ("7", "\"7\""),
            ("\"1\", 7", "\"7\""),
            ("abc", "quotes"),
            ("", "quotes"),
            (",", "quotes"),
            ("\"7", "quotes"),
            ("'7'", "quotes"),
            ("*, \"7\"", "quotes"),
            ("\"7\" \"8\"", "quotes"),
            ("w/\"7\"", "quotes"),
            (&*many, "64"),
        ] {
            let header = format!("{name}: {value}\r\n");
            for (method, path, body) in [
                ("GET", "/kv/a", ""),
                ("PUT", "/kv/a", "x"),
                ("DELETE", "/kv/a", ""),
                ("GET", "/api/v1/kv/a", ""),
                ("PUT", "/api/v1/kv/a", r#"{"value":1}"#),
                ("DELETE", "/api/v1/kv/a", ""),
                ("POST", "/api/v1/kv/a/touch", r#"{"ttl":1}"#),
            ] {
                let answer = client.send_with(&header, method, path, body);
                let message = if path.starts_with("/kv/") {
                    assert_eq!(answer.status, 400, "{header}");
                    answer.text().to_owned()
                } else {
                    answer.expect_error(400, "INVALID_REQUEST", json!({"header": name}))
                };
                assert!(message.starts_with(name) && message.contains(said));
            }
        }
    }
    let (many, fewer) = many.split_at(many.len() / 65);
    assert_eq!(many, format!("\"{now}\","));
    let header = format!("If-Match: {fewer}\r\n");
    let read = client.send_with(&header, "GET", "/kv/a", "");
    assert_eq!((read.status, revision(&read)), (200, now));
    // Where there are no conditions, the headers mean nothing.
    for (method, path, body) in [
        ("GET", "/api/v1/kv", ""),
        ("GET", "/api/v1/kv/a/ttl", ""),
        ("POST", "/api/v1/kv/bulk/get", r#"{"keys":["a"]}"#),
        ("DELETE", "/clear", ""),
    ] {
        let answer = client.send_with("If-Match: 7\r\n", method, path, body);
        assert_eq!(answer.status, 200, "{path}");
    }
}

/// What would be refused without a condition is refused as if there were none.
#[test]
fn other_refusals_come_before_conditions() {
    let server = Server::start(&["--max-value-bytes=10"]);
    let mut client = server.connect();
    put(&mut client);
    let unmet = "If-Match: \"1\"\r\n";
    for (method, path, body, status) in [
        ("PUT", "/kv/a", "", 400),
        ("PUT", "/kv/a%20b", "v", 400),
        ("PUT", "/kv/a", "longer than it may be", 413),
        ("POST", "/kv/a", "", 405),
        ("GET", "/nowhere", "", 404),
        ("PUT", "/api/v1/kv/a", "{", 400),
        ("PUT", "/api/v1/kv/a?with_revision=x", r#"{"value":1}"#, 400),
        ("PUT", "/api/v1/kv/a", r#"{"value":1,"ttl":0}"#, 400),
        (
            "PUT",
            "/api/v1/kv/a",
            r#"{"value":"longer than it may be"}"#,
            413,
        ),
        ("POST", "/api/v1/kv/a/touch", "{}", 400),
        ("GET", "/api/v1/kv/a?with_ttl=x", "", 400),
        ("PUT", "/kv/a", "v", 412),
    ] {
        let answer = client.send_with(unmet, method, path, body);
        assert_eq!(answer.status, status, "{method} {path} {body}");
    }
}

#[test]
fn a_body_may_name_the_revision() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let one = "/api/v1/kv/a";
    let touch = "/api/v1/kv/a/touch";
    for (method, path, field) in [("PUT", one, r#""value":1"#), ("POST", touch, r#""ttl":60"#)] {
        let body = |revision: &str| format!(r#"{{{field},"if_revision":{revision}}}"#);
        let now = put(&mut client);
        let answer = client.send(method, path, body("0"));
        expect_unmet(&answer, path, Some(now));
        let answer = client.send(method, path, body(&(now - 1).to_string()));
        expect_unmet(&answer, path, Some(now));
        let answer = client.send(method, path, body(&now.to_string()));
        answer.expect_json(r#"{"status":"ok"}"#);
        // That was another one.
        assert_eq!(
            client.send(method, path, body(&now.to_string())).status,
            412
        );
        let answer = client.send(method, path, body("null"));
        answer.expect_json(r#"{"status":"ok"}"#);
        for (revision, code) in [
            ("-1", "VALIDATION_ERROR"),
            ("9007199254740992", "VALIDATION_ERROR"),
            ("1.5", "INVALID_REQUEST"),
            ("\"7\"", "INVALID_REQUEST"),
            ("[]", "INVALID_REQUEST"),
        ] {
            let answer = client.send(method, path, body(revision));
            let error = &answer.json()["error"];
            assert_eq!((answer.status, &error["code"]), (400, &json!(code)));
            assert_eq!(error["details"]["field"], "if_revision", "{revision}");
        }
        for header in ["If-Match: *\r\n", "If-None-Match: \"1\"\r\n"] {
            let both = client.send_with(header, method, path, body("7"));
            both.expect_error(400, "VALIDATION_ERROR", json!({"field": "if_revision"}));
            let one = client.send_with(header, method, path, body("null"));
            assert_eq!(one.status, 200);
        }
    }
    client.send("DELETE", "/kv/a", "").expect(200, "");
    let answer = client.send("PUT", one, r#"{"value":1,"if_revision":7}"#);
    expect_unmet(&answer, one, None);
    for revision in [0, 7] {
        let body = json!({"ttl": 1, "if_revision": revision}).to_string();
        let answer = client.send("POST", touch, body);
        answer.expect_error(404, "NOT_FOUND", json!({"key": "a"}));
    }
    let answer = client.send("PUT", one, r#"{"value":1,"if_revision":0}"#);
    answer.expect_json(r#"{"status":"ok"}"#);
}

#[test]
fn an_expired_key_is_not_there() {
    let directory = Directory::new();
    for server in [
        Server::start(&[]),
        Server::start(&["--working-dir", directory.path_str()]),
    ] {
        let mut client = server.connect();
        let put = client.send("PUT", "/api/v1/kv/a", r#"{"value":1,"ttl":1}"#);
        let tag = format!("If-Match: \"{}\"\r\n", revision(&put));
        wait_for("it to expire", || {
            (client.send("GET", "/kv/a", "").status == 404).then_some(())
        });
        let answer = client.send_with(&tag, "PUT", "/kv/a", "v");
        expect_unmet(&answer, "/kv/a", None);
        let answer = client.send_with(&tag, "DELETE", "/api/v1/kv/a", "");
        expect_unmet(&answer, "/api/v1/kv/a", None);
        let body =
            r#"{"operations":[{"op":"check","key":"a","if_revision":0},{"key":"b","value":1}]}"#;
        client
            .send("POST", "/api/v1/kv/bulk", body)
            .expect_data(json!({"a": "ok", "b": "ok"}));
        let answer = client.send_with("If-None-Match: *\r\n", "PUT", "/kv/a", "v");
        assert_eq!(answer.status, 200);
        client.send("GET", "/kv/a", "").expect(200, "v");
    }
}
