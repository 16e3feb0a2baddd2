//! Who has a token gets in, as far as it reaches, and nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::client::Client;
use crate::description::Description;
use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::tokens::TokenFile;

/// Every route of the plain API, and whether it reads only.
const PLAIN: &[(&str, &str, bool)] = &[
    ("GET", "/kv/a", true),
    ("HEAD", "/kv/a", true),
    ("PUT", "/kv/a", false),
    ("DELETE", "/kv/a", false),
    ("DELETE", "/clear", false),
];

/// Every route of both APIs that needs a token, and whether it reads only.
fn routes(server: &Server) -> Vec<(String, String, bool)> {
    let mut routes: Vec<_> = PLAIN
        .iter()
        .map(|(method, path, reads)| ((*method).to_owned(), (*path).to_owned(), *reads))
        .collect();
    for (path, method, operation) in Description::of(server).operations() {
        if operation["security"].is_null() {
            let reads = method == "get" || operation["operationId"] == "bulkGet";
            let mut path = path.replace("{key}", "a");
            if path.ends_with("/watch") {
                path += "?since=1"; // what is forgotten, or its answer would have no end
            }
            routes.push((method.to_ascii_uppercase(), path, reads));
        }
    }
    assert!(routes.len() > 15);
    routes
}

/// A body that would do something to the key `a`, whatever the route.
const BODY: &str = r#"{"value":"changed","ttl":1,"keys":["a"],"operations":[{"key":"a","value":"changed","ttl":1}]}"#;

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

struct Guarded {
    directory: Directory,
    tokens: TokenFile,
    token: String,
    server: Server,
}

fn start() -> Guarded {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let token = tokens.create(&["--name", "writer"]);
    let server = Server::start(&["--auth", tokens.path(), "--log-level", "trace"]);
    let put = server
        .connect()
        .send_with(&bearer(&token), "PUT", "/kv/a", "kept");
    put.expect(200, "");
    Guarded {
        directory,
        tokens,
        token,
        server,
    }
}

#[test]
fn no_request_reaches_data_without_a_valid_token() {
    let Guarded {
        tokens,
        token,
        server,
        directory: _directory,
    } = start();
    let revoked = tokens.create(&["--name", "revoked"]);
    assert!(
        tokens
            .run("revoke", &["--name", "revoked"])
            .status
            .success()
    );
    let upper = token.to_ascii_uppercase();
    let short = &token[..token.len() - 1];
    let ways = [
        String::new(),
        bearer(""),
        bearer("wrong"),
        bearer(short),
        bearer(&format!("{token}x")),
        bearer(&upper),
        bearer(&format!("\"{token}\"")),
        bearer(&format!("{token},{token}")),
        bearer(&revoked),
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: Bearer{token}\r\n"),
        format!("X-Authorization: Bearer {token}\r\n"),
        format!("X-API-Key: Bearer {token}\r\n"),
        "X-API-Key:\r\n".to_owned(),
        format!("X_API_Key: {token}\r\n"),
        format!("Cookie: token={token}\r\n"),
        // Which of two counts is not for us to guess.
        bearer(&token).repeat(2),
        format!("{}{}", bearer("wrong"), bearer(&token)),
        format!("{}X-API-Key: wrong\r\n", bearer(&token)),
        format!("X-API-Key: {token}\r\nX-API-Key: {token}\r\n"),
    ];
    for (method, path, _) in routes(&server) {
        for way in &ways {
            let mut client = server.connect();
            let answer = client.send_with(way, &method, &path, BODY);
            assert_eq!(answer.status, 401, "{method} {path} {way}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            if method != "HEAD" {
                let json = path.starts_with("/api/");
                let body = answer.text().to_owned();
                assert!(
                    body == "unauthorized\n" || json && body.contains("UNAUTHORIZED"),
                    "{body}"
                );
            }
        }
        // However the path and the body are written, and whatever comes before.
        let encoded = path.replace("/kv/a", "/kv/%61");
        let chunked = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let chunked = format!("{chunked}{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
        let expecting = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            BODY.len()
        );
        for request in [
            format!("{method} {encoded} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            format!("{method} {path}?token={token} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            format!("{method} http://localhost{path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            format!("{method} {path} HTTP/1.0\r\n\r\n"),
            chunked,
            expecting,
        ] {
            let mut client = server.connect();
            client.write(&request);
            assert_eq!(client.read(&method).status, 401, "{request}");
        }
        // A token counts for its own request only.
        let mut client = server.connect();
        client.write(format!(
            "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n{}\r\n{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            bearer(&token)
        ));
        client.read("GET").expect(200, "kept");
        assert_eq!(client.read(&method).status, 401);
    }
    // A large body is not waited for.
    let mut client = server.connect();
    client.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n");
    client.read("PUT").expect(401, "unauthorized\n");
    let mut client = server.connect();
    let data = client.send_with(&bearer(&token), "GET", "/api/v1/kv?with_ttl=true", "");
    data.expect_json(r#"{"status":"ok","data":{"a":{"value":"kept"}}}"#);
}

#[test]
fn a_token_lets_in_on_both_apis_and_in_both_headers() {
    let Guarded {
        token,
        server,
        tokens: _tokens,
        directory: _directory,
    } = start();
    let mut client = server.connect();
    for header in [
        bearer(&token),
        format!("authorization:bEaReR   {token}  \r\n"),
        format!("X-API-Key: {token}\r\n"),
        format!("x-api-KEY:{token}\r\n"),
    ] {
        client
            .send_with(&header, "GET", "/kv/a", "")
            .expect(200, "kept");
        client
            .send_with(&header, "GET", "/api/v1/kv/a", "")
            .expect_json(r#"{"status":"ok","data":{"value":"kept"}}"#);
    }
    // These are for everybody.
    assert_eq!(client.send("GET", "/api/v1/health", "").status, 200);
    assert_eq!(client.send("GET", "/api/v1/openapi.json", "").status, 200);
    // What is not there needs no token to be told so.
    client
        .send("GET", "/nowhere", "")
        .expect(404, "not found\n");
    client
        .send("POST", "/kv/a", "")
        .expect(405, "method not allowed\n");
}

#[test]
fn a_read_only_token_reads_everything_and_changes_nothing() {
    let Guarded {
        tokens,
        token,
        mut server,
        directory: _directory,
    } = start();
    let reader = tokens.create(&["--read-only"]);
    server.wait_for_log("2 tokens let in");
    for (method, path, reads) in routes(&server) {
        let mut client = server.connect();
        let answer = client.send_with(&bearer(&reader), &method, &path, BODY);
        if reads {
            let status = match &*path {
                "/api/v1/kv/bulk" => 404, // there is no key of that name
                "/api/v1/watch?since=1" => 410,
                _ => 200,
            };
            assert_eq!(answer.status, status, "{method} {path}");
        } else if path.starts_with("/api/") {
            answer.expect_error(403, "FORBIDDEN", Value::Null);
        } else {
            answer.expect(403, "forbidden\n");
        }
    }
    let read = server
        .connect()
        .send_with(&bearer(&token), "GET", "/kv/a", "");
    read.expect(200, "kept");
}

#[test]
fn a_changed_file_counts_while_the_server_runs_and_an_unreadable_one_does_not() {
    let Guarded {
        tokens,
        token,
        mut server,
        directory,
    } = start();
    let status = |client: &mut Client, token: &str| {
        client.send_with(&bearer(token), "GET", "/kv/a", "").status
    };
    let mut client = server.connect();
    let other = tokens.create(&["--name", "other"]);
    wait_for("the new token", || {
        (status(&mut client, &other) == 200).then_some(())
    });
    assert_eq!(status(&mut client, &token), 200);
    assert!(tokens.run("revoke", &["--name", "writer"]).status.success());
    wait_for("the old token", || {
        (status(&mut client, &token) == 401).then_some(())
    });
    assert_eq!(status(&mut client, &other), 200);
    // Damaged, then gone: nobody is stopped who was let in before, and nobody else is let in.
    fs::write(tokens.path(), "{").unwrap();
    server.wait_for_log("the tokens stay as they were");
    assert_eq!(status(&mut client, &other), 200);
    assert_eq!(status(&mut client, &token), 401);
    fs::remove_file(tokens.path()).unwrap();
    server.wait_for_log("the tokens stay as they were");
    assert_eq!(status(&mut client, &other), 200);
    let new = TokenFile::in_directory(&directory).create(&[]);
    wait_for("a new file", || {
        (status(&mut client, &new) == 200).then_some(())
    });
    assert_eq!(status(&mut client, &other), 401);
    // No token has been logged, not even at the level that logs most.
    server.signal("-TERM");
    let (_, log) = server.wait();
    for token in [token, other, new] {
        assert!(!log.iter().any(|line| line.contains(&token)));
        assert!(!server.has_seen(&token));
    }
}

#[test]
fn tokens_are_made_listed_and_revoked_by_name() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let made = [
        tokens.create(&[]),
        tokens.create(&["--name=Zoë's laptop", "--read-only"]),
        tokens.create(&[]),
    ];
    let file = fs::read_to_string(tokens.path()).unwrap();
    for token in &made {
        assert!(
            token.starts_with("tkv_") && token.len() >= 4 + 64,
            "{token}"
        );
        assert!(!file.contains(token) && !file.contains(&token[4..]));
    }
    let mode = fs::metadata(tokens.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listed = String::from_utf8(tokens.run("list", &[]).stdout).unwrap();
    let lines: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let rights: Vec<_> = lines.iter().map(|line| (line[1], line[3])).collect();
    assert_eq!(
        rights,
        [
            ("read-write", "token-1"),
            ("read-only", "Zoë's laptop"),
            ("read-write", "token-2")
        ]
    );
    assert!(!made.iter().any(|token| listed.contains(token)));
    for (command, options, named) in [
        ("create", &["--name", "token-1"][..], "token-1"),
        ("create", &["--name", ""], "--name"),
        ("create", &["--name", "a\nb"], "--name"),
        ("revoke", &["--name", "nobody"], "nobody"),
    ] {
        let refused = tokens.run(command, options);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(named) && said.lines().count() == 1, "{said}");
        assert!(refused.stdout.is_empty());
    }
    assert_eq!(fs::read_to_string(tokens.path()).unwrap(), file);
    assert!(
        tokens
            .run("revoke", &["--name", "token-1"])
            .status
            .success()
    );
    let listed = String::from_utf8(tokens.run("list", &[]).stdout).unwrap();
    assert_eq!(listed.lines().count(), 2);
}

#[test]
fn many_who_make_tokens_at_once_lose_none() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| tokens.create(&[]));
        }
    });
    let listed = String::from_utf8(tokens.run("list", &[]).stdout).unwrap();
    assert_eq!(listed.lines().count(), 8);
}

#[test]
fn other_machines_are_not_let_in_by_mistake() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    for (options, named) in [
        (&["--host", "0.0.0.0"][..], "--no-auth"),
        (&["--auth", tokens.path()], "threadkv token create"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_threadkv"));
        command.args(["--port", "0"]).args(options);
        let (status, said) = Server::try_spawn(command).err().unwrap();
        assert_eq!(status.code(), Some(1));
        assert!(said.len() == 1 && said[0].contains(named), "{said:?}");
    }
    let server = Server::start(&["--host", "0.0.0.0", "--no-auth"]);
    let mut client = Client::connect(([127, 0, 0, 1], server.address.port()).into());
    client.send("PUT", "/kv/a", "1").expect(200, "");
    tokens.create(&[]);
    let server = Server::start(&["--host", "0.0.0.0", "--auth", tokens.path()]);
    let mut client = Client::connect(([127, 0, 0, 1], server.address.port()).into());
    client
        .send("PUT", "/kv/a", "1")
        .expect(401, "unauthorized\n");
}
