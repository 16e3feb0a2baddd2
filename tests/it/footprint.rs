//! What the server says that the data takes (`storage.used`) is what its memory grows by.

use serde_json::json;

use crate::faults::Random;
use crate::process::{Server, wait_for};
use crate::usage::Usage;

/// So many that what the allocator keeps for itself is little beside them.
const KEYS: usize = 400_000;
const AT_ONCE: usize = 2000;

#[test]
fn small_entries_take_what_the_server_says() {
    expect_growth(1, None);
}

#[test]
fn entries_that_expire_take_what_the_server_says() {
    expect_growth(1, Some(3600));
}

#[test]
fn entries_of_a_usual_size_take_what_the_server_says() {
    expect_growth(100, None);
}

fn expect_growth(value_bytes: usize, ttl: Option<u64>) {
    // What is kept for watchers is not data.
    let server = Server::start(&["--max-batch", "10000", "--history", "0"]);
    let mut client = server.connect();
    let mut random = Random::new(value_bytes as u64);
    let before = Usage::of(&server).memory;
    for _ in 0..KEYS / AT_ONCE {
        let mut item = || {
            let (key, value) = (format!("{:016x}", random.next()), "v".repeat(value_bytes));
            json!({"key": key, "value": value, "ttl": ttl})
        };
        let items: Vec<_> = (0..AT_ONCE).map(|_| item()).collect();
        let body = json!({"operations": items}).to_string();
        assert_eq!(client.send("POST", "/api/v1/kv/bulk", body).status, 200);
    }
    let storage = server.get("/api/v1/status").json()["data"]["storage"].take();
    assert_eq!(storage["size"], KEYS);
    let used = storage["used"].as_f64().unwrap();
    // What the bodies took goes back to the system after a while.
    wait_for("memory to be what the server says", || {
        let grown = (Usage::of(&server).memory - before) as f64;
        (0.85..1.15).contains(&(used / grown)).then_some(())
    });
}
