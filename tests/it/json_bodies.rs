//! Bodies of requests: JSON objects with the fields they must have; whatever is wrong gets its error and changes nothing.

use serde_json::{Value, json};

use crate::client::Client;
use crate::process::Server;

/// Requests with a body that the JSON API has, and a valid body for each.
pub const VALID: &[(&str, &str, &str)] = &[
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
pub fn start() -> (Server, Client) {
    let server = Server::start(&[]);
    server.put("/kv/a", "before").expect(200, "");
    let client = server.connect();
    (server, client)
}

/// Checks that nothing has changed.
#[track_caller]
pub fn expect_unharmed(server: &Server) {
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
                r#"{"ttl":"60"}"#,
                r#"{"ttl":60,"if_revision":"7"}"#,
                r#"{"ttl":60,"if_revision":1.5}"#,
                r#"{"ttl":60,"with_revision":1}"#,
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
}

/// In words that say what to change, without those of the library that reads JSON.
#[test]
fn what_is_wrong_with_a_body_is_said_with_its_field() {
    let (_server, mut client) = start();
    let put = ("PUT", "/api/v1/kv/a");
    let [bulk, get, touch] = ["bulk", "bulk/get", "bulk/touch"];
    let post = |name| ("POST", ["/api/v1/kv/", name].concat());
    let put = (put.0, put.1.to_owned());
    for ((method, path), body, field, said) in [
        (&put, r#"{"ttl":60}"#, "value", "is missing"),
        (
            &put,
            r#"{"value":1,"ttl":1,"ttl":2}"#,
            "ttl",
            "must be given once only",
        ),
        (&put, "[1]", "", "The body must be a JSON object"),
        (&put, "", "", "The body is empty, expected a JSON object"),
        (
            &put,
            r#"{"value":"#,
            "",
            "The body ends in the middle of its JSON",
        ),
        (&put, r#"{"value":1 x}"#, "", "The body is not valid JSON"),
        (
            &post(bulk),
            r#"{"operations":{}}"#,
            "operations",
            "must be a list of objects",
        ),
        (
            &post(bulk),
            r#"{"operations":[{"key":"a","value":1},7]}"#,
            "operations[1]",
            "must be a JSON object",
        ),
        (
            &post(bulk),
            r#"{"operations":[{"key":["a"],"value":1}]}"#,
            "operations[0].key",
            "must be a string",
        ),
        (
            &post(touch),
            r#"{"operations":[{"key":"a"}]}"#,
            "operations[0].ttl",
            "is missing",
        ),
        (
            &post(get),
            r#"{"keys":"a"}"#,
            "keys",
            "must be a list of strings",
        ),
        (
            &post(get),
            r#"{"keys":["a",{}]}"#,
            "keys[1]",
            "must be a string",
        ),
        (
            &post(get),
            r#"{"keys":["a"],"with_ttl":1}"#,
            "with_ttl",
            "must be true or false",
        ),
    ] {
        let answer = client.send(method, path, body);
        let details = &answer.json()["error"]["details"];
        assert_eq!(details["field"].as_str().unwrap_or_default(), field);
        assert!(
            details["line"] == 1 && details["column"].as_u64() > Some(0),
            "{body}"
        );
        let message = answer.expect_error(400, "INVALID_REQUEST", details.clone());
        let expected = format!("{field} {said}");
        assert_eq!(message, expected.trim_start(), "{body}");
    }
    let lone = client.send(put.0, &put.1, r#"{"value":"\ud800"}"#);
    let message = lone.expect_error(400, "INVALID_REQUEST", json!({"field": "value"}));
    assert!(
        message.starts_with("value is not a valid string"),
        "{message}"
    );
    // What is too long to be looked at twice is refused all the same.
    let long = format!(r#"{{"ttl":60,"x":"{}"}}"#, "x".repeat(2_000_000));
    let message = client.send(put.0, &put.1, long).json()["error"]["message"].take();
    assert_eq!(message, "The body is not what this endpoint expects");
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
