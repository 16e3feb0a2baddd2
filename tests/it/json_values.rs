//! Both APIs see the same values: a text is a JSON string and the other way round, any other JSON keeps what was sent.

use serde_json::{Value, json};

use crate::directory::Directory;
use crate::process::Server;

/// JSON values other than strings, which come back as they were sent.
const EXACT: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "1.0",
    "1.50",
    "123456789012345678901234567890",
    "-123456789012345678901234567890.123456789012345678901234567890",
    "1E+2",
    "1e-400",
    "1e400",
    "{}",
    "[]",
    "[ ]",
    r#"{"z":1,"a":{"y":1,"b":2},"m":[3,1,2]}"#,
    r#"{"twice":1,"twice":2}"#,
    "{ \"z\" : [ 1 ,\r\n\t2.50 ] , \"\" : null }",
    r#"["\u00e9\ud83c\udf0d\/\u0000","é🌍/"]"#,
    r#"["\ud800"]"#,
    r#"{"value":"v","ttl":5,"\"]}":"[{\\"}"#,
];

/// JSON strings as sent, and the text they stand for.
const STRINGS: &[(&str, &str)] = &[
    (r#""""#, ""),
    (r#""v""#, "v"),
    (r#"" v ""#, " v "),
    (r#""null""#, "null"),
    (r#""1.0""#, "1.0"),
    (r#""{\"a\":1}""#, r#"{"a":1}"#),
    (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
    (r#""\u0041\u00e9\u00E9\u20ac\uFFFF""#, "Aéé€\u{ffff}"),
    (r#""\u0000""#, "\0"),
    (r#""a\u0000b\u001f\u007f""#, "a\0b\u{1f}\u{7f}"),
    (
        r#""\ud83c\udf0d\uD83C\uDF0D\udbff\udfff""#,
        "🌍🌍\u{10ffff}",
    ),
    ("\"é🌍\u{7f}\u{2028}\u{feff}\"", "é🌍\u{7f}\u{2028}\u{feff}"),
    (r#""\\u0041\\""#, r"\u0041\"),
];

#[test]
fn json_other_than_a_string_comes_back_as_it_was_sent_and_as_text_from_the_plain_api() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for sent in EXACT {
        client
            .send(
                "PUT",
                "/api/v1/kv/a",
                format!("{{ \"value\" :\n {sent} \t}}"),
            )
            .expect_json(r#"{"status":"ok"}"#);
        let answer = client.send("GET", "/api/v1/kv/a", "");
        answer.expect(
            200,
            &format!(r#"{{"status":"ok","data":{{"value":{sent}}}}}"#),
        );
        client.send("GET", "/kv/a", "").expect(200, sent);
        // The same for those that come and go with others.
        let operation = format!(r#"{{"operations":[{{"value": {sent} ,"key":"b"}}]}}"#);
        client
            .send("POST", "/api/v1/kv/bulk", operation)
            .expect_data(json!({"b": "ok"}));
        let answer = client.send("POST", "/api/v1/kv/bulk/get", r#"{"keys":["b"]}"#);
        answer.expect(
            200,
            &format!(r#"{{"status":"ok","data":{{"b":{{"status":"ok","value":{sent}}}}}}}"#),
        );
        let answer = client.send("GET", "/api/v1/kv?prefix=b", "");
        answer.expect(
            200,
            &format!(r#"{{"status":"ok","data":{{"b":{{"value":{sent}}}}}}}"#),
        );
    }
}

#[test]
fn a_string_is_the_text_it_stands_for() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (sent, text) in STRINGS {
        client
            .send("PUT", "/api/v1/kv/a", format!(r#"{{"value": {sent} }}"#))
            .expect_json(r#"{"status":"ok"}"#);
        client.send("GET", "/kv/a", "").expect(200, text);
        client
            .send("GET", "/api/v1/kv/a", "")
            .expect_data(json!({"value": text}));
        let operation = format!(r#"{{"operations":[{{"key":"b","value":{sent}}}]}}"#);
        client
            .send("POST", "/api/v1/kv/bulk", operation)
            .expect_data(json!({"b": "ok"}));
        client.send("GET", "/kv/b", "").expect(200, text);
    }
}

#[test]
fn a_text_put_through_the_plain_api_is_a_string_whatever_it_looks_like() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let texts = STRINGS.iter().map(|(_, text)| text);
    for text in texts.chain(EXACT).filter(|text| !text.is_empty()) {
        client.send("PUT", "/kv/a", text).expect(200, "");
        client
            .send("GET", "/api/v1/kv/a", "")
            .expect_data(json!({"value": text}));
        client
            .send("POST", "/api/v1/kv/bulk/get", r#"{"keys":["a"]}"#)
            .expect_data(json!({"a": {"status": "ok", "value": text}}));
        client
            .send("GET", "/api/v1/kv", "")
            .expect_data(json!({"a": {"value": text}}));
    }
    // Exactly: what JSON must escape is escaped, nothing else is.
    client
        .send("PUT", "/kv/a", "\0\u{8}\t\n\u{c}\r\u{1f}\"\\/\u{7f}é🌍")
        .expect(200, "");
    client.send("GET", "/api/v1/kv/a", "").expect_json(
        "{\"status\":\"ok\",\"data\":{\"value\":\"\\u0000\\b\\t\\n\\f\\r\\u001f\\\"\\\\/\u{7f}é🌍\"}}",
    );
}

#[test]
fn every_character_of_unicode_is_kept_plain_or_escaped() {
    let server = Server::start(&[]);
    let every: String = (0..=char::MAX as u32).filter_map(char::from_u32).collect();
    let escaped: String = every
        .encode_utf16()
        .map(|unit| format!("\\u{unit:04x}"))
        .collect();
    for body in [
        json!({"value": every}).to_string(),
        format!(r#"{{"value":"{escaped}"}}"#),
    ] {
        server
            .put("/api/v1/kv/a", body)
            .expect_json(r#"{"status":"ok"}"#);
        assert!(server.get("/kv/a").text() == every);
        assert!(server.get("/api/v1/kv/a").json()["data"]["value"] == every);
    }
}

#[test]
fn half_a_character_is_refused_in_a_string() {
    let server = Server::start(&[]);
    for string in [
        r#""\ud800""#,
        r#""\udfff""#,
        r#""\udf0d\ud83c""#,
        r#""\ud83c""#,
        r#""\ud83cx""#,
        r#""\ud83c\n""#,
        r#""\ud83c\u0041""#,
        r#""\ud83c\ud83c""#,
    ] {
        let message = server
            .put("/api/v1/kv/a", format!(r#"{{"value":{string}}}"#))
            .expect_error(400, "INVALID_REQUEST", json!({"field": "value"}));
        assert!(message.contains("value"), "{message}");
        let body = format!(r#"{{"operations":[{{"key":"a","value":{string}}}]}}"#);
        let details = json!({"field": "operations[0].value"});
        server
            .post("/api/v1/kv/bulk", body)
            .expect_error(400, "INVALID_REQUEST", details);
    }
    server.get("/kv/a").expect(404, "key not found\n");
}

#[test]
fn a_put_through_either_api_replaces_what_the_other_has_put() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for _ in 0..3 {
        client
            .send("PUT", "/api/v1/kv/a", r#"{"value":1.0}"#)
            .expect_json(r#"{"status":"ok"}"#);
        client.send("GET", "/kv/a", "").expect(200, "1.0");
        client.send("PUT", "/kv/a", "1.0").expect(200, "");
        client
            .send("GET", "/api/v1/kv/a", "")
            .expect_json(r#"{"status":"ok","data":{"value":"1.0"}}"#);
        client.send("DELETE", "/kv/a", "").expect(200, "");
        client
            .send("GET", "/api/v1/kv/a", "")
            .expect_error(404, "NOT_FOUND", json!({"key": "a"}));
        client.send("PUT", "/kv/a", "2").expect(200, "");
        client
            .send("DELETE", "/api/v1/kv/a", "")
            .expect_json(r#"{"status":"ok"}"#);
        client
            .send("GET", "/kv/a", "")
            .expect(404, "key not found\n");
    }
    client
        .send("PUT", "/api/v1/kv/a", r#"{"value":1}"#)
        .expect_json(r#"{"status":"ok"}"#);
    client.send("DELETE", "/clear", "").expect(200, "");
    client.send("GET", "/api/v1/kv", "").expect_data(json!({}));
}

#[test]
fn values_are_the_same_after_a_restart_and_after_a_touch() {
    let directory = Directory::new();
    let mut server = Server::start_in(&directory);
    let mut operations = Vec::new();
    for (n, json) in EXACT.iter().enumerate() {
        operations.push(format!(r#"{{"key":"exact{n}","value":{json}}}"#));
    }
    for (n, (json, _)) in STRINGS.iter().enumerate() {
        operations.push(format!(r#"{{"key":"string{n}","value":{json}}}"#));
    }
    let body = format!(r#"{{"operations":[{}]}}"#, operations.join(","));
    assert_eq!(server.post("/api/v1/kv/bulk", body).status, 200);
    for path in ["/api/v1/kv/exact6/touch", "/api/v1/kv/string4/touch"] {
        server
            .post(path, r#"{"ttl":3600}"#)
            .expect_json(r#"{"status":"ok"}"#);
    }
    for _ in 0..2 {
        for (n, sent) in EXACT.iter().enumerate() {
            let answer = server.get(&format!("/api/v1/kv/exact{n}"));
            answer.expect(
                200,
                &format!(r#"{{"status":"ok","data":{{"value":{sent}}}}}"#),
            );
        }
        for (n, (_, text)) in STRINGS.iter().enumerate() {
            let answer = server.get(&format!("/api/v1/kv/string{n}"));
            answer.expect_data(json!({"value": text}));
            server.get(&format!("/kv/string{n}")).expect(200, text);
        }
        server.kill();
        server = Server::start_in(&directory);
    }
}

#[test]
fn a_value_has_at_most_so_many_bytes_as_text_or_as_json() {
    let server = Server::start(&["--max-value-bytes", "1000"]);
    let mut client = server.connect();
    let repeat = |unit: &str, times| format!("\"{}\"", unit.repeat(times));
    for value in [
        repeat("v", 1000),
        repeat("é", 500),
        // As the text they stand for, not as the JSON that was sent, which is twice and six times as long.
        repeat(r#"\""#, 1000),
        repeat(r"\u0041", 1000),
        format!("[{}]", "1".repeat(998)),
        format!("[{}]", repeat("v", 996)),
        "1".repeat(1000),
    ] {
        let body = format!(r#"{{"value":{value}}}"#);
        client
            .send("PUT", "/api/v1/kv/a", body)
            .expect_json(r#"{"status":"ok"}"#);
        let body = format!(r#"{{"operations":[{{"key":"a","value":{value}}}]}}"#);
        client
            .send("POST", "/api/v1/kv/bulk", body)
            .expect_data(json!({"a": "ok"}));
        assert_eq!(client.send("GET", "/kv/a", "").body.len(), 1000);
    }
    for (value, length) in [
        (repeat("v", 1001), 1001),
        (repeat("é", 501), 1002),
        (repeat(r#"\""#, 1001), 1001),
        (format!("[{}]", "1".repeat(999)), 1001),
        (format!("[{}]", " ".repeat(999)), 1001),
        ("1".repeat(1001), 1001),
        (format!("[{}]", repeat(r"\u0041", 200)), 1204),
    ] {
        let details = |field| json!({"field": field, "limit": 1000, "length": length});
        let body = format!(r#"{{"value":{value}}}"#);
        client.send("PUT", "/api/v1/kv/a", body).expect_error(
            413,
            "PAYLOAD_TOO_LARGE",
            details("value"),
        );
        let body =
            format!(r#"{{"operations":[{{"key":"b","value":1}},{{"key":"a","value":{value}}}]}}"#);
        client.send("POST", "/api/v1/kv/bulk", body).expect_error(
            413,
            "PAYLOAD_TOO_LARGE",
            details("operations[1].value"),
        );
    }
    assert_eq!(client.send("GET", "/kv/a", "").body.len(), 1000);
    client
        .send("GET", "/kv/b", "")
        .expect(404, "key not found\n");
}

#[test]
fn the_default_limit_is_ten_megabytes_to_the_byte() {
    const LIMIT: usize = 10_485_760;
    let server = Server::start(&[]);
    let text = "\u{1}é".repeat(LIMIT / 3) + "v";
    assert_eq!(text.len(), LIMIT);
    server
        .put("/api/v1/kv/a", json!({"value": text}).to_string())
        .expect_error(
            413,
            "PAYLOAD_TOO_LARGE",
            json!({"limit": 2 * LIMIT + 65536}),
        );
    // Half of it escaped as \u0001 is over the limit of the body. What needs two bytes a piece is not.
    let text = "\n".repeat(LIMIT);
    server
        .put("/api/v1/kv/a", json!({"value": text}).to_string())
        .expect_json(r#"{"status":"ok"}"#);
    assert!(server.get("/api/v1/kv/a").json()["data"]["value"] == text);
    let body: Value = json!({"value": text + "\n"});
    let details = json!({"field": "value", "limit": LIMIT, "length": LIMIT + 1});
    server
        .put("/api/v1/kv/a", body.to_string())
        .expect_error(413, "PAYLOAD_TOO_LARGE", details);
}
