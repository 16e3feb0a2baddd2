//! Without tokens, requests must name a host that is known to be this one, so that no web page gets in by DNS rebinding.

use serde_json::Value;

use crate::client::{Client, Response};
use crate::directory::Directory;
use crate::options::expect_mistake;
use crate::process::Server;
use crate::tokens::TokenFile;

/// Every kind of path, known or not, and whether it belongs to the JSON API.
const PATHS: &[(&str, &str, bool)] = &[
    ("GET", "/kv/a", false),
    ("PUT", "/kv/a", false),
    ("DELETE", "/clear", false),
    ("OPTIONS", "/kv/a", false),
    ("GET", "/", false),
    ("GET", "/nowhere", false),
    ("GET", "/api/v1/kv/a", true),
    ("POST", "/api/v1/kv/bulk", true),
    ("GET", "/api/v1/health", true),
    ("GET", "/api/v1/status", true),
    ("GET", "/api/v1/openapi.json", true),
    ("GET", "/api/v1/nowhere", true),
];

/// Asks by the hosts in those headers, each with its line end.
fn ask(client: &mut Client, hosts: &str, method: &str, path: &str) -> Response {
    client.write(format!(
        "{method} {path} HTTP/1.1\r\n{hosts}Content-Length: 1\r\n\r\nv"
    ));
    client.read(method)
}

fn status(client: &mut Client, host: &str) -> u16 {
    ask(client, &format!("Host: {host}\r\n"), "GET", "/kv/a").status
}

#[test]
fn a_request_to_an_unknown_host_reaches_nothing() {
    let server = Server::start(&["--rate-limit=100/m"]);
    let mut client = server.connect();
    client.send("PUT", "/kv/a", "kept").expect(200, "");
    for host in [
        "evil.example",
        "evil.example:4000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost:x",
        "[::1",
        "",
    ] {
        for (method, path, json) in PATHS {
            let answer = ask(&mut client, &format!("Host: {host}\r\n"), method, path);
            if *json {
                let said = answer.expect_error(403, "FORBIDDEN", Value::Null);
                assert_eq!(said, "Unknown host, see --allow-host");
            } else {
                answer.expect(403, "unknown host, see --allow-host\n");
            }
            // It does not count as anybody's request.
            assert_eq!(answer.header("x-ratelimit-limit"), None);
        }
    }
    client.send("GET", "/kv/a", "").expect(200, "kept");
}

#[test]
fn addresses_and_localhost_are_known() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for host in [
        "127.0.0.1",
        "127.0.0.1:4000",
        "192.0.2.1:80",
        "[::1]",
        "[2001:db8::1]:8001",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
    ] {
        assert_eq!(status(&mut client, host), 404, "{host}");
    }
    client.write("GET /kv/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    client.read("GET").expect(404, "key not found\n");
}

#[test]
fn names_are_known_once_they_are_given() {
    let server = Server::start(&[
        "--allow-host",
        "KV.example",
        "--allow-host=box",
        "--cors-origin=https://page.example:8443",
    ]);
    let mut client = server.connect();
    for (host, expected) in [
        ("kv.example", 404),
        ("Kv.Example.:4000", 404),
        ("box:80", 404),
        ("page.example", 404),
        ("localhost", 404),
        ("other.example", 403),
        ("sub.kv.example", 403),
        ("kv.example.evil.example", 403),
    ] {
        assert_eq!(status(&mut client, host), expected, "{host}");
    }
}

/// With a token, and where any page may do anything, the host tells nothing.
#[test]
fn with_tokens_or_with_any_origin_every_host_is_let_in() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    tokens.create(&[]);
    let server = Server::start(&["--auth", tokens.path()]);
    assert_eq!(status(&mut server.connect(), "any.example"), 401);
    let server = Server::start(&["--cors-origin=*"]);
    assert_eq!(status(&mut server.connect(), "any.example"), 404);
}

#[test]
fn a_name_to_allow_is_checked_at_the_start() {
    for name in ["http://kv.example", "kv.example:80", "*", "a b"] {
        expect_mistake(
            &["--allow-host", name],
            &format!("--allow-host {name:?}: expected the name of a host"),
        );
    }
}

/// What somebody has stored is never taken for a page or a script.
#[test]
fn every_answer_forbids_guessing_what_it_is() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("PUT", "/kv/a", "<script>").expect(200, "");
    for (method, path, _) in PATHS {
        let answer = client.send(method, path, "");
        let guess = answer.header("x-content-type-options");
        assert_eq!(guess, Some("nosniff"), "{method} {path}");
    }
}
