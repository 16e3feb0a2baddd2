//! Bodies that are huge or made to harm: each gets its error, and the server goes on.

use serde_json::{Value, json};

use crate::json_bodies::{VALID, expect_unharmed, start};
use crate::process::Server;

#[test]
fn a_value_is_nested_at_most_128_deep() {
    let (server, mut client) = start();
    let lists = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let mixed = |depth: usize| {
        let (open, close): (Vec<_>, Vec<_>) = [("[", "]"), (r#"{"[":"#, "}")]
            .into_iter()
            .cycle()
            .take(depth)
            .unzip();
        let close: String = close.into_iter().rev().collect();
        format!("{}1{close}", open.concat())
    };
    for nested in [lists, objects, mixed] {
        for depth in [127, 128] {
            let value = nested(depth);
            client
                .send("PUT", "/api/v1/kv/b", format!(r#"{{"value":{value}}}"#))
                .expect_json(r#"{"status":"ok"}"#);
            client.send("GET", "/api/v1/kv/b", "").expect(
                200,
                &format!(r#"{{"status":"ok","data":{{"value":{value}}}}}"#),
            );
        }
        for depth in [129, 130, 1000, 100_000] {
            let value = nested(depth);
            client
                .send("PUT", "/api/v1/kv/b", format!(r#"{{"value":{value}}}"#))
                .expect_error(
                    400,
                    "VALIDATION_ERROR",
                    json!({"field": "value", "limit": 128}),
                );
            let details = json!({"field": "operations[0].value", "limit": 128});
            let body = format!(r#"{{"operations":[{{"key":"b","value":{value}}}]}}"#);
            client.send("POST", "/api/v1/kv/bulk", body).expect_error(
                400,
                "VALIDATION_ERROR",
                details,
            );
        }
    }
    // Beside each other is not in each other, and in a string it is none.
    for value in [
        format!("[{}[]]", "[],".repeat(10_000)),
        format!("[\"{}\"]", "[{".repeat(10_000)),
    ] {
        client
            .send("PUT", "/api/v1/kv/b", format!(r#"{{"value":{value}}}"#))
            .expect_json(r#"{"status":"ok"}"#);
    }
    client.send("DELETE", "/kv/b", "").expect(200, "");
    expect_unharmed(&server);
}

#[test]
fn nesting_a_hundred_thousand_deep_harms_nobody_wherever_it_is() {
    let (server, mut client) = start();
    for open in ["[", r#"{"a":"#, r#"[{"":"#] {
        let close: String = open
            .chars()
            .rev()
            .filter_map(|c| match c {
                '[' => Some(']'),
                '{' => Some('}'),
                _ => None,
            })
            .collect();
        let whole = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        for nested in [&whole, &open.repeat(100_000)] {
            for (method, path, _) in VALID {
                for body in [
                    nested.clone(),
                    format!(r#"{{"ttl":{nested},"value":1}}"#),
                    format!(r#"{{"keys":{nested}}}"#),
                    format!(r#"{{"keys":["a",{nested}]}}"#),
                    format!(r#"{{"keys":["a"],"with_ttl":{nested}}}"#),
                    format!(r#"{{"operations":{nested}}}"#),
                    format!(r#"{{"operations":[{nested}]}}"#),
                    format!(r#"{{"operations":[{{"key":{nested},"ttl":1,"value":1}}]}}"#),
                    format!(r#"{{"operations":[{{"key":"a","value":1,"ttl":{nested}}}]}}"#),
                ] {
                    // Ignored where it is in a field that the request does not have.
                    let ignored =
                        path.ends_with("delete") && body.contains("with_ttl") && nested == &whole;
                    let answer = client.send(method, path, &body);
                    if !ignored {
                        assert_eq!(answer.status, 400, "{path} {body:.60}");
                    }
                    // Nobody wants it back.
                    assert!(answer.body.len() < 1000, "{path} {body:.60}");
                }
            }
        }
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    client
        .send(
            "PUT",
            "/api/v1/kv/a",
            format!(r#"{{"x":{deep},"value":"before","y":{deep}}}"#),
        )
        .expect_json(r#"{"status":"ok"}"#);
    expect_unharmed(&server);
}

/// An error tells what is wrong, and does not send it all back.
#[test]
fn what_is_wrong_and_large_does_not_come_back() {
    let (server, mut client) = start();
    let large = "v".repeat(1_000_000);
    let digits = "9".repeat(1_000_000);
    for (method, path, body) in [
        ("PUT", "/api/v1/kv/a", format!(r#""{large}""#)),
        (
            "PUT",
            "/api/v1/kv/a",
            format!(r#"{{"value":1,"ttl":"{large}"}}"#),
        ),
        (
            "PUT",
            "/api/v1/kv/a",
            format!(r#"{{"value":1,"ttl":{digits}}}"#),
        ),
        (
            "PUT",
            "/api/v1/kv/a",
            format!(r#"{{"value":1,"ttl":-1.{digits}}}"#),
        ),
        ("PUT", "/api/v1/kv/a", format!(r#"{{"{large}":1}}"#)),
        (
            "POST",
            "/api/v1/kv/bulk/get",
            format!(r#"{{"keys":"{large}"}}"#),
        ),
        (
            "POST",
            "/api/v1/kv/bulk/get",
            format!(r#"{{"keys":["{large}"]}}"#),
        ),
        (
            "POST",
            "/api/v1/kv/bulk/get",
            format!(r#"{{"keys":["a"],"with_ttl":"{large}"}}"#),
        ),
        (
            "POST",
            "/api/v1/kv/bulk/get",
            format!(r#"{{"keys":["a"],"with_ttl":{digits}}}"#),
        ),
        (
            "POST",
            "/api/v1/kv/bulk",
            format!(r#"{{"operations":["{large}"]}}"#),
        ),
        (
            "POST",
            "/api/v1/kv/bulk",
            format!(r#"{{"operations":[{{"key":"{large}","value":1}}]}}"#),
        ),
    ] {
        let answer = client.send(method, path, &body);
        assert_eq!(answer.status, 400, "{body:.60}");
        assert!(
            answer.body.len() < 1000,
            "{} bytes for {body:.60}",
            answer.body.len()
        );
    }
    expect_unharmed(&server);
}

#[test]
fn five_hundred_items_of_a_megabyte_are_refused_and_the_server_goes_on() {
    let (server, _) = start();
    const BODY: usize = 500 * 1_000_100;
    // As much as for a single value, which is more than 16 MiB.
    const LIMIT: usize = 2 * 10_485_760 + 65_536;
    let item = format!(r#"{{"key":"k","value":"{}"}},"#, "v".repeat(1_000_000));
    // Announced, it is refused at once.
    let mut client = server.connect();
    client.write(format!(
        "POST /api/v1/kv/bulk HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY}\r\n\r\n"
    ));
    client.write(r#"{"operations":["#);
    client.write(item.repeat(10));
    client
        .read("POST")
        .expect_error(413, "PAYLOAD_TOO_LARGE", json!({"limit": LIMIT}));
    client.expect_end();
    // In chunks, as soon as there are too many.
    let mut client = server.connect();
    client.write(
        "POST /api/v1/kv/bulk HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for _ in 0..=LIMIT / item.len() {
        client.write(format!("{:x}\r\n{item}\r\n", item.len()));
    }
    client
        .read("POST")
        .expect_error(413, "PAYLOAD_TOO_LARGE", json!({"limit": LIMIT}));
    client.expect_end();
    expect_unharmed(&server);
}

#[test]
fn a_body_has_room_for_a_value_of_escapes_and_some_more() {
    let server = Server::start(&["--max-value-bytes", "1000"]);
    let mut client = server.connect();
    let limit = 2 * 1000 + 65536;
    let body = |length: usize| format!("{}{}", r#"{"value":1,"ttl":60}"#, " ".repeat(length - 20));
    for (method, path) in [("PUT", "/api/v1/kv/a"), ("POST", "/api/v1/kv/a/touch")] {
        client
            .send(method, path, body(limit))
            .expect_json(r#"{"status":"ok"}"#);
        for length in [limit + 1, limit + 1_000_000] {
            server.send(method, path, body(length)).expect_error(
                413,
                "PAYLOAD_TOO_LARGE",
                json!({"limit": limit}),
            );
        }
    }
    // A bulk request always has 16 MiB, and more where one value may have more.
    let answer = client.send(
        "POST",
        "/api/v1/kv/bulk/get",
        r#"{"keys":["a"]}"#.to_owned() + &" ".repeat(2_000_000),
    );
    answer.expect_data(json!({"a": {"status": "ok", "value": 1}}));
    client.write(
        "POST /api/v1/kv/bulk HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16777217\r\n\r\n",
    );
    client
        .read("POST")
        .expect_error(413, "PAYLOAD_TOO_LARGE", json!({"limit": 16_777_216}));
    let server = Server::start(&["--max-value-bytes", "100000000"]);
    let mut client = server.connect();
    client.write(
        "POST /api/v1/kv/bulk HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n",
    );
    client
        .read("POST")
        .expect_error(413, "PAYLOAD_TOO_LARGE", json!({"limit": 200_065_536}));
}

#[test]
fn a_request_that_is_no_http_is_refused_in_json() {
    let (server, _) = start();
    for headers in [
        "Content-Length: 5\r\nContent-Length: 50\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: +5\r\n",
    ] {
        for request in [
            "PUT /api/v1/kv/a",
            "GET /api/v1/health",
            "POST /api/v1/nowhere",
            "DELETE /api/v1/kv/a%20b",
        ] {
            let mut client = server.connect();
            client.write(format!(
                "{request} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n0\r\n\r\n"
            ));
            let message = client
                .read("PUT")
                .expect_error(400, "INVALID_REQUEST", Value::Null);
            assert!(message.starts_with("Malformed request: "), "{message}");
            client.expect_end();
        }
    }
    for chunks in ["zz\r\n{}\r\n", "2\r\n{}XX"] {
        let mut client = server.connect();
        client.write(format!(
            "PUT /api/v1/kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        let message = client
            .read("PUT")
            .expect_error(400, "INVALID_REQUEST", Value::Null);
        assert_eq!(message, "Malformed request: a bad chunk");
    }
    expect_unharmed(&server);
}
