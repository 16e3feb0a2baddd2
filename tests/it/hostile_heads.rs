//! Heads without an end, and what is no head at all: the server stops reading in time, says why, and it costs next to nothing.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;

use crate::bystander::Bystander;
use crate::client::Client;
use crate::process::{PATIENCE, Server};
use crate::usage::{Usage, expect_peak, forget_peak, wait_for_descriptors, wait_for_threads};

/// The most that is sent of anything that should have been stopped long before.
const FAR_TOO_MUCH: usize = 256 << 20;

/// What the server throws away of a refused client, so that it gets to read why, and what sockets hold.
const THROWN_AWAY: usize = (64 + 16) << 20;

/// Sends it again and again until the server ends the connection. Returns how much that took.
fn send_endlessly(stream: &mut TcpStream, opening: &str, endless: &str) -> usize {
    stream.write_all(opening.as_bytes()).unwrap();
    let endless = endless.repeat((64 << 10) / endless.len());
    let mut sent = 0;
    while sent < FAR_TOO_MUCH {
        match stream.write(endless.as_bytes()) {
            Ok(bytes) => sent += bytes,
            Err(_) => break,
        }
    }
    sent
}

#[test]
fn a_head_without_end_is_not_read_to_its_end_and_costs_less_than_a_megabyte() {
    let server = Server::start(&[]);
    for (opening, endless) in [
        ("", "G"),
        ("GET /kv/", "a"),
        ("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n", "X"),
        ("GET /kv/a HTTP/1.1\r\nHost: localhost\r\nX: ", "x"),
        ("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n", "X: x\r\n"),
        ("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n", "a:\r\n"),
        ("GET /kv/a HTTP/1.1\r\nHost: localhost\r\nX: ", "\n"),
        ("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /kv/", "a"),
    ] {
        server.put("/kv/a", "v").expect(200, "");
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let before = Usage::of(&server);
        forget_peak(&server);
        let sent = send_endlessly(&mut stream, opening, endless);
        assert!(sent < THROWN_AWAY, "{sent} bytes of {opening:?}{endless:?}");
        expect_peak(&server, &before, 1 << 20);
        server.get("/kv/a").expect(200, "v");
    }
}

#[test]
fn many_heads_without_end_beside_others() {
    let server = Server::start(&[]);
    let bystander = Bystander::start(&server);
    let before = Usage::of(&server);
    forget_peak(&server);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let mut stream = TcpStream::connect(server.address).unwrap();
                    let sent = send_endlessly(&mut stream, "GET /kv/", "a");
                    assert!(sent < THROWN_AWAY, "{sent} bytes");
                }
            });
        }
    });
    bystander.end();
    expect_peak(&server, &before, 16 << 20);
    wait_for_descriptors(&server, &before);
}

#[test]
fn a_long_head_that_ends_is_served() {
    let server = Server::start(&[]);
    server.put("/kv/a", "v").expect(200, "");
    let mut client = server.connect();
    for (headers, length) in [(1, 30_000), (200, 100), (240, 1)] {
        let header = format!("X: {}\r\n", "x".repeat(length)).repeat(headers);
        client
            .send_with(&header, "GET", "/kv/a", "")
            .expect(200, "v");
    }
}

#[test]
fn a_line_of_a_chunk_without_end_ends_the_connection_and_takes_no_memory() {
    let server = Server::start(&["--transfer-timeout=2"]);
    let bystander = Bystander::start(&server);
    let before = Usage::of(&server);
    forget_peak(&server);
    let opening = "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    thread::scope(|scope| {
        for endless in ["0", "1;x", " ", "1;\"\n"] {
            let (server, first) = (&server, format!("{opening}{}", &endless[..1]));
            scope.spawn(move || {
                let mut stream = TcpStream::connect(server.address).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                let mut sent = 0;
                // What is fast enough may go on for as long as a body may; only then it must end.
                while sent < 100 * FAR_TOO_MUCH {
                    let more =
                        send_endlessly(&mut stream, if sent == 0 { &first } else { "" }, endless);
                    sent += more;
                    if more < FAR_TOO_MUCH {
                        return;
                    }
                }
                panic!("{sent} bytes of {endless:?}");
            });
        }
    });
    bystander.end();
    expect_peak(&server, &before, 16 << 20);
    wait_for_descriptors(&server, &before);
    server.get("/kv/a").expect(404, "key not found\n");
}

#[test]
fn other_versions_of_http_are_refused_and_leave_nothing_behind() {
    let server = Server::start(&[]);
    let bystander = Bystander::start(&server);
    let before = Usage::of(&server);
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let clients: Vec<Client> = (0..20)
        .flat_map(|_| {
            [
                preface.to_owned() + "\0\0\0\x04\0\0\0\0\0",
                "GET /kv/a HTTP/2.0\r\n\r\n".into(),
                "GET /kv/a HTTP/3.0\r\nConnection: close\r\n\r\n".into(),
                "PUT /kv/a HTTP/2.0\r\nContent-Length: 5\r\n\r\nhello".into(),
                "PUT /kv/a HTTP/2.0\r\nContent-Length: 99999999999999\r\n\r\nhello".into(),
                "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /kv/a HTTP/2.0\r\n\r\n".into(),
            ]
        })
        .map(|request| {
            let mut client = server.connect();
            client.write(request);
            client
        })
        .collect();
    bystander.is_served();
    for mut client in clients {
        // An answer, or two, or none at all; and then the end.
        loop {
            match client.try_read("GET") {
                Ok(answer) => assert!([400, 404, 505].contains(&answer.status), "{answer:?}"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no end"),
                Err(_) => break,
            }
        }
    }
    bystander.end();
    wait_for_descriptors(&server, &before);
    wait_for_threads(&server, &before);
}

/// tiny_http answers it by itself, and does not wait for the answers before.
#[test]
fn an_expectation_that_is_not_met_is_refused_in_its_turn() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.write(
        "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 200-ok\r\n\r\nhello",
    );
    assert_eq!(client.read("PUT").status, 417);
    for _ in 0..50 {
        let mut client = server.connect();
        client.write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3));
        client.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 200-ok\r\n\r\nhello");
        for _ in 0..3 {
            client.read("GET").expect(404, "key not found\n");
        }
        assert_eq!(client.read("PUT").status, 417);
    }
}

#[test]
fn clients_of_other_protocols_are_told_or_left_and_leave_nothing_behind() {
    let server = Server::start(&[]);
    let bystander = Bystander::start(&server);
    let before = Usage::of(&server);
    let noise: Vec<u8> = (0..5000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".as_slice(),
        b"*1\r\n$4\r\nPING\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\0\0\0\0\0\0\r\n\r\n",
        b"get /kv/a http/1.1\r\n\r\n",
        b"GET  /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /kv/a\x80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /kv/a HTTP/1.1\r\nHost: localhost\r\nX\xff: 1\r\n\r\n",
        b"GET /kv/a HTTP/1.1\n\n",
        b"\r\n\r\n\r\n\r\n",
        b": :\r\n: :\r\n\r\n",
        &noise,
    ] {
        for _ in 0..5 {
            let stream = TcpStream::connect(server.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            (&stream).write_all(bytes).unwrap();
            // It will not send the rest of whatever it is.
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            if let Err(error) = std::io::Read::read_to_end(&mut &stream, &mut answer) {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            }
            let answer = String::from_utf8_lossy(&answer);
            assert!(
                answer.is_empty()
                    || answer.starts_with("HTTP/1.1 4")
                    || answer.starts_with("HTTP/1.1 505"),
                "{answer}"
            );
        }
    }
    bystander.end();
    wait_for_descriptors(&server, &before);
}
