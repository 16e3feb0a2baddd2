//! Revisions: which number an entry has, where it is told, and that none is given twice.

use serde_json::{Value, json};

use crate::client::{Client, Response};
use crate::conditions::BOTH;
use crate::directory::Directory;
use crate::process::Server;

/// The revision in the tag of an answer.
#[track_caller]
pub fn revision(answer: &Response) -> u64 {
    let tag = answer.header("etag").expect("an ETag");
    let number = tag.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    number.expect("quotes").parse().expect("a revision")
}

/// Puts a value, and returns its revision.
pub fn put(client: &mut Client) -> u64 {
    revision(&client.send("PUT", "/kv/a", "v"))
}

#[test]
fn reads_and_puts_tell_the_revision() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut last = 0;
    for (path, body) in BOTH {
        let put = client.send("PUT", path, body);
        assert_eq!(put.status, 200);
        let now = revision(&put);
        assert!(now > last && now < 1 << 53);
        last = now;
        for (path, _) in BOTH {
            for method in ["GET", "HEAD"] {
                let read = client.send(method, path, "");
                assert_eq!((read.status, revision(&read)), (200, now));
                let header = format!("If-None-Match: \"{now}\"\r\n");
                let read = client.send_with(&header, method, path, "");
                assert_eq!((read.status, revision(&read)), (304, now));
                assert!(read.body.is_empty());
                for name in ["content-length", "content-type", "transfer-encoding"] {
                    assert_eq!(read.header(name), None, "{name}");
                }
            }
        }
    }
    // A large value is streamed, and tagged all the same.
    let value = json!({"value": "v".repeat(100_000)}).to_string();
    let put = client.send("PUT", "/api/v1/kv/a", value);
    let read = client.send("GET", "/api/v1/kv/a", "");
    assert_eq!(read.header("transfer-encoding"), Some("chunked"));
    assert_eq!(revision(&read), revision(&put));
    // A touch writes the entry, so what is read afterwards is not what was read before.
    let touch = client.send("POST", "/api/v1/kv/a/touch", r#"{"ttl":60}"#);
    assert_eq!(touch.header("etag"), None);
    assert!(revision(&client.send("GET", "/kv/a", "")) > revision(&put));
    for (method, path) in [
        ("DELETE", "/kv/a"),
        ("GET", "/kv/a"),
        ("DELETE", "/api/v1/kv/a"),
        ("GET", "/api/v1/kv/a"),
        ("GET", "/api/v1/kv"),
    ] {
        assert_eq!(client.send(method, path, "").header("etag"), None);
    }
}

#[test]
fn revisions_are_told_where_they_are_asked_for() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let state = |client: &mut Client| {
        let status = client.send("GET", "/api/v1/status", "").json();
        status["data"]["storage"]["revision"].as_u64().unwrap()
    };
    let before = state(&mut client);
    let put = client.send("PUT", "/api/v1/kv/a?with_revision=1", r#"{"value":1}"#);
    let a = revision(&put);
    assert!(a > before);
    put.expect_json(&format!(r#"{{"status":"ok","revision":{a}}}"#));
    assert_eq!(state(&mut client), a);
    let b = revision(&client.send("PUT", "/kv/b", "v"));
    let mut expect = |method, path, body: &str, expected: Value| {
        let answer = client.send(method, path, body);
        assert_eq!((answer.status, answer.json()), (200, expected), "{path}");
    };
    let get = "/api/v1/kv/a?with_revision=true";
    let data = json!({"value": 1, "revision": a});
    expect(
        "GET",
        get,
        "",
        json!({"status": "ok", "data": data, "revision": b}),
    );
    let both = json!({"a": {"value": 1, "revision": a}, "b": {"value": "v", "revision": b}});
    let list = "/api/v1/kv?with_revision=true";
    expect(
        "GET",
        list,
        "",
        json!({"status": "ok", "data": both, "revision": b}),
    );
    let found = json!({
        "a": {"status": "ok", "value": 1, "revision": a},
        "x": {"status": "error", "error": "not_found"},
    });
    let keys = r#"{"keys":["a","x"],"with_revision":true}"#;
    let found = json!({"status": "ok", "data": found, "revision": b});
    expect("POST", "/api/v1/kv/bulk/get", keys, found);
    // What changes nothing tells the revision of the state.
    let nothing = json!({"status": "ok", "revision": b});
    expect("DELETE", "/api/v1/kv/x?with_revision=true", "", nothing);
    let missing = json!({"x": {"status": "error", "error": "not_found"}});
    let nothing = json!({"status": "ok", "data": missing, "revision": b});
    let keys = r#"{"keys":["x"],"with_revision":true}"#;
    expect("POST", "/api/v1/kv/bulk/delete", keys, nothing);
    let nothing = json!({"status": "ok", "data": {"deleted": 0}, "revision": b});
    expect(
        "DELETE",
        "/api/v1/kv?prefix=x&with_revision=true",
        "",
        nothing,
    );
    // All that one request changes has one revision.
    let body = r#"{"operations":[{"key":"a","value":2},{"key":"c","value":3},{"op":"touch","key":"b","ttl":60}],"with_revision":true}"#;
    let bulk = client.send("POST", "/api/v1/kv/bulk", body).json();
    let now = bulk["revision"].as_u64().unwrap();
    assert!(now > b);
    let listed = client.send("GET", list, "").json();
    assert_eq!(listed["revision"], now);
    for key in ["a", "b", "c"] {
        assert_eq!(listed["data"][key]["revision"], now, "{key}");
    }
    for (method, path, body) in [
        (
            "POST",
            "/api/v1/kv/a/touch",
            r#"{"ttl":9,"with_revision":true}"#,
        ),
        ("DELETE", "/api/v1/kv/a?with_revision=true", ""),
        ("DELETE", "/api/v1/kv?prefix=b&with_revision=true", ""),
    ] {
        let before = state(&mut client);
        let answer = client.send(method, path, body).json();
        assert!(answer["revision"].as_u64() > Some(before), "{path}");
        assert_eq!(answer["revision"], state(&mut client), "{path}");
    }
}

/// Also by a store that is started again, killed or not, on disk or in memory.
#[test]
fn no_revision_comes_twice() {
    let directory = Directory::new();
    let options = ["--working-dir", directory.path_str()];
    let mut last = 0;
    for round in 0..4 {
        let mut server = Server::start(&options);
        let mut client = server.connect();
        if round > 0 {
            let kept = revision(&client.send("GET", "/kv/a", ""));
            assert_eq!(kept, last);
        }
        let now = put(&mut client);
        assert!(now > last);
        client.send("DELETE", "/clear", "").expect(200, "");
        last = put(&mut client);
        assert!(last > now);
        if round % 2 == 0 {
            server.kill();
        } else {
            server.signal("-TERM");
            assert!(server.wait().0.success());
        }
    }
    for _ in 0..2 {
        let now = put(&mut Server::start(&[]).connect());
        assert!(now > last);
        last = now;
    }
}
