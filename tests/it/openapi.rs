//! `GET /api/v1/openapi.json` describes the server as it is: no operation, status or body is missing, none is made up.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::client::{Client, Response};
use crate::description::Description;
use crate::directory::Directory;
use crate::hostile_overload::fill_with_uploads;
use crate::openapi_requests::{CONDITIONAL, REQUESTS, WRITES};
use crate::process::{Server, wait_for};
use crate::tokens::TokenFile;

/// What is described, and not seen here: the answers to what is wrong as HTTP, which other tests see; 504, since a disk that hangs
/// cannot be had without root; and 507.
const ELSEWHERE: &[u16] = &[408, 414, 415, 417, 431, 501, 504, 505, 507];

/// Those operations that are asked for: name, method, and a path.
fn operations(description: &Description, asked_for: impl Fn(&Value) -> bool) -> Vec<[String; 3]> {
    let operations = description.operations().into_iter();
    operations
        .filter(|(_, _, operation)| asked_for(operation))
        .map(|(path, method, operation)| {
            let id = operation["operationId"].as_str().unwrap();
            let mut path = path.replace("{key}", "a");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let parameter = description.resolve(parameter);
                if parameter["in"] == "query" && parameter["required"] == true {
                    let (name, example) = (&parameter["name"], &parameter["example"]);
                    let example = example.as_str().unwrap();
                    path += &format!("?{}={example}", name.as_str().unwrap());
                }
            }
            if id == "watch" {
                path += "?since=1"; // or its answer would have no end
            }
            [id.to_owned(), method.to_ascii_uppercase(), path]
        })
        .collect()
}

/// A request that cannot be told from the next one.
fn send_malformed(client: &mut Client, method: &str, path: &str) -> Response {
    client.write(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"
    ));
    client.read(method)
}

/// A request with a body over any limit, that is only announced.
fn send_too_large(client: &mut Client, method: &str, path: &str) -> Response {
    client.write(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
    ));
    client.read(method)
}

#[test]
fn every_answer_is_described_and_everything_described_is_answered() {
    let server = Server::start(&[]);
    let mut description = Description::of(&server);
    for (operation, status, method, path, body) in REQUESTS {
        let answer = server.send(method, path, body);
        description.check(operation, method, path, *status, &answer);
        // An import is lines.
        if *status == 200 && !body.is_empty() && *operation != "import" {
            let schema = description.json_of(&description.operation(method, path)["requestBody"]);
            let body: Value = serde_json::from_str(body).unwrap();
            description.expect(&schema["schema"], &body, operation);
        }
    }
    let export = server.send("HEAD", "/api/v1/export", "");
    assert_eq!(export.status, 200);
    assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
    description.seen.insert(("export".to_owned(), 200));
    let watch = server.send("HEAD", "/api/v1/watch", "");
    assert_eq!(watch.status, 200);
    assert_eq!(watch.header("content-type"), Some("text/event-stream"));
    description.seen.insert(("watch".to_owned(), 200));
    for [operation, method, path] in operations(&description, |_| true) {
        let answer = send_malformed(&mut server.connect(), &method, &path);
        description.check(&operation, &method, &path, 400, &answer);
        if operation == "import" {
            continue; // it has no limit
        }
        let answer = send_too_large(&mut server.connect(), &method, &path);
        description.check(&operation, &method, &path, 413, &answer);
    }
    for path in ["/api/v1/kv/bulk", "/api/v1/kv/bulk/touch"] {
        let items = vec![json!({"key": "a", "value": 1, "ttl": 1}); 501];
        let answer = server.post(path, json!({"operations": items}).to_string());
        let operation = if path.ends_with("bulk") {
            "bulkPut"
        } else {
            "bulkTouch"
        };
        description.check(operation, "POST", path, 413, &answer);
    }
    for (operation, path) in [
        ("bulkGet", "/api/v1/kv/bulk/get"),
        ("bulkDelete", "/api/v1/kv/bulk/delete"),
    ] {
        let answer = server.post(path, json!({"keys": vec!["a"; 501]}).to_string());
        description.check(operation, "POST", path, 413, &answer);
    }

    let directory = Directory::new();
    let server = Server::start_in(&directory);
    // What changes nothing needs no disk.
    for key in ["a", "bulk"] {
        server.put(&format!("/kv/{key}"), "v").expect(200, "");
    }
    server.fail_disk();
    for (operation, method, path, body) in WRITES {
        let answer = server.send(method, path, body);
        description.check(operation, method, path, 503, &answer);
    }
    let answer = server.get("/api/v1/health");
    description.check("getHealth", "GET", "/api/v1/health", 503, &answer);

    see_who_has_seen_something_else(&mut description);
    see_what_has_no_room(&mut description);
    see_who_is_let_in(&mut description);
    see_who_asks_for_another_host(&mut description);
    see_who_comes_too_often(&mut description);
    see_who_is_turned_away(&mut description);

    let mut described = BTreeSet::new();
    for (_, _, operation) in description.operations() {
        let id = operation["operationId"].as_str().unwrap();
        for status in operation["responses"].as_object().unwrap().keys() {
            described.insert((id.to_owned(), status.parse().unwrap()));
        }
    }
    described.retain(|(_, status)| !ELSEWHERE.contains(status));
    description
        .seen
        .retain(|(_, status)| !ELSEWHERE.contains(status));
    let mut mistakes = String::new();
    for (id, status) in described.symmetric_difference(&description.seen) {
        let _ = writeln!(mistakes, "{id} {status}");
    }
    assert!(
        mistakes.is_empty(),
        "described or seen, not both:\n{mistakes}"
    );
}

/// The answers to requests with conditions.
fn see_who_has_seen_something_else(description: &mut Description) {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for key in ["a", "bulk"] {
        client
            .send("PUT", &format!("/kv/{key}"), "v")
            .expect(200, "");
    }
    for (operation, status, method, path, body, header) in CONDITIONAL {
        let plain = path.replace("/api/v1", "").replace("/touch", "");
        let read = client.send("GET", &plain, "");
        let tag = read.header("etag").unwrap_or_default();
        let header = match *header {
            "" => String::new(),
            header => format!(
                "{}\r\n",
                header
                    .replace(": T", &format!(": {tag}"))
                    .replace("W/T", &format!("W/{tag}"))
            ),
        };
        let answer = client.send_with(&header, method, path, body);
        description.check(operation, method, path, *status, &answer);
    }
}

/// What a full store answers to writes that would make it grow.
fn see_what_has_no_room(description: &mut Description) {
    let server = Server::start(&["--max-memory=1MiB"]);
    let mut client = server.connect();
    // Until not even the smallest value has room.
    for bytes in [100_000, 1000, 1] {
        let full = (0..).find(|n| {
            let path = format!("/kv/filler:{bytes}:{n}");
            client.send("PUT", &path, "v".repeat(bytes)).status == 507
        });
        assert!(full.is_some());
    }
    for (operation, method, path, body) in WRITES {
        let answer = server.send(method, path, body);
        if body.contains("\"value\"") {
            description.check(operation, method, path, 507, &answer);
        } else {
            assert_ne!(answer.status, 507, "{operation}");
        }
    }
}

/// The answers of a server with a limit to those who have used it up.
fn see_who_comes_too_often(description: &mut Description) {
    let server = Server::start(&["--rate-limit=1/m"]);
    let counted = |operation: &Value| operation["responses"].get("429").is_some();
    for [operation, method, path] in operations(description, counted) {
        // One comes back a minute.
        let answer = wait_for("a refusal", || {
            let answer = server.send(&method, &path, "");
            (answer.status == 429).then_some(answer)
        });
        description.check(&operation, &method, &path, 429, &answer);
    }
}

/// Whatever has a body that is still to come is turned away while too many others are coming.
fn see_who_is_turned_away(description: &mut Description) {
    let server = Server::start(&["--min-rate=0", "--max-memory=1MiB"]);
    let uploads = fill_with_uploads(&server);
    // Which has an answer of its own for this status.
    let others = |operation: &Value| operation["operationId"] != "getHealth";
    for [id, method, path] in operations(description, others) {
        let mut client = server.connect();
        client.write(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        let answer = client.read(&method);
        description.check(&id, &method, &path, 503, &answer);
    }
    drop(uploads);
}

/// The answers of a server with tokens to those who have none, or may only read.
fn see_who_is_let_in(description: &mut Description) {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let reader = tokens.create(&["--read-only"]);
    let server = Server::start(&["--auth", tokens.path()]);
    let guarded = |operation: &Value| operation["security"].is_null();
    for [operation, method, path] in operations(description, guarded) {
        let answer = server.send(&method, &path, "");
        description.check(&operation, &method, &path, 401, &answer);
        if WRITES.iter().any(|(writes, ..)| *writes == operation) {
            let header = format!("Authorization: Bearer {reader}\r\n");
            let answer = server.connect().send_with(&header, &method, &path, "");
            description.check(&operation, &method, &path, 403, &answer);
        }
    }
}

/// The answers of a server without tokens to requests that name a host which it does not know.
fn see_who_asks_for_another_host(description: &mut Description) {
    let server = Server::start(&[]);
    for [operation, method, path] in operations(description, |_| true) {
        let mut client = server.connect();
        client.write(format!(
            "{method} {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n"
        ));
        let answer = client.read(&method);
        description.check(&operation, &method, &path, 403, &answer);
    }
}

/// 405 and 404 are described for all paths at once.
#[test]
fn errors_that_belong_to_no_operation_look_as_described() {
    let server = Server::start(&[]);
    let description = Description::of(&server);
    for (method, path, status) in [
        ("PATCH", "/api/v1/kv/a", 405),
        ("GET", "/api/v1/kv/bulk/get", 405),
        ("GET", "/api/v1/nowhere", 404),
    ] {
        let answer = server.send(method, path, "");
        assert_eq!(answer.status, status);
        let schema = &description.document["components"]["schemas"]["Error"];
        description.expect(schema, &answer.json(), path);
    }
    for (path, item) in description.document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys();
        let methods = methods.filter(|method| *method != "parameters");
        let mut methods: BTreeSet<String> = methods.map(|it| it.to_ascii_uppercase()).collect();
        if methods.contains("GET") {
            methods.insert("HEAD".to_owned());
        }
        let answer = server.send("PATCH", &path.replace("{key}", "a"), "");
        let allow = answer.header("allow").unwrap();
        let allowed: BTreeSet<String> = allow.split(", ").map(str::to_owned).collect();
        assert_eq!(allowed, methods, "{path}");
    }
}

#[test]
fn the_examples_work_and_look_as_described() {
    let server = Server::start(&[]);
    let description = Description::of(&server);
    let mut found = 0;
    let order = |method: &str| {
        ["put", "post", "get", "delete"]
            .iter()
            .position(|it| *it == method)
    };
    let mut operations = description.operations();
    operations.sort_by_key(|(path, method, _)| (order(method), path.contains("delete")));
    for (path, method, operation) in operations {
        let what = format!("{method} {path}");
        for (status, response) in operation["responses"].as_object().unwrap() {
            let content = description.json_of(response);
            if let Some(example) = content.get("example") {
                description.expect(&content["schema"], example, &format!("{what} {status}"));
                found += 1;
            }
        }
        let content = description.json_of(&operation["requestBody"]);
        let lines = &operation["requestBody"]["content"]["application/x-ndjson"]["example"];
        if let Some(lines) = lines.as_str() {
            let answer = server.send(&method.to_ascii_uppercase(), path, lines);
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            found += 1;
        } else if operation["requestBody"].is_object() {
            description.expect(&content["schema"], &content["example"], &what);
            let path = path.replace("{key}", "user:42");
            let body = content["example"].to_string();
            let answer = server.send(&method.to_ascii_uppercase(), &path, body);
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            found += 1;
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let parameter = description.resolve(parameter);
            description.expect(&parameter["schema"], &parameter["example"], &what);
            found += 1;
        }
    }
    assert!(found > 20, "only {found} examples");
}

/// A component that nothing refers to, or an identifier that two operations have, is a mistake of whoever edits it.
#[test]
fn the_description_has_no_loose_ends() {
    let server = Server::start(&[]);
    let description = Description::of(&server);
    let text = description.document.to_string();
    for (kind, components) in description.document["components"].as_object().unwrap() {
        for name in components.as_object().unwrap().keys() {
            let reference = match &**kind {
                "securitySchemes" => format!(r#"{{"{name}":[]}}"#),
                _ => format!(r##""#/components/{kind}/{name}""##),
            };
            assert!(text.contains(&reference), "nothing refers to {reference}");
        }
    }
    let mut references = vec![&description.document];
    while let Some(node) = references.pop() {
        description.resolve(node);
        match node {
            Value::Object(fields) => references.extend(fields.values()),
            Value::Array(items) => references.extend(items),
            _ => {}
        }
    }
    let operations = description.operations();
    let ids: BTreeSet<&str> = operations
        .iter()
        .map(|(_, _, operation)| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), operations.len());
    let tags: BTreeSet<&str> = operations
        .iter()
        .flat_map(|(_, _, operation)| operation["tags"].as_array().unwrap())
        .map(|tag| tag.as_str().unwrap())
        .collect();
    let described = description.document["tags"].as_array().unwrap().iter();
    let described: BTreeSet<&str> = described.map(|tag| tag["name"].as_str().unwrap()).collect();
    assert_eq!(tags, described);
    assert_eq!(
        description.document["info"]["version"],
        env!("CARGO_PKG_VERSION")
    );
}
