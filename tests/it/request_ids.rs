//! Every answer has an `X-Request-Id`, and the log has the same, with the name of the token.

use std::collections::HashSet;

use crate::directory::Directory;
use crate::process::Server;
use crate::tokens::TokenFile;

const ID: &str = "x-request-id";

#[test]
fn every_answer_has_an_id_of_its_own() {
    let server = Server::start(&["--max-value-bytes=10"]);
    let mut ids = HashSet::new();
    for (method, path, body) in [
        ("PUT", "/kv/a", "1"),
        ("GET", "/kv/a", ""),
        ("HEAD", "/kv/a", ""),
        ("GET", "/nowhere", ""),
        ("PATCH", "/clear", ""),
        ("PUT", "/kv/a", "much too long"),
        ("GET", "/kv/a b", ""),
        ("GET", "/api/v1/health", ""),
        ("GET", "/livez", ""),
        ("GET", "/metrics", ""),
    ] {
        let answer = server.send(method, path, body);
        let id = answer.header(ID).expect("an id").to_owned();
        assert!(id.len() <= 32 && !id.contains(' '), "{id}");
        assert!(ids.insert(id), "{method} {path}");
    }
    // Another life of the server has others.
    let other = Server::start(&[]);
    let id = other.get("/kv/a").header(ID).unwrap().to_owned();
    assert!(ids.insert(id));
}

#[test]
fn a_clients_own_id_is_repeated_where_it_is_safe() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let longest = "x".repeat(128);
    for id in ["7", "trace-1.span_2", "Root=1-5759e988-bd862e3f", &longest] {
        let header = format!("X-Request-Id: {id}\r\n");
        let answer = client.send_with(&header, "GET", "/kv/a", "");
        assert_eq!(answer.header(ID), Some(id));
    }
    let too_long = "x".repeat(129);
    for id in ["", "a b", "<script>", "a\"b", "\u{1b}[31m", "é", &too_long] {
        let header = format!("x-request-id: {id}\r\n");
        let answer = server.connect().send_with(&header, "GET", "/kv/a", "");
        assert_ne!(answer.header(ID), Some(id));
        assert!(answer.header(ID).is_some_and(|it| it.is_ascii()));
    }
}

#[test]
fn a_line_of_the_log_has_the_id_and_the_name_of_the_token_and_never_the_token() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let token = tokens.create(&["--name", "the app"]);
    let mut server = Server::start(&["--auth", tokens.path(), "--log-level=debug"]);
    let headers = format!("X-API-Key: {token}\r\nX-Request-Id: abc-1\r\n");
    let mut client = server.connect();
    let answer = client.send_with(&headers, "GET", "/kv/a", "");
    answer.expect(404, "key not found\n");
    let line = server.wait_for_log("id=abc-1");
    for part in [r#"GET "/kv/a" 404 "#, r#"token="the app""#] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains(&token), "{line}");
    let answer = server.get("/kv/a");
    let id = format!("id={}", answer.header(ID).unwrap());
    let line = server.wait_for_log(&id);
    assert!(line.contains(" 401 ") && !line.contains("token="), "{line}");
}
