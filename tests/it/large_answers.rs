//! Large answers of the JSON API are made as they go out: clients that do not read cost little memory.

use serde_json::{Value, json};

use crate::crowd::never_reader;
use crate::process::Server;
use crate::usage::{Usage, expect_peak, forget_peak};

const READERS: usize = 100;

/// Of these the answers would take a hundred times more than is allowed.
const VALUE: usize = 10_000_000;
const MOST: u64 = 64 << 20;

/// Twice as long in JSON.
const CHARACTER: &str = "\"";

#[test]
fn a_hundred_clients_that_ask_for_a_large_value_cost_little() {
    expect_little(
        "GET /api/v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        |body| {
            check_value(&body["data"]["value"]);
        },
    );
}

#[test]
fn a_hundred_clients_that_ask_for_many_large_values_cost_little() {
    let keys = json!({"keys": ["a", "b", "c", "d"]}).to_string();
    let length = keys.len();
    let request = format!(
        "POST /api/v1/kv/bulk/get HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{keys}"
    );
    expect_little(&request, |body| {
        for key in ["a", "b", "c", "d"] {
            check_value(&body["data"][key]["value"]);
        }
    });
}

#[test]
fn a_hundred_clients_that_list_large_values_cost_little() {
    expect_little(
        "GET /api/v1/kv HTTP/1.1\r\nHost: localhost\r\n\r\n",
        |body| {
            let data = body["data"].as_object().unwrap();
            assert!(data.keys().eq(["a", "b", "c", "d"]));
            data.values().for_each(|entry| check_value(&entry["value"]));
        },
    );
}

/// Has many ask and not read, and looks what that takes. Then asks once more, and reads.
fn expect_little(request: &str, check: impl Fn(Value)) {
    let server = Server::start(&["--min-rate", "0"]);
    let mut client = server.connect();
    for key in ["a", "b", "c", "d"] {
        let value = CHARACTER.repeat(VALUE);
        client
            .send("PUT", &format!("/kv/{key}"), value)
            .expect(200, "");
    }
    let before = Usage::of(&server);
    forget_peak(&server);
    let readers: Vec<_> = (0..READERS)
        .map(|_| never_reader(server.address, request).unwrap())
        .collect();
    for reader in &readers {
        assert_eq!(reader.peek(&mut [0]).unwrap(), 1, "the answer is under way");
    }
    expect_peak(&server, &before, MOST);
    drop(readers);
    client.write(request);
    check(client.read("GET").json());
    expect_peak(&server, &before, MOST);
}

#[track_caller]
fn check_value(value: &Value) {
    assert!(value.as_str() == Some(&CHARACTER.repeat(VALUE)));
}
