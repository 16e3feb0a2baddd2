//! `--max-memory`: a write that would make the data grow past it is refused and changes nothing; everything else goes on.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::client::Response;
use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::usage::Usage;

const OK: &str = r#"{"status":"ok"}"#;

/// Leaves 7 MiB for data.
const LIMIT: &str = "8MiB";
const FOR_DATA: u64 = 7 << 20;

/// Fits some seventy times.
const VALUE: usize = 100_000;

/// How the data takes memory, as the server says.
fn used(server: &Server) -> u64 {
    let storage = server.get("/api/v1/status").json()["data"]["storage"].take();
    assert_eq!(storage["limit"], FOR_DATA);
    storage["used"].as_u64().unwrap()
}

/// Puts keys of that name until the store is full. Returns how many there are.
fn fill(server: &Server, name: &str) -> usize {
    let (mut client, mut n) = (server.connect(), 0);
    loop {
        let put = client.send("PUT", &format!("/kv/{name}:{n}"), "v".repeat(VALUE));
        match put.status {
            200 => n += 1,
            // The bodies of others leave no room for this one now.
            503 => client = server.connect(),
            _ => {
                put.expect(507, "store is full\n");
                return n;
            }
        }
    }
}

#[track_caller]
fn expect_full(answer: &Response, server: &Server) {
    let details = json!({"limit": FOR_DATA, "used": used(server)});
    answer.expect_error(507, "STORE_FULL", details);
}

/// In memory, and with each durability.
fn each_mode(test: impl Fn(&Server)) {
    test(&Server::start(&["--max-memory", LIMIT]));
    for durability in ["sync", "os", "none"] {
        let directory = Directory::new();
        let options = ["--working-dir", directory.path_str()];
        let more = ["--durability", durability, "--max-memory", LIMIT];
        test(&Server::start(&[&options[..], &more].concat()));
    }
}

#[test]
fn a_full_store_takes_everything_that_does_not_grow() {
    each_mode(|server| {
        let mut client = server.connect();
        let keys = fill(server, "a");
        assert!((60..=75).contains(&keys), "{keys}");
        let before = used(server);
        assert!(before <= FOR_DATA && before + VALUE as u64 > FOR_DATA - 1000);

        // Refused, and nothing has changed.
        let refused = format!("/kv/a:{keys}");
        client
            .send("GET", &refused, "")
            .expect(404, "key not found\n");
        let large = json!({"value": "v".repeat(VALUE)}).to_string();
        expect_full(&client.send("PUT", "/api/v1/kv/b", &large), server);
        expect_full(
            &client.send(
                "PUT",
                "/api/v1/kv/a:0",
                json!({"value": "v".repeat(2 * VALUE)}).to_string(),
            ),
            server,
        );
        assert_eq!(client.send("GET", "/kv/a:0", "").body.len(), VALUE);
        assert_eq!(used(server), before);

        // These do not grow.
        client
            .send("PUT", "/kv/a:1", "w".repeat(VALUE))
            .expect(200, "");
        assert_eq!(client.send("GET", "/kv/a:1", "").body[0], b'w');
        client.send("PUT", "/kv/a:2", "w").expect(200, "");
        client
            .send("PUT", "/kv/a:2", "w".repeat(VALUE))
            .expect(200, "");
        let touch = client.send("POST", "/api/v1/kv/a:3/touch", r#"{"ttl":60}"#);
        touch.expect_json(OK);
        let put = json!({"value": "w".repeat(VALUE), "ttl": 60}).to_string();
        client.send("PUT", "/api/v1/kv/a:4", put).expect_json(OK);
        client.send("DELETE", "/kv/missing", "").expect(200, "");
        assert_eq!(client.send("GET", "/api/v1/health", "").status, 200);

        // And what makes room makes room.
        client.send("DELETE", "/kv/a:5", "").expect(200, "");
        client
            .send("PUT", &refused, "v".repeat(VALUE))
            .expect(200, "");
        expect_full(&client.send("PUT", "/api/v1/kv/b", &large), server);
        client.send("DELETE", "/clear", "").expect(200, "");
        assert_eq!(used(server), 0);
        assert_eq!(fill(server, "b"), keys);
    });
}

#[test]
fn a_bulk_fits_whole_or_changes_nothing() {
    each_mode(|server| {
        let mut client = server.connect();
        let keys = fill(server, "a");
        let mut bulk = |path: &str, body: Value| client.send("POST", path, body.to_string());
        let put = |key: &str| json!({"key": key, "value": "v".repeat(VALUE)});
        let two = json!({"operations": [put("x"), put("y"), {"key": "a:0", "value": 1}]});
        let full = bulk("/api/v1/kv/bulk", two.clone());
        expect_full(&full, server);
        assert_eq!(server.get("/kv/a:0").body.len(), VALUE);
        let rest = bulk("/api/v1/kv/bulk/get", json!({"keys": ["x", "y"]})).json();
        assert_eq!(rest["data"]["x"]["error"], "not_found");

        let one = bulk("/api/v1/kv/bulk/delete", json!({"keys": ["a:1"]}));
        one.expect_data(json!({"a:1": "ok"}));
        // Only together with what it makes smaller, and of a repeated key the last value counts.
        bulk("/api/v1/kv/bulk", two).expect_data(json!({"x": "ok", "y": "ok", "a:0": "ok"}));
        let again = json!({"operations": [put("z"), {"key": "z", "value": 1}]});
        bulk("/api/v1/kv/bulk", again).expect_data(json!({"z": "ok"}));
        expect_full(
            &bulk("/api/v1/kv/bulk", json!({"operations": [put("z")]})),
            server,
        );
        let touch = json!({"operations": [{"key": "x", "ttl": 60}]});
        bulk("/api/v1/kv/bulk/touch", touch).expect_data(json!({"x": "ok"}));
        assert_eq!(
            server.get("/api/v1/health").json()["cluster"]["storage"]["size"],
            keys + 2
        );
    });
}

#[test]
fn writers_that_race_never_get_past_the_limit() {
    each_mode(|server| {
        let (taken, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|n| {
                    let taken = &taken;
                    scope.spawn(move || {
                        taken.fetch_add(fill(server, &n.to_string()), Ordering::Relaxed)
                    })
                })
                .collect();
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(used(server) <= FOR_DATA);
                }
            });
            let ended: Vec<_> = writers.into_iter().map(|it| it.join()).collect();
            over.store(true, Ordering::Relaxed);
            assert!(ended.iter().all(Result::is_ok));
        });
        let size = server.get("/api/v1/health").json()["cluster"]["storage"]["size"].take();
        assert_eq!(size, taken.into_inner());
        let used = used(server);
        assert!(
            used <= FOR_DATA && used + VALUE as u64 > FOR_DATA - 1000,
            "{used}"
        );
    });
}

#[test]
fn a_directory_that_holds_more_opens_and_takes_what_does_not_grow() {
    let directory = Directory::new();
    let options = ["--working-dir", directory.path_str(), "--max-memory"];
    let mut server = Server::start(&[&options[..], &["64MiB"]].concat());
    let mut client = server.connect();
    for n in 0..100 {
        client
            .send("PUT", &format!("/kv/a:{n}"), "v".repeat(VALUE))
            .expect(200, "");
    }
    server.signal("-TERM");
    assert!(server.wait().0.success());

    let server = Server::start(&[&options[..], &[LIMIT]].concat());
    assert!(server.has_seen("[WARN] the data in "));
    assert!(used(&server) > 10_000_000);
    let mut client = server.connect();
    client
        .send("PUT", "/kv/small", "v")
        .expect(507, "store is full\n");
    client
        .send("PUT", "/kv/a:0", "w".repeat(VALUE))
        .expect(200, "");
    for n in 0..40 {
        client
            .send("DELETE", &format!("/kv/a:{n}"), "")
            .expect(200, "");
    }
    client.send("PUT", "/kv/small", "v").expect(200, "");
}

#[test]
fn keys_that_have_expired_make_room() {
    let server = Server::start(&["--max-memory", LIMIT]);
    let mut client = server.connect();
    let body = json!({"value": "v".repeat(VALUE), "ttl": 1}).to_string();
    // Three times as many as there is room for. They expire a second after they came.
    for n in 0..200 {
        let path = format!("/api/v1/kv/{n}");
        wait_for("room", || {
            let put = client.send("PUT", &path, &body);
            (put.status == 200).then_some(())
        });
    }
}

#[test]
fn how_much_memory_there_is_shows_at_start() {
    let server = Server::start(&["--max-memory", LIMIT]);
    assert!(server.has_seen("memory: 8 MiB, as --max-memory says; 7 MiB of it for data"));
    let server = Server::start(&[]);
    assert!(server.has_seen("MiB, three quarters of "));
    let limits = server.get("/api/v1/status").json()["data"]["storage"].take();
    assert!(limits["limit"].as_u64() > Some(1 << 20));
}

#[test]
fn a_process_that_may_not_have_much_memory_refuses_before_it_runs_out() {
    // Of the address space, and of what can be written to.
    for limit in ["-v", "-d"] {
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"ulimit "$1" 400000; shift; exec "$0" "$@""#])
            .args([env!("CARGO_BIN_EXE_threadkv"), limit, "--port", "0"]);
        expect_refusal_in_time(&Server::spawn(command));
    }
}

fn expect_refusal_in_time(server: &Server) {
    assert!(server.has_seen("three quarters of its own limit"));
    let mut client = server.connect();
    let large = "v".repeat(10_000_000);
    for _ in 0..2 {
        let keys = (0..).find(|n| {
            let put = client.send("PUT", &format!("/kv/{n}"), &large);
            put.status == 507
        });
        assert!((20..30).contains(&keys.unwrap()), "{keys:?}");
        client.send("PUT", "/kv/0", &large).expect(200, "");
        assert_eq!(client.send("GET", "/kv/0", "").body.len(), large.len());
        client.send("DELETE", "/clear", "").expect(200, "");
        // A thread of its own gives it back.
        wait_for("the memory to be given back", || {
            (Usage::of(server).memory < 100_000_000).then_some(())
        });
    }
}
