//! The endpoints of the JSON API: what each answers where all is well.

use std::time::Instant;

use serde_json::{Value, json};

use crate::process::Server;

const OK: &str = r#"{"status":"ok"}"#;

/// Checks that an answer of seconds to live is what is left of `ttl`, rounded up, and returns it.
#[track_caller]
pub fn expect_ttl(found: &Value, ttl: u64, since: Instant) -> u64 {
    let found = found.as_u64().expect("a number of seconds");
    // Within the second in which it was set, that is `ttl` itself.
    let least = ttl - since.elapsed().as_secs();
    assert!((least..=ttl).contains(&found), "{found} of {ttl}");
    found
}

#[test]
fn a_value_is_put_read_and_deleted() {
    let server = Server::start(&[]);
    let since = Instant::now();
    server
        .put("/api/v1/kv/a", r#"{"value":"v","ttl":3600}"#)
        .expect_json(OK);
    server
        .get("/api/v1/kv/a")
        .expect_json(r#"{"status":"ok","data":{"value":"v"}}"#);
    server
        .get("/api/v1/kv/a?with_ttl=false")
        .expect_json(r#"{"status":"ok","data":{"value":"v"}}"#);
    let read = server.get("/api/v1/kv/a?with_ttl=true");
    let ttl = expect_ttl(&read.json()["data"]["ttl"], 3600, since);
    read.expect_json(&format!(
        r#"{{"status":"ok","data":{{"value":"v","ttl":{ttl}}}}}"#
    ));
    let read = server.get("/api/v1/kv/a/ttl");
    let ttl = expect_ttl(&read.json()["data"]["ttl"], 3600, since);
    read.expect_json(&format!(r#"{{"status":"ok","data":{{"ttl":{ttl}}}}}"#));
    server.delete("/api/v1/kv/a").expect_json(OK);
    server
        .get("/api/v1/kv/a")
        .expect_error(404, "NOT_FOUND", json!({"key": "a"}));
}

#[test]
fn a_missing_key_is_an_error_for_all_but_delete() {
    let server = Server::start(&[]);
    let details = || json!({"key": "no:such_key.-"});
    server
        .get("/api/v1/kv/no:such_key.-")
        .expect_error(404, "NOT_FOUND", details());
    server
        .get("/api/v1/kv/no:such_key.-/ttl")
        .expect_error(404, "NOT_FOUND", details());
    server
        .post("/api/v1/kv/no:such_key.-/touch", r#"{"ttl":1}"#)
        .expect_error(404, "NOT_FOUND", details());
    server.delete("/api/v1/kv/no:such_key.-").expect_json(OK);
    // And nothing came into being.
    server
        .get("/api/v1/kv")
        .expect_json(r#"{"status":"ok","data":{}}"#);
}

#[test]
fn bulk_requests_answer_for_each_key() {
    let server = Server::start(&[]);
    let put = r#"{"operations":[{"key":"key1","value":"value1"},{"key":"key2","value":"value2","ttl":3600}]}"#;
    let since = Instant::now();
    server
        .post("/api/v1/kv/bulk", put)
        .expect_json(r#"{"status":"ok","data":{"key1":"ok","key2":"ok"}}"#);
    let get = r#"{"keys":["key1","key2","key3"],"with_ttl":false}"#;
    server.post("/api/v1/kv/bulk/get", get).expect_json(
        r#"{"status":"ok","data":{"key1":{"status":"ok","value":"value1"},"key2":{"status":"ok","value":"value2"},"key3":{"status":"error","error":"not_found"}}}"#,
    );
    let get = r#"{"keys":["key1","key2","key3"],"with_ttl":true}"#;
    let read = server.post("/api/v1/kv/bulk/get", get);
    let ttl = expect_ttl(&read.json()["data"]["key2"]["ttl"], 3600, since);
    read.expect_data(json!({
        "key1": {"status": "ok", "value": "value1"},
        "key2": {"status": "ok", "value": "value2", "ttl": ttl},
        "key3": {"status": "error", "error": "not_found"},
    }));
    let touch = r#"{"operations":[{"key":"key1","ttl":3600},{"key":"key2","ttl":7200},{"key":"key3","ttl":1}]}"#;
    let since = Instant::now();
    server.post("/api/v1/kv/bulk/touch", touch).expect_json(
        r#"{"status":"ok","data":{"key1":"ok","key2":"ok","key3":{"status":"error","error":"not_found"}}}"#,
    );
    for (key, ttl) in [("key1", 3600), ("key2", 7200)] {
        let read = server.get(&format!("/api/v1/kv/{key}/ttl"));
        expect_ttl(&read.json()["data"]["ttl"], ttl, since);
    }
    let delete = r#"{"keys":["key1","key3","key2"]}"#;
    server.post("/api/v1/kv/bulk/delete", delete).expect_json(
        r#"{"status":"ok","data":{"key1":"ok","key3":{"status":"error","error":"not_found"},"key2":"ok"}}"#,
    );
    server
        .get("/api/v1/kv")
        .expect_json(r#"{"status":"ok","data":{}}"#);
}

#[test]
fn one_connection_serves_both_apis_and_pipelines() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let body = r#"{"value":[1]}"#;
    let length = body.len();
    let put = format!(
        "PUT /api/v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let get = "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let list = "GET /api/v1/kv HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write(
        [
            &put,
            get,
            list,
            "DELETE /clear HTTP/1.1\r\nHost: localhost\r\n\r\n",
            list,
        ]
        .concat(),
    );
    client.read("PUT").expect_json(OK);
    client.read("GET").expect(200, "[1]");
    let data = r#"{"status":"ok","data":{"a":{"value":[1]}}}"#;
    client.read("GET").expect_json(data);
    client.read("DELETE").expect(200, "");
    client
        .read("GET")
        .expect_json(r#"{"status":"ok","data":{}}"#);
}

#[test]
fn a_content_type_is_not_required_and_not_looked_at() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let body = r#"{"value":1}"#;
    let length = body.len();
    for header in [
        "",
        "Content-Type: application/json\r\n",
        "Content-Type: text/plain\r\nAccept: text/html\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
    ] {
        client.write(format!(
            "PUT /api/v1/kv/a HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: {length}\r\n\r\n{body}"
        ));
        client.read("PUT").expect_json(OK);
    }
    // Nor a length: curl sends larger bodies from a pipe in chunks.
    client.write(
        "PUT /api/v1/kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    client.write("4\r\n{\"va\r\n8\r\nlue\": 7}\r\n0\r\n\r\n");
    client.read("PUT").expect_json(OK);
    client
        .send("GET", "/api/v1/kv/a", "")
        .expect_json(r#"{"status":"ok","data":{"value":7}}"#);
}
