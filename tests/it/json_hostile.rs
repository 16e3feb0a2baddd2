//! Bodies that are wrong, huge or made to harm: each gets its error, and the server goes on.

use serde_json::{Value, json};

use crate::client::Client;
use crate::process::Server;

/// Requests with a body that the JSON API has, and a valid body for each.
const VALID: &[(&str, &str, &str)] = &[
    (
        "PUT",
        "/api/v1/kv/a",
        r#"{"value":{"é":[1.5,"\u00e9\\",null]},"ttl":60}"#,
    ),
    ("POST", "/api/v1/kv/a/touch", r#" { "ttl" : 3600 } "#),
    (
        "POST",
        "/api/v1/kv/bulk",
        r#"{"operations":[{"key":"a","value":"é","ttl":6e1},{"key":"b","value":[true]}]}"#,
    ),
    (
        "POST",
        "/api/v1/kv/bulk/get",
        r#"{"keys":["a","b\u0063"],"with_ttl":false}"#,
    ),
    ("POST", "/api/v1/kv/bulk/delete", r#"{"keys":["a","b"]}"#),
    (
        "POST",
        "/api/v1/kv/bulk/touch",
        r#"{"operations":[{"key":"a","ttl":60},{"key":"b","ttl":null,"ttl":1}]}"#,
    ),
];

/// A server with a key `a`, and a client of it.
fn start() -> (Server, Client) {
    let server = Server::start(&[]);
    server.put("/kv/a", "before").expect(200, "");
    let client = server.connect();
    (server, client)
}

/// Checks that nothing has changed.
#[track_caller]
fn expect_unharmed(server: &Server) {
    server
        .get("/api/v1/kv?with_ttl=true")
        .expect_json(r#"{"status":"ok","data":{"a":{"value":"before"}}}"#);
}

#[test]
fn a_body_that_is_cut_short_at_any_byte_is_refused() {
    let (server, mut client) = start();
    for (method, path, body) in VALID {
        let body = body.trim_end().replace(r#""ttl":null,"#, "");
        for end in 0..body.len() {
            let answer = client.send(method, path, &body.as_bytes()[..end]);
            let code = &answer.json()["error"]["code"];
            assert_eq!(
                (answer.status, code),
                (400, &json!("INVALID_REQUEST")),
                "{body} {end}"
            );
        }
        expect_unharmed(&server);
    }
    for (method, path, body) in VALID {
        let body = body.replace(r#""ttl":null,"#, "");
        assert_eq!(client.send(method, path, &body).status, 200, "{body}");
    }
}

#[test]
fn a_body_is_one_json_object_in_utf_8_and_nothing_else() {
    let (server, mut client) = start();
    let nul = "{\"value\":1}\0";
    for (method, path, _) in VALID {
        for body in [
            "",
            " ",
            "null",
            "true",
            "1",
            "\"value\"",
            "[]",
            "[{}]",
            "{",
            "}",
            "{}}",
            "{]",
            "{},{}",
            "[1,60]",
            "[[\"a\"],false]",
            "[[]]",
            "{'value':1}",
            "{value:1}",
            "{\"value\":1,}",
            "{\"value\" 1}",
            "{\"value\":1}{\"value\":1}",
            "{\"value\":1} x",
            "{\"value\":01}",
            "{\"value\":1.}",
            "{\"value\":.5}",
            "{\"value\":+1}",
            "{\"value\":NaN}",
            "{\"value\":Infinity}",
            "{\"value\":\"a\nb\"}",
            "{\"value\":[\"a\tb\"]}",
            "{\"value\":\"\\x\"}",
            "{\"value\":[\"\\u12\"]}",
            "{\"value\":TRUE}",
            "// comment\n{}",
            "{\"value\":1 /* comment */}",
            "\u{feff}{\"value\":1}",
            nul,
            "value=1&ttl=60",
            "<value/>",
            "{}",
            "{\"Value\":1,\"TTL\":60,\"Keys\":[\"a\"],\"Operations\":[]}",
        ] {
            let answer = client.send(method, path, body);
            // Where it is wrong, which is the end where something is missing.
            let details = &answer.json()["error"]["details"];
            assert!(
                details["line"].is_u64() && details["column"].is_u64(),
                "{body}"
            );
            answer.expect_error(400, "INVALID_REQUEST", details.clone());
        }
        for wrong in [
            &b"\xff"[..],
            b"\xc3",
            b"\xc0\xaf",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
        ] {
            // In a string that counts, in one that does not, and between them.
            for (before, after) in [
                ("{\"value\":\"", "\"}"),
                ("{\"value\":1,\"x\":[\"", "\"]}"),
                ("{", "\"value\":1}"),
            ] {
                let body = [before.as_bytes(), wrong, after.as_bytes()].concat();
                let message = client.send(method, path, body).expect_error(
                    400,
                    "INVALID_REQUEST",
                    Value::Null,
                );
                assert_eq!(message, "The body must be UTF-8");
            }
        }
    }
    client
        .send("PUT", "/api/v1/kv/x", "{\n  \"value\": 1,\n  oops\n}")
        .expect_error(400, "INVALID_REQUEST", json!({"line": 3, "column": 3}));
    expect_unharmed(&server);
}

#[test]
fn a_field_that_is_missing_twice_there_or_of_the_wrong_type_is_refused() {
    let (server, mut client) = start();
    let (put, touch) = (("PUT", "/api/v1/kv/a"), ("POST", "/api/v1/kv/a/touch"));
    let bulk = |name| ("POST", ["/api/v1/kv/bulk/", name].concat());
    for ((method, path), bodies) in [
        (
            (put.0, put.1.to_owned()),
            &[
                r#"{"ttl":60}"#,
                r#"{"value":1,"value":1}"#,
                r#"{"value":null,"value":null}"#,
                r#"{"value":1,"val\u0075e":1}"#,
                r#"{"value":1,"ttl":60,"ttl":60}"#,
                r#"{"value":1,"ttl":null,"ttl":null}"#,
                r#"{"value":1,"ttl":"60"}"#,
                r#"{"value":1,"ttl":{"seconds":60}}"#,
                r#"{"operations":[{"key":"a","value":1}]}"#,
            ][..],
        ),
        (
            (touch.0, touch.1.to_owned()),
            &[
                "{}",
                r#"{"ttl":null}"#,
                r#"{"ttl":"60"}"#,
                r#"{"ttl":60,"ttl":60}"#,
                r#"{"ttl":[]}"#,
            ],
        ),
        (
            ("POST", "/api/v1/kv/bulk".to_owned()),
            &[
                r#"{"keys":["a"]}"#,
                r#"{"operations":null}"#,
                r#"{"operations":{}}"#,
                r#"{"operations":{"key":"a","value":1}}"#,
                r#"{"operations":"a"}"#,
                r#"{"operations":1}"#,
                r#"{"operations":[1]}"#,
                r#"{"operations":["a"]}"#,
                r#"{"operations":[null]}"#,
                r#"{"operations":[["a",1]]}"#,
                r#"{"operations":[[{"key":"a","value":1}]]}"#,
                r#"{"operations":[{"key":"a","value":1}],"operations":[]}"#,
                r#"{"operations":[{"key":"a","value":1,"key":"a"}]}"#,
                r#"{"operations":[{"key":"a","value":1,"value":1}]}"#,
                r#"{"operations":[{"key":null,"value":1}]}"#,
                r#"{"operations":[{"key":["a"],"value":1}]}"#,
                r#"{"operations":[{"key":{"a":1},"value":1}]}"#,
                r#"{"operations":[{"key":true,"value":1}]}"#,
                r#"{"operations":[{"key":"a"}]}"#,
                r#"{"operations":[{"value":1}]}"#,
                r#"{"operations":[{"key":"a","value":1,"ttl":[]}]}"#,
            ],
        ),
        (
            bulk("touch"),
            &[
                "{}",
                r#"{"operations":[{"key":"a"}]}"#,
                r#"{"operations":[{"ttl":60}]}"#,
                r#"{"operations":[{"key":"a","ttl":60,"ttl":60}]}"#,
                r#"{"operations":[["a",60]]}"#,
                r#"{"operations":{"a":60}}"#,
            ],
        ),
        (
            bulk("get"),
            &[
                r#"{"keys":null}"#,
                r#"{"keys":"a"}"#,
                r#"{"keys":{"a":1}}"#,
                r#"{"keys":[1]}"#,
                r#"{"keys":[null]}"#,
                r#"{"keys":[["a"]]}"#,
                r#"{"keys":[{"key":"a"}]}"#,
                r#"{"keys":["a"],"keys":["a"]}"#,
                r#"{"keys":["a"],"with_ttl":"true"}"#,
                r#"{"keys":["a"],"with_ttl":1}"#,
                r#"{"keys":["a"],"with_ttl":[]}"#,
                r#"{"keys":["a"],"with_ttl":true,"with_ttl":true}"#,
                r#"{"with_ttl":true}"#,
            ],
        ),
        (
            bulk("delete"),
            &[
                r#"{"keys":"a"}"#,
                r#"{"keys":[1]}"#,
                r#"{"operations":[{"key":"a"}]}"#,
                r#"{"keys":["a"],"keys":["a"]}"#,
            ],
        ),
    ] {
        for body in bodies {
            let answer = client.send(method, &path, body);
            let code = &answer.json()["error"]["code"];
            assert_eq!(
                (answer.status, code),
                (400, &json!("INVALID_REQUEST")),
                "{path} {body}"
            );
        }
    }
    expect_unharmed(&server);
    let message = client
        .send("PUT", "/api/v1/kv/a", r#"{"ttl":60}"#)
        .expect_error(400, "INVALID_REQUEST", json!({"line": 1, "column": 10}));
    assert!(message.contains("missing field `value`"), "{message}");
}

#[test]
fn unknown_fields_are_ignored_whatever_is_in_them() {
    let (server, mut client) = start();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for unknown in [
        "null",
        r#""\ud800""#,
        "1e999999",
        r#"{"value":2,"ttl":0,"keys":1}"#,
        &deep,
        &"9".repeat(10_000),
    ] {
        let x = format!(r#""x":{unknown},"x":{unknown},"":0,"Value":3,"operation":[]"#);
        for (method, path, body) in VALID {
            let body = body.replace(r#""ttl":null,"#, "").trim().to_owned();
            let inner = body
                .replace('{', &format!("{{{x},"))
                .replace(&format!(r#"{{{x},"é""#), r#"{"é""#);
            assert_eq!(
                client.send(method, path, &inner).status,
                200,
                "{path} {unknown:.50}"
            );
        }
        client.send(
            "PUT",
            "/api/v1/kv/a",
            format!(r#"{{{x},"value":1,"y":{unknown}}}"#),
        );
        server.get("/kv/a").expect(200, "1");
    }
}

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
    const LIMIT: usize = 64 * 1024 * 1024;
    let item = format!(r#"{{"key":"k","value":"{}"}},"#, "v".repeat(1_000_000));
    // Announced, it is refused at once.
    let mut client = server.connect();
    client.write(format!(
        "POST /api/v1/kv/bulk HTTP/1.1\r\nContent-Length: {BODY}\r\n\r\n"
    ));
    client.write(r#"{"operations":["#);
    client.write(item.repeat(10));
    client
        .read("POST")
        .expect_error(413, "PAYLOAD_TOO_LARGE", json!({"limit": LIMIT}));
    client.expect_end();
    // In chunks, as soon as there are too many.
    let mut client = server.connect();
    client.write("POST /api/v1/kv/bulk HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
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
    // A bulk request always has 64 MiB, and more where one value may have more.
    let answer = client.send(
        "POST",
        "/api/v1/kv/bulk/get",
        r#"{"keys":["a"]}"#.to_owned() + &" ".repeat(2_000_000),
    );
    answer.expect_data(json!({"a": {"status": "ok", "value": 1}}));
    let server = Server::start(&["--max-value-bytes", "100000000"]);
    let mut client = server.connect();
    client.write("POST /api/v1/kv/bulk HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n");
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
        "Transfer-Encoding: gzip\r\n",
    ] {
        for request in [
            "PUT /api/v1/kv/a",
            "GET /api/v1/health",
            "POST /api/v1/nowhere",
            "DELETE /api/v1/kv/a%20b",
        ] {
            let mut client = server.connect();
            client.write(format!("{request} HTTP/1.1\r\n{headers}\r\n0\r\n\r\n"));
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
            "PUT /api/v1/kv/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        let message = client
            .read("PUT")
            .expect_error(400, "INVALID_REQUEST", Value::Null);
        assert_eq!(message, "Malformed request: a bad chunk");
    }
    expect_unharmed(&server);
}
