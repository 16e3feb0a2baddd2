//! Web pages of the origins that were named may use both APIs, as far as the protocol goes; `browser` asks a browser.

use serde_json::Value;

use crate::client::Response;
use crate::directory::Directory;
use crate::process::Server;
use crate::tokens::TokenFile;

const PAGE: &str = "Origin: https://page.example\r\n";

/// The methods that pages may use on a path.
fn preflight(server: &Server, origin: &str, path: &str) -> Response {
    let headers = format!(
        "{origin}Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization,content-type\r\n"
    );
    server.connect().send_with(&headers, "OPTIONS", path, "")
}

fn cors_headers(answer: &Response) -> Vec<&str> {
    let cors = |name: &&str| name.starts_with("access-control") || *name == "vary";
    answer
        .headers
        .keys()
        .map(String::as_str)
        .filter(cors)
        .collect()
}

#[test]
fn without_the_option_there_is_no_trace_of_it() {
    let server = Server::start(&[]);
    for path in ["/kv/a", "/api/v1/kv/a"] {
        let answer = preflight(&server, PAGE, path);
        assert_eq!(answer.status, 405);
        assert_eq!(answer.header("allow"), Some("GET, HEAD, PUT, DELETE"));
        assert!(cors_headers(&answer).is_empty());
        let answer = server.connect().send_with(PAGE, "GET", path, "");
        assert!(cors_headers(&answer).is_empty());
    }
}

#[test]
fn every_answer_to_a_page_that_is_let_in_says_so() {
    let server = Server::start(&[
        "--cors-origin=http://other.example:8080",
        "--cors-origin=HTTPS://Page.Example:443",
        "--rate-limit=1000/s",
    ]);
    let mut client = server.connect();
    for (method, path, body, status) in [
        ("PUT", "/kv/a", "1", 200),
        ("GET", "/kv/a", "", 200),
        ("GET", "/kv/missing", "", 404),
        ("PUT", "/kv/a", "", 400),
        ("POST", "/kv/a", "", 405),
        ("GET", "/nowhere", "", 404),
        ("GET", "/api/v1/kv/a", "", 200),
        ("GET", "/api/v1/kv", "", 200),
        ("PUT", "/api/v1/kv/a", "{", 400),
        ("PATCH", "/api/v1/kv/a", "", 405),
        ("GET", "/api/v1/nowhere", "", 404),
        ("GET", "/api/v1/health", "", 200),
        ("OPTIONS", "/kv/a", "", 405), // no preflight: it does not say what for
    ] {
        let answer = client.send_with(PAGE, method, path, body);
        assert_eq!(answer.status, status, "{method} {path}");
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://page.example"), "{method} {path}");
        assert_eq!(answer.header("vary"), Some("Origin"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["Limit", "Remaining", "Reset"].map(|it| format!("X-RateLimit-{it}")) {
            assert!(exposed.contains(&name) && exposed.contains("Retry-After"));
        }
        assert!(exposed.contains("ETag") && exposed.contains("X-Request-Id"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    // Also where it is not understood, and where its body is not wanted.
    for request in ["Content-Length: x", "Content-Length: 99999999"] {
        let mut client = server.connect();
        client.write(format!(
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\n{PAGE}{request}\r\n\r\n"
        ));
        let answer = client.read("PUT");
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://page.example"), "{request}");
    }
    // And where the disk has failed, and where the answer is made as it goes out.
    let directory = Directory::new();
    let failing = Server::start_in_with(&directory, &["--cors-origin=*", "--rate-limit=1000/s"]);
    failing.put("/kv/a", "v".repeat(1_000_000)).expect(200, "");
    failing.fail_disk();
    for (method, path, status) in [
        ("GET", "/api/v1/kv", 200),
        ("PUT", "/kv/b", 503),
        ("DELETE", "/api/v1/kv/a", 503),
        ("GET", "/api/v1/health", 503),
    ] {
        let answer = failing.send(method, path, "1");
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let counted = answer.header("x-ratelimit-remaining").is_some();
        assert_eq!(counted, !path.ends_with("health"), "{path}");
    }
    let other = "Origin: http://other.example:8080\r\n";
    let answer = client.send_with(other, "GET", "/kv/a", "");
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(allowed, Some("http://other.example:8080"));
}

#[test]
fn a_preflight_is_answered_before_anything_else_is_asked() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    tokens.create(&[]);
    let server = Server::start(&[
        "--cors-origin=https://page.example",
        "--auth",
        tokens.path(),
        "--rate-limit=1/m",
    ]);
    for (path, methods) in [
        ("/kv/a", "GET, HEAD, PUT, DELETE"),
        ("/kv/", "GET, HEAD, PUT, DELETE"),
        ("/clear", "DELETE"),
        ("/api/v1/kv", "GET, HEAD, DELETE"),
        ("/api/v1/kv/a", "GET, HEAD, PUT, DELETE"),
        ("/api/v1/kv/bulk", "POST, GET, HEAD, PUT, DELETE"),
        ("/api/v1/kv/a/touch", "POST"),
        ("/api/v1/health", "GET, HEAD"),
    ] {
        let answer = preflight(&server, PAGE, path);
        answer.expect(204, "");
        let header = |name| answer.header(name);
        let allowed = header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://page.example"), "{path}");
        assert_eq!(header("access-control-allow-methods"), Some(methods));
        let headers = header("access-control-allow-headers").unwrap();
        assert_eq!(
            headers,
            "Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID, X-API-Key, X-Request-Id, X-Threadkv-Consistency"
        );
        assert_eq!(header("access-control-max-age"), Some("600"));
        assert_eq!(header("vary"), Some("Origin"));
        // A 204 has no body, not even an empty one.
        assert_eq!(
            (header("content-length"), header("content-type")),
            (None, None)
        );
    }
    // Several on one connection: where an answer without a length ends must be clear.
    let mut client = server.connect();
    let request = format!(
        "OPTIONS /kv/a HTTP/1.1\r\nHost: localhost\r\n{PAGE}Access-Control-Request-Method: GET\r\n\r\n"
    );
    client.write(request.repeat(3));
    for _ in 0..3 {
        client.read("OPTIONS").expect(204, "");
    }
    // So that the page may send its request and read that there is no such path.
    for path in ["/nowhere", "/api/v1/nowhere"] {
        let answer = preflight(&server, PAGE, path);
        answer.expect(204, "");
        let methods = answer.header("access-control-allow-methods");
        assert_eq!(methods, Some("GET, HEAD, POST, PUT, DELETE"));
    }
}

#[test]
fn a_page_that_was_not_named_gets_no_permission() {
    let server = Server::start(&["--cors-origin=https://page.example"]);
    for origin in [
        "",
        "Origin: https://page.example.evil\r\n",
        "Origin: https://evil.example\r\n",
        "Origin: http://page.example\r\n",
        "Origin: https://page.example:8443\r\n",
        "Origin: null\r\n",
        "Origin: *\r\n",
        "Origin:\r\n",
        "Origin: https://page.example\r\nOrigin: https://page.example\r\n",
        "Origin: https://page.example, https://evil.example\r\n",
    ] {
        let answer = preflight(&server, origin, "/kv/a");
        assert_eq!(answer.status, if origin.is_empty() { 405 } else { 204 });
        assert_eq!(cors_headers(&answer), ["vary"], "{origin}");
        let answer = server.connect().send_with(origin, "GET", "/kv/a", "");
        assert_eq!(answer.status, 404);
        // The next page that asks a cache may be another one.
        assert_eq!(cors_headers(&answer), ["vary"], "{origin}");
    }
}

#[test]
fn any_origin_may_be_let_in() {
    let server = Server::start(&["--cors-origin", "*"]);
    for origin in [PAGE, "Origin: null\r\n", ""] {
        let answer = server.connect().send_with(origin, "GET", "/kv/a", "");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("vary"), None);
    }
    let answer = preflight(&server, PAGE, "/kv/a");
    answer.expect(204, "");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn a_page_that_was_not_named_writes_nothing() {
    let bulk = r#"{"operations":[{"key":"a","value":"changed"}]}"#;
    let writes = [
        ("/api/v1/kv/bulk", bulk),
        ("/api/v1/kv/bulk/delete", r#"{"keys":["a"]}"#),
        (
            "/api/v1/kv/bulk/touch",
            r#"{"operations":[{"key":"a","ttl":1}]}"#,
        ),
        ("/api/v1/kv/a/touch", r#"{"ttl":1}"#),
    ];
    let foreign = [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: localhost\r\n",
        "Origin: http://localhost\r\nOrigin: https://evil.example\r\n",
    ];
    for options in [&[][..], &["--cors-origin=https://page.example"]] {
        let server = Server::start(options);
        let mut client = server.connect();
        client.send("PUT", "/kv/a", "kept").expect(200, "");
        for (path, body) in writes {
            for origin in foreign {
                let answer = client.send_with(origin, "POST", path, body);
                let said = answer.expect_error(403, "FORBIDDEN", Value::Null);
                assert!(said.contains("origin"), "{said}");
            }
        }
        // Reading it is up to the browser.
        let keys = r#"{"keys":["a"]}"#;
        let answer = client.send_with(foreign[0], "POST", "/api/v1/kv/bulk/get", keys);
        assert_eq!(answer.status, 200);
        let kept = r#"{"status":"ok","data":{"value":"kept"}}"#;
        client
            .send("GET", "/api/v1/kv/a?with_ttl=true", "")
            .expect_json(kept);
        // A page that this very host has sent, through a proxy say.
        let own = client.send_with("Origin: https://localhost\r\n", "POST", writes[0].0, bulk);
        assert_eq!(own.status, 200);
    }
    for origin in ["https://page.example", "*"] {
        let server = Server::start(&["--cors-origin", origin]);
        let answer = server
            .connect()
            .send_with(PAGE, "POST", writes[0].0, writes[0].1);
        assert_eq!(answer.status, 200);
    }
}
