//! Bodies that are announced: absurd, huge, merely too large. None is believed, and honest clients get their answer.

use std::thread;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::bystander::Bystander;
use crate::client::Client;
use crate::process::Server;
use crate::usage::{Usage, expect_peak, forget_peak, wait_for_descriptors};

const METHODS: &[&str] = &["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];

/// Paths, and the methods they have.
const ROUTES: &[(&str, &[&str])] = &[
    ("/kv/a", &["GET", "HEAD", "PUT", "DELETE"]),
    ("/clear", &["DELETE"]),
    ("/api/v1/kv?prefix=a", &["GET", "HEAD", "DELETE"]),
    ("/api/v1/kv/a", &["GET", "HEAD", "PUT", "DELETE"]),
    ("/api/v1/kv/a/ttl", &["GET", "HEAD"]),
    ("/api/v1/kv/a/touch", &["POST"]),
    ("/api/v1/kv/bulk/get", &["POST"]),
    ("/api/v1/kv/bulk/delete", &["POST"]),
    ("/api/v1/kv/bulk/touch", &["POST"]),
    ("/api/v1/health", &["GET", "HEAD"]),
    ("/api/v1/status", &["GET", "HEAD"]),
    ("/api/v1/openapi.json", &["GET", "HEAD"]),
    ("/nowhere", &[]),
    ("/api/v1/nowhere", &[]),
];

/// From 10^9 to beyond what any integer holds.
const LENGTHS: &[&str] = &[
    "1000000000",
    "4294967296",
    "99999999999999",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "999999999999999999999999999999",
];

/// Memory that a server may take for a while, whatever it is asked: stacks of threads, and what the allocator keeps.
const SOME: u64 = 48 << 20;

#[test]
fn an_absurd_length_gets_its_error_on_every_route_and_costs_next_to_nothing() {
    let server = Server::start(&[]);
    server.put("/kv/a", "before").expect(200, "");
    let bystander = Bystander::start(&server);
    let before = Usage::of(&server);
    forget_peak(&server);
    for (path, methods) in ROUTES {
        for method in METHODS {
            let expected: &[u16] = match (methods.contains(method), methods.is_empty()) {
                (true, _) => &[413],
                (false, false) => &[405],
                (false, true) => &[404],
            };
            for length in LENGTHS {
                let mut client = server.connect();
                client.write(format!(
                    "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
                ));
                let answer = client.read(method);
                assert!(
                    expected.contains(&answer.status),
                    "{method} {path} {length}: {}",
                    answer.status
                );
                if path.starts_with("/api") && *method != "HEAD" {
                    answer.json();
                }
                client.expect_end();
            }
        }
    }
    bystander.end();
    server.get("/kv/a").expect(200, "before");
    expect_peak(&server, &before, SOME);
    wait_for_descriptors(&server, &before);
}

#[test]
fn an_absurd_length_is_no_worse_in_any_other_company() {
    let server = Server::start(&[]);
    let bystander = Bystander::start(&server);
    let before = Usage::of(&server);
    for length in LENGTHS {
        for headers in [
            "Connection: close\r\n",
            "Connection: upgrade\r\n",
            "Expect: 100-continue\r\n",
            "Expect: 100-continue\r\nConnection: upgrade\r\n",
        ] {
            let mut client = server.connect();
            client.write(format!(
                "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n"
            ));
            assert_eq!(client.read("PUT").status, 413, "{headers}{length}");
            client.expect_end();
        }
        // In HTTP/1.0, behind other requests, and before what would be another one.
        let mut client = server.connect();
        client.write(format!(
            "PUT /kv/a HTTP/1.0\r\nContent-Length: {length}\r\n\r\n"
        ));
        assert_eq!(client.read("PUT").status, 413);
        let mut client = server.connect();
        let small = "PUT /kv/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv".repeat(3);
        client.write(format!(
            "{small}PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\nDELETE /kv/b HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        for _ in 0..3 {
            client.read("PUT").expect(200, "");
        }
        assert_eq!(client.read("PUT").status, 413);
        client.expect_end();
        server.get("/kv/b").expect(200, "v");
        // From clients that are gone before they could be told.
        for _ in 0..10 {
            server.connect().write(format!(
                "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\nsome of it"
            ));
            // And behind one that is refused, and read no further.
            let refused = format!(
                "PUT /kv/%20 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n{:2000}",
                ""
            );
            server.connect().write(format!(
                "{refused}PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\nx"
            ));
        }
    }
    bystander.end();
    wait_for_descriptors(&server, &before);
    server.get("/kv/a").expect(404, "key not found\n");
}

#[test]
fn many_absurd_lengths_at_once_leave_no_more_behind_than_one() {
    let server = Server::start(&[]);
    let bystander = Bystander::start(&server);
    let before = Usage::of(&server);
    for length in LENGTHS {
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let mut client = server.connect();
                        client.write(format!(
                            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
                        ));
                        client.read("PUT").expect(413, "value too large\n");
                    }
                });
            }
        });
    }
    bystander.end();
    wait_for_descriptors(&server, &before);
}

#[test]
fn whoever_sends_a_few_megabytes_too_many_reads_that_they_are_too_many() {
    let limit = 1_000_000;
    let server = Server::start(&["--max-value-bytes", &limit.to_string()]);
    let bystander = Bystander::start(&server);
    for more in [1, 5_000, 1_000_000, 8_000_000] {
        let (value, length) = ("v".repeat(limit + more), limit + more);
        for body in [
            format!("Content-Length: {length}\r\n\r\n{value}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{value}\r\n0\r\n\r\n"),
        ] {
            let mut client = server.connect();
            // All of it, before the answer is looked for.
            client.write(format!("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\n{body}"));
            client.read("PUT").expect(413, "value too large\n");
            client.expect_end();
        }
        // The other API lets some more through, for escapes, and then looks at the value.
        let body = format!(r#"{{"value":"{}"}}"#, "v".repeat(2 * limit + 65536 + more));
        let answer = server.put("/api/v1/kv/a", body);
        assert_eq!(answer.status, 413);
        assert_eq!(answer.json()["error"]["code"], "PAYLOAD_TOO_LARGE");
    }
    bystander.end();
    server.get("/kv/a").expect(404, "key not found\n");
}

#[test]
fn a_limit_holds_for_short_bodies_however_they_come() {
    let server = Server::start(&["--max-value-bytes=5"]);
    for (body, status) in [
        ("Content-Length: 5\r\n\r\nhello", 200),
        ("Content-Length: 6\r\n\r\nhello!", 413),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            200,
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n6\r\nhello!\r\n0\r\n\r\n",
            413,
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
            413,
        ),
    ] {
        let mut client = server.connect();
        client.write(format!("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\n{body}"));
        assert_eq!(client.read("PUT").status, status, "{body}");
    }
    server.get("/kv/a").expect(200, "hello");
}

#[test]
fn what_is_announced_and_does_not_come_takes_no_memory() {
    let server = Server::start(&["--max-value-bytes", "1000000000"]);
    let bystander = Bystander::start(&server);
    let before = Usage::of(&server);
    forget_peak(&server);
    let uploads: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = server.connect();
            client.write(
                "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\nsome",
            );
            client
        })
        .collect();
    bystander.is_served();
    drop(uploads);
    wait_for_descriptors(&server, &before);
    expect_peak(&server, &before, 16 << 20);
    bystander.end();
}

#[test]
fn where_memory_is_promised_to_nobody_an_absurd_length_leaves_nothing_behind() {
    let server = Server::start(&[]);
    let mut steady = server.connect();
    steady.send("PUT", "/kv/a", "v").expect(200, "");
    let before = Usage::of(&server);
    // As with `vm.overcommit_memory=2`: no room for a body of the announced length, but for threads.
    let room = Some(2 << 30);
    let limit = Rlimit {
        current: room,
        maximum: room,
    };
    let pid = Pid::from_raw(server.pid().cast_signed());
    prlimit(pid, Resource::As, limit).unwrap();
    let sent = 50;
    for n in 0..sent {
        let mut client = server.connect();
        let length = LENGTHS[n % LENGTHS.len()];
        client.write(format!(
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        ));
        client.read("PUT").expect(413, "value too large\n");
        client.expect_end();
        steady.send("GET", "/kv/a", "").expect(200, "v");
    }
    wait_for_descriptors(&server, &before);
    let after = Usage::of(&server);
    assert!(after.memory < before.memory + SOME);
}
