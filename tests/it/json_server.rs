//! What the server tells about itself, while all is well and while it is not.

use std::net::TcpStream;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::directory::Directory;
use crate::process::{Server, wait_for};

/// Checks that this is now, as the seed writes it: `2025-01-20T12:00:00Z`.
#[track_caller]
fn expect_now(timestamp: &Value) {
    let text = timestamp.as_str().unwrap();
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00Z");
    let days = |time: &str| time.split('T').next().unwrap().to_owned();
    let now = SystemTime::now();
    let date = |time| days(&httpdate_to_iso(time));
    // The day is enough to tell the clock, and midnight may just go by.
    let yesterday = now - std::time::Duration::from_secs(60);
    assert!([date(now), date(yesterday)].contains(&days(text)), "{text}");
}

fn httpdate_to_iso(time: SystemTime) -> String {
    time::OffsetDateTime::from(time).date().to_string() + "T"
}

#[test]
fn health_tells_what_the_store_holds() {
    let server = Server::start(&[]);
    let mut health = server.get("/api/v1/health");
    assert_eq!(health.status, 200);
    for (keys, bytes) in [(0, 0), (2, 13), (3, 36), (1, 23), (0, 0)] {
        let mut body = health.json();
        expect_now(&body["timestamp"].take());
        let storage = json!({"size": keys, "memory": bytes});
        let cluster = json!({"status": "leader", "nodes": 1, "storage": storage});
        assert_eq!(
            body,
            json!({"status": "healthy", "timestamp": null, "cluster": cluster})
        );
        match keys {
            0 => {
                // Keys and values as text, as they are.
                server.put("/kv/abc", "4567").expect(200, "");
                let put = server.put("/api/v1/kv/d", r#"{"value":"\u00e9\n\ud83c\udf0d"}"#);
                assert_eq!(put.status, 200);
                server.put("/kv/d", "12345").expect(200, "");
            }
            2 => {
                let put = server.put("/api/v1/kv/json", r#"{"value": [1.0, {"a" : null}] }"#);
                assert_eq!(put.status, 200);
            }
            3 => {
                server.delete("/kv/abc").expect(200, "");
                server.delete("/kv/d").expect(200, "");
            }
            _ => server.delete("/clear").expect(200, ""),
        }
        health = server.get("/api/v1/health");
    }
    // In the order of the seed, and nothing else.
    let text = server.get("/api/v1/health").text().to_owned();
    let (start, end) = (
        r#"{"status":"healthy","timestamp":""#,
        r#"Z","cluster":{"status":"leader","nodes":1,"storage":{"size":2,"memory":13}}}"#,
    );
    assert!(text.starts_with(start) && text.ends_with(end), "{text}");
}

#[test]
fn status_tells_what_the_server_is_and_has_done() {
    let directory = Directory::new();
    let in_directory = ["--working-dir", directory.path_str(), "--workers", "5"];
    for (options, durability, workers) in [
        (&["--workers", "3"][..], "memory", 3),
        (&in_directory, "sync", 5),
        (
            &[&in_directory[..], &["--durability", "os"]].concat(),
            "os",
            5,
        ),
        (
            &[&in_directory[..], &["--durability=none"]].concat(),
            "none",
            5,
        ),
    ] {
        let server = Server::start(options);
        let (mut client, mut other) = (server.connect(), server.connect());
        client.send("PUT", "/kv/a", "12345").expect(200, "");
        client.send("GET", "/api/v1/kv", "");
        other.send("GET", "/api/v1/health", "");
        client.send("GET", "/nowhere", "");
        client.send("PUT", "/api/v1/kv/a", "{}");
        let answer = client.send("GET", "/api/v1/status", "");
        let mut data = answer.json()["data"].take();
        let limit = data["storage"]["limit"].clone();
        let revision = data["storage"]["revision"].clone();
        let oldest = data["storage"]["oldest_revision"].clone();
        assert!(limit.is_u64() && revision.as_u64() > oldest.as_u64());
        let uptime = data["uptime"].take().as_u64().unwrap();
        assert!(uptime < 60, "{uptime}");
        let system = rustix::system::uname();
        let node = format!("threadkv@{}", system.nodename().to_str().unwrap());
        assert_eq!(
            data,
            json!({
                "cluster": {"status": "leader", "nodes": 1},
                "storage": {
                    "size": 1, "memory": 6, "used": 96, "limit": limit,
                    "revision": revision, "oldest_revision": oldest,
                },
                "node": node,
                "version": env!("CARGO_PKG_VERSION"),
                "uptime": null,
                "durability": durability,
                "workers": workers,
                "connections": 2,
                "watchers": 0,
                "requests": {"2xx": 3, "3xx": 0, "4xx": 2, "5xx": 0},
            })
        );
        let requests = client.send("GET", "/api/v1/status", "").json()["data"]["requests"].take();
        assert_eq!(requests, json!({"2xx": 4, "3xx": 0, "4xx": 2, "5xx": 0}));
        client.send("DELETE", "/clear", "").expect(200, "");
    }
}

#[test]
fn when_the_disk_fails_writes_are_refused_and_reads_go_on() {
    let directory = Directory::new();
    let mut server = Server::start_in(&directory);
    server.put("/kv/a", "1").expect(200, "");
    server
        .put("/api/v1/kv/b", r#"{"value":{"b":2}}"#)
        .expect_json(r#"{"status":"ok"}"#);
    assert_eq!(server.get("/api/v1/health").status, 200);
    server.fail_disk();
    let mut client = server.connect();
    for (method, path, body) in [
        ("PUT", "/api/v1/kv/a", r#"{"value":2}"#),
        ("PUT", "/api/v1/kv/bulk", r#"{"value":2}"#),
        ("DELETE", "/api/v1/kv/a", ""),
        ("POST", "/api/v1/kv/a/touch", r#"{"ttl":60}"#),
        (
            "POST",
            "/api/v1/kv/bulk",
            r#"{"operations":[{"key":"c","value":1}]}"#,
        ),
        ("POST", "/api/v1/kv/bulk/delete", r#"{"keys":["a"]}"#),
        (
            "POST",
            "/api/v1/kv/bulk/touch",
            r#"{"operations":[{"key":"a","ttl":60}]}"#,
        ),
    ] {
        let answer = client.send(method, path, body);
        let message = answer.expect_error(503, "CLUSTER_UNAVAILABLE", Value::Null);
        assert_eq!(message, "the store cannot be written to");
        assert_eq!(answer.header("retry-after"), Some("5"), "{method} {path}");
    }
    client
        .send("PUT", "/kv/a", "2")
        .expect(503, "the store cannot be written to\n");
    // What is wrong with a request is wrong all the same.
    client
        .send("PUT", "/api/v1/kv/a%20b", r#"{"value":2}"#)
        .expect_error(400, "INVALID_KEY", Value::Null);
    server.wait_for_log("cannot write to");

    let data = json!({"a": {"value": "1"}, "b": {"value": {"b": 2}}});
    client
        .send("GET", "/api/v1/kv?with_ttl=true", "")
        .expect_data(data.clone());
    client
        .send("POST", "/api/v1/kv/bulk/get", r#"{"keys":["a"]}"#)
        .expect_data(json!({"a": {"status": "ok", "value": "1"}}));
    let health = client.send("GET", "/api/v1/health", "");
    assert_eq!(
        (health.status, health.header("retry-after")),
        (503, Some("5"))
    );
    let mut health = health.json();
    expect_now(&health["timestamp"].take());
    let storage = json!({"size": 2, "memory": 10});
    let cluster = json!({"status": "leader", "nodes": 1, "storage": storage});
    assert_eq!(
        health,
        json!({
            "status": "unhealthy", "timestamp": null, "cluster": cluster,
            "problem": "the disk does not take writes, it may be full",
        })
    );
    let status = client.send("GET", "/api/v1/status", "");
    assert_eq!(status.status, 200);
    // Seven of the JSON API, one of the plain one, one for the health.
    assert_eq!(status.json()["data"]["requests"]["5xx"], 9);
    server.kill();
    // On a disk that works, all that was answered is there, and nothing else.
    let server = Server::start_in(&directory);
    server.get("/api/v1/kv").expect_data(data);
    assert_eq!(server.get("/api/v1/health").status, 200);
    server.put("/kv/a", "2").expect(200, "");
}

#[test]
fn a_server_that_is_stopping_says_that_it_is_not_healthy() {
    let mut server = Server::start(&[]);
    let mut client = server.connect();
    // The body is what keeps the request under way.
    client.write("GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n");
    client.write("x".repeat(1000));
    // So that it has come in before the signal does: requests are let in in the order of their connections.
    assert_eq!(server.get("/api/v1/health").status, 200);
    server.signal("-TERM");
    // That newcomers are refused is what shows that it is stopping.
    wait_for("the server to stop listening", || {
        TcpStream::connect(server.address).err()
    });
    client.write("x".repeat(1000));
    let answer = client.read("GET");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["status"], "unhealthy");
    assert_eq!(server.wait().0.code(), Some(0));
}
