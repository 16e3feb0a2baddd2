//! The ten checks that `lsfr test http-api` makes, each under its name, with more inputs than one example.

use std::collections::HashSet;
use std::sync::Barrier;
use std::thread;

use crate::process::Server;

#[test]
fn put_basic_operations() {
    let server = Server::start(&[]);
    for (key, value) in [
        ("kenya:capital", "Nairobi"),
        ("uganda:capital", "Kampala"),
        ("tanzania:capital", "Dar es Salaam"),
    ] {
        server.put(&format!("/kv/{key}"), value).expect(200, "");
    }
    server.put("/kv/tanzania:capital", "Dodoma").expect(200, "");
    server.get("/kv/tanzania:capital").expect(200, "Dodoma");
    server.get("/kv/kenya:capital").expect(200, "Nairobi");
}

#[test]
fn put_edge_and_error_cases() {
    let server = Server::start(&[]);
    server
        .put("/kv/empty", "")
        .expect(400, "value cannot be empty\n");
    server.get("/kv/empty").expect(404, "key not found\n");
    // Without a Content-Length there is no body either.
    let mut client = server.connect();
    client.write("PUT /kv/empty HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.read("PUT").expect(400, "value cannot be empty\n");

    server
        .put("/kv/", "some_value")
        .expect(400, "key cannot be empty\n");
    server.put("/kv/", "").expect(400, "key cannot be empty\n");
    server
        .put("/kv/?a=b", "v")
        .expect(400, "key cannot be empty\n");

    let long_key = format!("/kv/long:{}", "k".repeat(100));
    let long_value = "v".repeat(10_000);
    for (path, value) in [
        ("/kv/unicode:key", "🌍 Nairobi"),
        (&long_key, &long_value),
        (
            "/kv/special:key-with_symbols.123",
            "value with spaces & symbols! \t",
        ),
        ("/kv/percent", "100%25 + a=b&c"),
        (
            "/kv/lines",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n\n",
        ),
        ("/kv/nul", "\0"),
    ] {
        server.put(path, value).expect(200, "");
        server.get(path).expect(200, value);
    }
}

#[test]
fn get_basic_operations() {
    let server = Server::start(&[]);
    server.put("/kv/a", "1").expect(200, "");
    let response = server.get("/kv/a");
    response.expect(200, "1");
    assert_eq!(
        response.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(response.header("content-length"), Some("1"));
    // Percent-encoding and a query make no difference.
    server.get("/kv/%61").expect(200, "1");
    server.get("/kv/a?b=c").expect(200, "1");
    server.put("/kv/user%3A1", "x").expect(200, "");
    server.get("/kv/user:1").expect(200, "x");
}

#[test]
fn get_edge_and_error_cases() {
    let server = Server::start(&[]);
    server.put("/kv/kenya:capital", "Nairobi").expect(200, "");
    server
        .get("/kv/nonexistent:key")
        .expect(404, "key not found\n");
    server
        .get("/kv/KENYA:CAPITAL")
        .expect(404, "key not found\n");
    server.get("/kv/").expect(400, "key cannot be empty\n");
    for path in ["/kv", "/kvs/a", "/clear/", "/api", "/favicon.ico"] {
        server.get(path).expect(404, "not found\n");
    }
}

#[test]
fn keys_outside_the_rules_are_refused_with_the_rule() {
    let server = Server::start(&[]);
    let alphabet = "key may only contain ASCII letters, digits and the characters : _ . -\n";
    for key in [
        "a%20b",
        "a/b",
        "a%2Fb",
        "%F0%9F%98%8A",
        "a%00",
        "a%zz",
        "a%",
        "a+b",
        "a~b",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            server
                .send(method, &format!("/kv/{key}"), "v")
                .expect(400, alphabet);
        }
    }
    let longest = format!("/kv/{}", "k".repeat(1024));
    server.put(&longest, "v").expect(200, "");
    server.get(&longest).expect(200, "v");
    let too_long = "key cannot be longer than 1024 bytes, this one has 1025\n";
    server
        .put(&format!("{longest}k"), "v")
        .expect(400, too_long);
    // What is refused is refused also when its body is still on the way.
    server
        .put("/kv/a%20b", "v".repeat(2000))
        .expect(400, alphabet);
}

#[test]
fn delete_basic_operations() {
    let server = Server::start(&[]);
    server.put("/kv/a", "1");
    server.put("/kv/b", "2");
    server.delete("/kv/a").expect(200, "");
    server.get("/kv/a").expect(404, "key not found\n");
    server.get("/kv/b").expect(200, "2");
}

#[test]
fn delete_edge_and_error_cases() {
    let server = Server::start(&[]);
    server.delete("/kv/nonexistent:key").expect(200, "");
    server.put("/kv/twice", "v");
    server.delete("/kv/twice").expect(200, "");
    server.delete("/kv/twice").expect(200, "");
    server.delete("/kv/").expect(400, "key cannot be empty\n");
    // A body with it is of no interest.
    server.send("DELETE", "/kv/twice", "body").expect(200, "");
    server
        .send("DELETE", "/kv/twice", "b".repeat(5000))
        .expect(200, "");
}

#[test]
fn clear_operations() {
    let server = Server::start(&[]);
    server.delete("/clear").expect(200, "");
    for n in 0..300 {
        server
            .put(&format!("/kv/clear:test{n}"), "v")
            .expect(200, "");
    }
    server.delete("/clear").expect(200, "");
    for n in 0..300 {
        server
            .get(&format!("/kv/clear:test{n}"))
            .expect(404, "key not found\n");
    }
    server.delete("/clear").expect(200, "");
    server.put("/kv/after", "v").expect(200, "");
    server.get("/kv/after").expect(200, "v");
}

#[test]
fn concurrent_operations_different_keys() {
    let server = Server::start(&[]);
    let together = Barrier::new(100);
    thread::scope(|scope| {
        for n in 1..=100 {
            let (server, together) = (&server, &together);
            scope.spawn(move || {
                let mut client = server.connect();
                together.wait();
                for round in 0..20 {
                    let (path, value) = (
                        format!("/kv/concurrent:key{n}"),
                        format!("value{n}.{round}"),
                    );
                    client.send("PUT", &path, &value).expect(200, "");
                    client.send("GET", &path, "").expect(200, &value);
                }
            });
        }
    });
    for n in 1..=100 {
        server
            .get(&format!("/kv/concurrent:key{n}"))
            .expect(200, &format!("value{n}.19"));
    }
}

#[test]
fn concurrent_operations_same_key() {
    let server = Server::start(&[]);
    // Longer than one write to the socket, so that a mixture would show.
    let values: HashSet<String> = (1..=100)
        .map(|n| format!("value{n};").repeat(5000))
        .collect();
    let together = Barrier::new(100);
    thread::scope(|scope| {
        for value in &values {
            let (server, together, values) = (&server, &together, &values);
            scope.spawn(move || {
                let mut client = server.connect();
                together.wait();
                client
                    .send("PUT", "/kv/concurrent:racekey", value)
                    .expect(200, "");
                let read = client.send("GET", "/kv/concurrent:racekey", "");
                assert_eq!(read.status, 200);
                assert!(values.contains(read.text()));
            });
        }
    });
}

#[test]
fn check_allowed_http_methods() {
    let server = Server::start(&[]);
    for method in [
        "POST", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get",
    ] {
        let response = server.send(method, "/kv/test:key", "");
        response.expect(405, "method not allowed\n");
        assert_eq!(response.header("allow"), Some("GET, HEAD, PUT, DELETE"));
        server
            .send(method, "/kv/", "")
            .expect(405, "method not allowed\n");
    }
    for method in ["GET", "POST", "PUT", "PATCH", "OPTIONS"] {
        let response = server.send(method, "/clear", "");
        response.expect(405, "method not allowed\n");
        assert_eq!(response.header("allow"), Some("DELETE"));
    }
    server
        .send("POST", "/nowhere", "")
        .expect(404, "not found\n");
}
