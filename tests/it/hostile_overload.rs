//! More than the server can do at once: it says so, at once, and goes on with what it can do.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::bystander::Bystander;
use crate::client::{Client, Response};
use crate::crowd::never_reader;
use crate::process::{Server, wait_for};
use crate::usage::{Usage, expect_peak, forget_peak, wait_for_descriptors};

/// More clients than were ever served by threads of their own.
const MANY: usize = 400;

/// More than sockets hold.
const LARGE: usize = 5_000_000;

/// What a server may keep of the memory that a flood has taken: stacks of threads, for one thing, and the latest changes.
const KEPT: u64 = (20 << 20) + (16 << 20);

/// A server on which nothing is ended for being slow.
fn start(more: &[&str]) -> Server {
    let patient = ["--transfer-timeout=86400", "--min-rate=0"];
    Server::start(&[&patient, more].concat())
}

/// Checks that this is the answer of a server that has too much to do, in the style of either API.
#[track_caller]
fn expect_overload(answer: &Response) {
    assert_eq!(answer.status, 503, "{:.100}", answer.text());
    let seconds = answer.header("retry-after").expect("when to come back");
    assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds >= 1));
    if answer.header("content-type") == Some("application/json") {
        assert_eq!(answer.json()["error"]["code"], "CLUSTER_UNAVAILABLE");
    } else {
        let text = answer.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.ends_with('\n'), "{text}");
    }
}

/// Takes all memory that bodies may have, with uploads that do not go on.
pub fn fill_with_uploads(server: &Server) -> Vec<Client> {
    let mut uploads = Vec::new();
    while uploads.len() < MANY {
        let mut client = server.connect();
        client
            .write("PUT /kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n");
        // Either it is wanted, or there is no room.
        let answer = client.read("PUT");
        if answer.status != 100 {
            expect_overload(&answer);
            return uploads;
        }
        uploads.push(client);
    }
    panic!("room for {MANY} uploads");
}

#[test]
fn when_uploads_take_all_memory_newcomers_are_told_and_small_requests_go_on() {
    let server = start(&["--max-memory=6MiB"]);
    server.put("/kv/large", "v".repeat(LARGE)).expect(200, "");
    let bystander = Bystander::start(&server);
    let uploads = fill_with_uploads(&server);
    assert!(uploads.len() >= 100, "room for {} uploads", uploads.len());
    // Both APIs, bodies that are sent whole before the answer is looked for, and a part of one in chunks.
    for _ in 0..20 {
        let value = "v".repeat(200_000);
        expect_overload(&server.put("/kv/b", &value));
        let answer = server.put("/api/v1/kv/b", format!(r#"{{"value":"{value}"}}"#));
        answer.json();
        expect_overload(&answer);
        let mut client = server.connect();
        client.write("PUT /kv/b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.write("5\r\nhello\r\n");
        expect_overload(&client.read("PUT"));
        server.put("/kv/small", "v").expect(200, "");
        server.get("/kv/small").expect(200, "v");
    }
    server.get("/kv/b").expect(404, "key not found\n");
    assert_eq!(server.get("/kv/large").body.len(), LARGE);
    bystander.is_served();
    // Whoever had begun may go on.
    for mut upload in uploads {
        upload.write("v".repeat(2000));
        upload.read("PUT").expect(200, "");
    }
    server.put("/kv/b", "v".repeat(500_000)).expect(200, "");
    bystander.end();
}

/// However many there are, and however little they send: they take no thread and hardly any memory.
#[test]
fn slow_uploads_keep_nobody_from_uploading() {
    let server = start(&[]);
    let bystander = Bystander::start(&server);
    let upload = "PUT /kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
    let mut slow: Vec<Client> = (0..MANY).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.write(upload);
    }
    for _ in 0..20 {
        for client in slow.iter_mut().step_by(100) {
            client.write("v");
        }
        server.put("/kv/large", "v".repeat(LARGE)).expect(200, "");
    }
    bystander.end();
}

#[test]
fn whoever_does_not_read_keeps_nobody_from_reading() {
    let server = start(&[]);
    server.put("/kv/large", "v".repeat(LARGE)).expect(200, "");
    let bystander = Bystander::start(&server);
    let before = Usage::of(&server);
    forget_peak(&server);
    let request = "GET /kv/large HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut readers: Vec<TcpStream> = Vec::new();
    for n in 0..MANY / 2 {
        readers.push(never_reader(server.address, request).unwrap());
        if n % 50 == 0 {
            assert_eq!(server.get("/kv/large").body.len(), LARGE);
            let json = server.get("/api/v1/kv/large").json();
            assert_eq!(json["data"]["value"].as_str().unwrap().len(), LARGE);
        }
    }
    bystander.is_served();
    // The value is there once, however many wait for it; a connection takes its thread.
    expect_peak(&server, &before, 96 << 20);
    drop(readers);
    bystander.end();
    wait_for_descriptors(&server, &before);
}

/// What came in while the server stood still is more than it wants to keep waiting, or is not. No request is lost, and
/// none is carried out that was refused.
#[test]
fn every_request_of_a_flood_is_answered_or_refused() {
    const CLIENTS: usize = 200;
    const EACH: usize = 50;
    let server = Server::start(&["--workers", "1"]);
    let bystander = Bystander::start(&server);
    server.signal("-STOP");
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let request = |i| {
            format!(
                "PUT /kv/flood:{n}:{i} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv"
            )
        };
        client.write((0..EACH).map(request).collect::<String>());
    }
    server.signal("-CONT");
    let mut check = server.connect();
    let mut refused = 0;
    for (n, client) in clients.iter_mut().enumerate() {
        for i in 0..EACH {
            let key = format!("/kv/flood:{n}:{i}");
            match client.try_read("PUT") {
                Ok(answer) if answer.status == 200 => {
                    check.send("GET", &key, "").expect(200, "v");
                }
                Ok(answer) => {
                    expect_overload(&answer);
                    check.send("GET", &key, "").expect(404, "key not found\n");
                    refused += 1;
                }
                Err(error) => {
                    // Only after a refusal a connection may end.
                    assert!(refused > 0, "{error} before request {i} of client {n}");
                    break;
                }
            }
        }
    }
    bystander.end();
    assert_eq!(server.get("/kv/flood:0:0").status, 200);
}

/// Sends as many of these as the server takes, and reads nothing.
fn pipeline(server: &Server, request: &str, most: usize) -> TcpStream {
    let mut stream = never_reader(server.address, "").unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let many = request.repeat(1000);
    let mut sent = 0;
    while sent < most {
        match stream.write(many.as_bytes()) {
            Ok(bytes) => sent += bytes,
            Err(_) => break, // it takes no more, or not from us
        }
    }
    stream
}

#[test]
fn whoever_pipelines_without_end_and_does_not_read_harms_only_itself() {
    // At the same time, since each server waits for a second.
    thread::scope(|scope| {
        for request in [
            "GET /kv/value HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /kv/none HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "PUT /kv/put HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv",
            "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /kv/large HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ] {
            scope.spawn(|| expect_pipelining_to_be_harmless(request));
        }
    });
}

fn expect_pipelining_to_be_harmless(request: &str) {
    let server = Server::start(&["--workers", "2"]);
    server.put("/kv/value", "v".repeat(10_000)).expect(200, "");
    server.put("/kv/large", "v".repeat(LARGE)).expect(200, "");
    let bystander = Bystander::start(&server);
    let before = Usage::of(&server);
    forget_peak(&server);
    let hogs: Vec<TcpStream> = thread::scope(|scope| {
        let hog = |_| scope.spawn(|| pipeline(&server, request, 8 << 20));
        let hogs: Vec<_> = (0..3).map(hog).collect();
        hogs.into_iter().map(|hog| hog.join().unwrap()).collect()
    });
    bystander.is_served();
    expect_peak(&server, &before, 48 << 20);
    drop(hogs);
    wait_for_descriptors(&server, &before);
    bystander.end();
}

#[test]
fn what_a_flood_has_taken_goes_back_to_the_system() {
    let server = Server::start(&[]);
    let before = Usage::of(&server);
    let request = format!(
        "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{}",
        "v".repeat(60_000)
    );
    let mut clients: Vec<Client> = (0..2000).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write(&request);
    }
    for client in &mut clients {
        assert!([200, 503].contains(&client.read("PUT").status));
    }
    let peak = Usage::of(&server);
    drop(clients);
    wait_for("memory to go back", || {
        let now = Usage::of(&server);
        (now.memory < before.memory + KEPT).then_some(())
    });
    assert!(
        peak.memory > before.memory + KEPT,
        "it never took more than {peak}"
    );
}
