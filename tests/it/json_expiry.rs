//! An expired key is gone at once, for every reader of both APIs; until then it is there.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::directory::Directory;
use crate::json::expect_ttl;
use crate::process::{Server, wait_for};

const OK: &str = r#"{"status":"ok"}"#;

/// The clock of expiries counts milliseconds, and so cuts off parts of them at both ends.
pub const TICK: Duration = Duration::from_millis(5);

fn ttl_of(server: &Server, key: &str) -> Value {
    server.get(&format!("/api/v1/kv/{key}/ttl")).json()["data"]["ttl"].take()
}

#[test]
fn a_key_is_there_for_as_long_as_it_was_told_and_no_longer() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let asked = Instant::now();
    client
        .send("PUT", "/api/v1/kv/a", r#"{"value":"v","ttl":1}"#)
        .expect_json(OK);
    let answered = Instant::now();
    for path in ["/kv/a", "/api/v1/kv/a", "/api/v1/kv/a/ttl"].iter().cycle() {
        let sent = Instant::now();
        let answer = client.send("GET", path, "");
        if answer.status == 404 {
            assert!(asked.elapsed() > Duration::from_secs(1) - TICK, "too early");
            break;
        }
        assert_eq!(answer.status, 200);
        assert!(sent < answered + Duration::from_secs(1) + TICK, "too late");
        if path.ends_with("ttl") {
            // Rounded up.
            answer.expect_data(json!({"ttl": 1}));
        }
    }
}

#[test]
fn an_expired_key_is_gone_from_every_endpoint_at_once_in_memory() {
    an_expired_key_is_gone_from_every_endpoint_at_once(&Server::start(&[]));
}

#[test]
fn an_expired_key_is_gone_from_every_endpoint_at_once_on_disk() {
    let directory = Directory::new();
    let server = Server::start(&["--working-dir", directory.path_str()]);
    an_expired_key_is_gone_from_every_endpoint_at_once(&server);
}

/// Keys expire together while nothing has swept them up yet, so each way to ask has keys of its own.
fn an_expired_key_is_gone_from_every_endpoint_at_once(server: &Server) {
    server
        .put("/api/v1/kv/kept", r#"{"value":1}"#)
        .expect_json(OK);
    let before = server.get("/api/v1/health").json()["cluster"]["storage"].take();
    let names =
        "plain json head ttl touch delete many1 many2 many3 many4 many5 touched dropped last";
    let item = |key| json!({"key": key, "value": "v".repeat(1000), "ttl": 1});
    let items: Vec<Value> = names.split(' ').map(item).collect();
    let body = json!({"operations": items}).to_string();
    let mut client = server.connect();
    // As often as it takes for all of it to happen before they expire.
    wait_for("a quick second", || {
        let since = Instant::now();
        let put = client.send("POST", "/api/v1/kv/bulk", &body);
        assert_eq!(put.status, 200);
        let saved = [
            client.send("POST", "/api/v1/kv/touched/touch", r#"{"ttl":60}"#),
            client.send("PUT", "/kv/dropped", "v"),
        ];
        let storage = client.send("GET", "/api/v1/health", "").json()["cluster"]["storage"].take();
        let quick = since.elapsed() < Duration::from_secs(1) - TICK;
        quick.then(|| {
            assert_eq!(saved.map(|answer| answer.status), [200, 200]);
            assert_eq!(storage["size"], 15);
            assert!(storage["memory"].as_u64() > Some(13_000));
        })
    });
    wait_for("the last of them to expire", || {
        (client.send("GET", "/kv/last", "").status == 404).then_some(())
    });
    // But not those whose expiry was lengthened or taken away.
    let value = "v".repeat(1000);
    client.send("GET", "/api/v1/kv", "").expect_data(
        json!({"kept": {"value": 1}, "touched": {"value": value}, "dropped": {"value": "v"}}),
    );
    client
        .send("GET", "/api/v1/kv?prefix=many&limit=1&with_ttl=true", "")
        .expect_json(r#"{"status":"ok","data":{}}"#);
    let health = client.send("GET", "/api/v1/health", "").json();
    assert_eq!(health["cluster"]["storage"]["size"], 3);
    let status = client.send("GET", "/api/v1/status", "").json();
    assert_eq!(status["data"]["storage"]["size"], 3);
    client
        .send("GET", "/kv/plain", "")
        .expect(404, "key not found\n");
    client
        .send("GET", "/api/v1/kv/json?with_ttl=true", "")
        .expect_error(404, "NOT_FOUND", json!({"key": "json"}));
    assert_eq!(client.send("HEAD", "/kv/head", "").status, 404);
    client.send("GET", "/api/v1/kv/ttl/ttl", "").expect_error(
        404,
        "NOT_FOUND",
        json!({"key": "ttl"}),
    );
    client
        .send("POST", "/api/v1/kv/touch/touch", r#"{"ttl":60}"#)
        .expect_error(404, "NOT_FOUND", json!({"key": "touch"}));
    let missing = || json!({"status": "error", "error": "not_found"});
    client
        .send(
            "POST",
            "/api/v1/kv/bulk/get",
            r#"{"keys":["many1","kept"]}"#,
        )
        .expect_data(json!({"many1": missing(), "kept": {"status": "ok", "value": 1}}));
    client
        .send(
            "POST",
            "/api/v1/kv/bulk/touch",
            r#"{"operations":[{"key":"many2","ttl":9}]}"#,
        )
        .expect_data(json!({"many2": missing()}));
    client
        .send("POST", "/api/v1/kv/bulk/delete", r#"{"keys":["many3"]}"#)
        .expect_data(json!({"many3": missing()}));
    client
        .send("DELETE", "/api/v1/kv/delete", "")
        .expect_json(OK);
    client.send("DELETE", "/kv/many4", "").expect(200, "");
    // What is put under its name is a new key.
    client
        .send("PUT", "/api/v1/kv/many5", r#"{"value":2}"#)
        .expect_json(OK);
    client
        .send("GET", "/api/v1/kv/many5/ttl", "")
        .expect_data(json!({"ttl": null}));
    client.send("DELETE", "/kv/many5", "").expect(200, "");
    client.send("DELETE", "/kv/touched", "").expect(200, "");
    client.send("DELETE", "/kv/dropped", "").expect(200, "");
    // And the space they took comes back.
    wait_for("their memory", || {
        let health = server.get("/api/v1/health").json();
        (health["cluster"]["storage"] == before).then_some(())
    });
}

#[test]
fn a_put_without_ttl_takes_the_expiry_away() {
    let server = Server::start(&[]);
    type Put = fn(&Server);
    let puts: [Put; 6] = [
        |server| server.put("/kv/a", "2").expect(200, ""),
        |server| {
            server
                .put("/api/v1/kv/a", r#"{"value":"2"}"#)
                .expect_json(OK)
        },
        |server| {
            server
                .put("/api/v1/kv/a", r#"{"value":"2","ttl":null}"#)
                .expect_json(OK)
        },
        |server| {
            server
                .post(
                    "/api/v1/kv/bulk",
                    r#"{"operations":[{"key":"a","value":"2"}]}"#,
                )
                .expect_data(json!({"a": "ok"}))
        },
        |server| {
            let body = r#"{"operations":[{"key":"a","value":"2","ttl":null}]}"#;
            server
                .post("/api/v1/kv/bulk", body)
                .expect_data(json!({"a": "ok"}));
        },
        |server| {
            server.delete("/kv/a").expect(200, "");
            server.put("/kv/a", "2").expect(200, "");
        },
    ];
    for put in puts {
        let since = Instant::now();
        server
            .put("/api/v1/kv/a", r#"{"value":"1","ttl":100}"#)
            .expect_json(OK);
        expect_ttl(&ttl_of(&server, "a"), 100, since);
        put(&server);
        server
            .get("/api/v1/kv/a/ttl")
            .expect_json(r#"{"status":"ok","data":{"ttl":null}}"#);
        server
            .get("/api/v1/kv/a?with_ttl=true")
            .expect_json(r#"{"status":"ok","data":{"value":"2"}}"#);
    }
}

#[test]
fn a_touch_counts_from_now_and_leaves_the_value() {
    let server = Server::start(&[]);
    server.put("/kv/a", "v").expect(200, "");
    // Given, lengthened, shortened.
    for ttl in [3600, 7200, 60, 3_153_600_000, 1000] {
        let since = Instant::now();
        server
            .post("/api/v1/kv/a/touch", json!({"ttl": ttl}).to_string())
            .expect_json(OK);
        expect_ttl(&ttl_of(&server, "a"), ttl, since);
        server.get("/kv/a").expect(200, "v");
    }
}

#[test]
fn a_ttl_is_told_only_if_asked_for_and_only_of_keys_that_expire() {
    let server = Server::start(&[]);
    let since = Instant::now();
    let put = r#"{"operations":[{"key":"a","value":1},{"key":"b","value":2,"ttl":5000}]}"#;
    server
        .post("/api/v1/kv/bulk", put)
        .expect_data(json!({"a": "ok", "b": "ok"}));
    let ok = |mut entry: Value| {
        entry["status"] = json!("ok");
        entry
    };
    for with_ttl in [None, Some(false), Some(true)] {
        let query = with_ttl.map_or(String::new(), |asked| format!("?with_ttl={asked}"));
        let (a, mut b) = (json!({"value": 1}), json!({"value": 2}));
        let ttl = expect_ttl(&ttl_of(&server, "b"), 5000, since);
        if with_ttl == Some(true) {
            b["ttl"] = json!(ttl);
        }
        // Should a second go by just now, it is read again.
        let same = wait_for("a second without end", || {
            let list = server.get(&format!("/api/v1/kv{query}"));
            let keys = json!({"keys": ["a", "b"], "with_ttl": with_ttl}).to_string();
            let bulk = server.post("/api/v1/kv/bulk/get", keys);
            let one = server.get(&format!("/api/v1/kv/b{query}"));
            let now = ttl_of(&server, "b");
            if with_ttl == Some(true) && now != b["ttl"] {
                b["ttl"] = now;
                return None;
            }
            Some((list, bulk, one))
        });
        let (list, bulk, one) = same;
        list.expect_data(json!({"a": a, "b": b}));
        bulk.expect_data(json!({"a": ok(a), "b": ok(b.clone())}));
        one.expect_data(b);
    }
}

#[test]
fn an_expiry_survives_a_restart_and_a_crash() {
    let directory = Directory::new();
    let options = ["--working-dir", directory.path_str()];
    let mut server = Server::start(&options);
    let since = Instant::now();
    let items = json!([
        {"key": "hour", "value": "v", "ttl": 3600},
        {"key": "forever", "value": "v"},
        {"key": "dropped", "value": "v", "ttl": 3600},
        {"key": "touched", "value": 1.5},
        {"key": "second", "value": "v", "ttl": 1},
    ]);
    let body = json!({"operations": items}).to_string();
    assert_eq!(server.post("/api/v1/kv/bulk", body).status, 200);
    let until = Instant::now() + Duration::from_secs(1) + TICK;
    server
        .put("/api/v1/kv/dropped", r#"{"value":"v"}"#)
        .expect_json(OK);
    server
        .post("/api/v1/kv/touched/touch", r#"{"ttl":7200}"#)
        .expect_json(OK);
    server.kill();
    let mut server = Server::start(&options);
    for restarts in 0..2 {
        expect_ttl(&ttl_of(&server, "hour"), 3600, since);
        expect_ttl(&ttl_of(&server, "touched"), 7200, since);
        assert_eq!(ttl_of(&server, "forever"), Value::Null);
        assert_eq!(ttl_of(&server, "dropped"), Value::Null);
        // It goes on where it was: the second is not one from the start.
        wait_for("the second to expire", || {
            let sent = Instant::now();
            let gone = server.get("/kv/second").status == 404;
            assert!(gone || sent < until && restarts == 0, "too late");
            gone.then_some(())
        });
        let health = server.get("/api/v1/health").json();
        assert_eq!(health["cluster"]["storage"]["size"], 4);
        server.signal("-TERM");
        assert_eq!(server.wait().0.code(), Some(0));
        server = Server::start(&options);
    }
}

#[test]
fn what_expires_while_the_server_is_down_does_not_come_back() {
    let directory = Directory::new();
    let options = ["--working-dir", directory.path_str()];
    let mut server = Server::start(&options);
    server.put("/kv/kept", "v").expect(200, "");
    server
        .put("/api/v1/kv/a", r#"{"value":"v","ttl":1}"#)
        .expect_json(OK);
    let until = Instant::now() + Duration::from_secs(1) + TICK;
    server.kill();
    wait_for("its time to come", || {
        (Instant::now() > until).then_some(())
    });
    let server = Server::start(&options);
    server.get("/kv/a").expect(404, "key not found\n");
    server
        .get("/api/v1/kv")
        .expect_json(r#"{"status":"ok","data":{"kept":{"value":"v"}}}"#);
}

#[test]
fn a_ttl_is_a_whole_number_of_seconds_from_1_to_a_hundred_years() {
    let server = Server::start(&[]);
    server.put("/kv/a", "v").expect(200, "");
    let asks = |ttl: &str| {
        let put = format!(r#"{{"value":"v","ttl":{ttl}}}"#);
        let touch = format!(r#"{{"ttl":{ttl}}}"#);
        let items = format!(r#"{{"operations":[{{"key":"a","value":"v","ttl":{ttl}}}]}}"#);
        [
            ("ttl", server.put("/api/v1/kv/a", put)),
            ("ttl", server.post("/api/v1/kv/a/touch", touch)),
            ("operations[0].ttl", server.post("/api/v1/kv/bulk", &items)),
            (
                "operations[0].ttl",
                server.post("/api/v1/kv/bulk/touch", &items),
            ),
        ]
    };
    for (ttl, seconds) in [
        ("3600.0", 3600),
        ("36e2", 3600),
        ("3153600000", 3_153_600_000),
    ] {
        let since = Instant::now();
        for (_, answer) in asks(ttl) {
            assert_eq!(answer.status, 200, "{ttl}");
        }
        expect_ttl(&ttl_of(&server, "a"), seconds, since);
    }
    server.put("/kv/a", "v").expect(200, "");
    for ttl in [
        "0",
        "-0",
        "-1",
        "-3600",
        "3153600001",
        "9223372036854775807",
        "18446744073709551616",
        "1e300",
    ] {
        let value: Value = serde_json::from_str(ttl).unwrap();
        for (field, answer) in asks(ttl) {
            let details = json!({"field": field, "limit": 3_153_600_000_u64, "value": value});
            answer.expect_error(400, "VALIDATION_ERROR", details);
        }
    }
    for ttl in [
        "1.5", "0.5", "\"60\"", "\"\"", "true", "false", "[60]", "{}", "\"inf\"", "\"NaN\"",
    ] {
        for (field, answer) in asks(ttl) {
            answer.expect_error(400, "INVALID_REQUEST", json!({"field": field}));
        }
    }
    // A touch without a time says nothing.
    for (path, body) in [
        ("/api/v1/kv/a/touch", "{}"),
        ("/api/v1/kv/bulk/touch", r#"{"operations":[{"key":"a"}]}"#),
    ] {
        let answer = server.post(path, body);
        assert_eq!(answer.json()["error"]["code"], "INVALID_REQUEST", "{body}");
        assert_eq!(answer.status, 400, "{body}");
    }
    assert_eq!(ttl_of(&server, "a"), Value::Null);
}
