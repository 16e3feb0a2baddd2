//! Clients that are slow on purpose: each is given its time, and then its connection is closed. Others notice nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::bystander::Bystander;
use crate::crowd::{Crowd, never_reader};
use crate::process::{Server, wait_for};
use crate::usage::{Usage, wait_for_descriptors};

/// More than sockets hold.
const LARGE: usize = 5_000_000;

/// A server that closes connections for what these options say, and for nothing else, and a connection that shows it.
fn start(options: &[&str]) -> (Server, Bystander) {
    let patient = [
        "--idle-timeout=86400",
        "--head-timeout=86400",
        "--transfer-timeout=86400",
        "--min-rate=0",
    ];
    let name = |option: &str| option.split('=').next().unwrap().to_owned();
    let given: Vec<String> = options.iter().map(|option| name(option)).collect();
    let others = patient
        .iter()
        .filter(|option| !given.contains(&name(option)));
    let all: Vec<&str> = options.iter().chain(others).copied().collect();
    let server = Server::start(&all);
    let bystander = Bystander::start(&server);
    (server, bystander)
}

/// Goes on dripping in all of them until the server has ended all connections.
fn drip_until_all_ended(crowds: &mut [Crowd]) {
    wait_for("all of them to be ended", || {
        let left: usize = crowds.iter_mut().map(Crowd::drip).sum();
        thread::sleep(Duration::from_millis(20));
        (left == 0).then_some(())
    });
}

#[test]
fn heads_that_drip_end_after_the_head_timeout() {
    let (server, bystander) = start(&["--head-timeout=1"]);
    let mut idle = server.connect();
    idle.send("PUT", "/kv/a", "v").expect(200, "");
    let before = Usage::of(&server);
    // In the request line, in a header, in a head that comes after another request; and in silence.
    let crowds = [
        ("GET /kv/", "a"),
        ("GET /kv/a HTTP/1.1\r\nHost: localhost\r\nX: ", "x"),
        ("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n", "a:b\r\n"),
        ("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /kv/", "a"),
        ("\r", "\r"),
        ("G", ""),
    ];
    let mut crowds = crowds.map(|it| Crowd::connect(server.address, 20, it.0, it.1));
    drip_until_all_ended(&mut crowds);
    for crowd in &crowds {
        crowd.expect_ended_with(&[0, 200, 400, 408]);
    }
    wait_for_descriptors(&server, &before);
    // Idle is something else.
    idle.send("GET", "/kv/a", "").expect(200, "v");
    bystander.end();
}

#[test]
fn idle_connections_end_after_the_idle_timeout() {
    let (server, bystander) = start(&["--idle-timeout=2"]);
    let before = Usage::of(&server);
    let mut upload = server.connect();
    upload.write("PUT /kv/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n");
    let mut unused = Crowd::connect(server.address, 50, "", "");
    let mut used = Crowd::connect(
        server.address,
        50,
        "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "",
    );
    unused.drip_until_ended();
    used.drip_until_ended();
    unused.expect_ended_with(&[0]);
    used.expect_ended_with(&[404]);
    // This was not idle, however silent.
    upload.write("v".repeat(5000));
    upload.read("PUT").expect(200, "");
    drop(upload);
    wait_for_descriptors(&server, &before);
    bystander.end();
}

/// How bodies come that are not there at once; and how one that tiny_http reads by itself.
const BODIES: &[(&str, &str)] = &[
    (
        "PUT /kv/drip HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
        "v",
    ),
    (
        "PUT /kv/drip HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
        "v",
    ),
    (
        "PUT /kv/drip HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        "1\r\nv\r\n",
    ),
    (
        "PUT /kv/drip HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n",
        "v",
    ),
    (
        "PUT /api/v1/kv/drip HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
        " ",
    ),
    // Refused, and the rest of it still coming.
    (
        "PUT /kv/%20 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
        "v",
    ),
];

/// Bodies that drip end, and are not kept, whatever the server was told to end them for.
fn expect_bodies_that_drip_to_end(option: &str) {
    let (server, bystander) = start(&[option]);
    let mut idle = server.connect();
    idle.send("PUT", "/kv/a", "v").expect(200, "");
    let before = Usage::of(&server);
    let connect =
        |(opening, drips): &(&str, &str)| Crowd::connect(server.address, 10, *opening, drips);
    let mut crowds: Vec<Crowd> = BODIES.iter().map(connect).collect();
    drip_until_all_ended(&mut crowds);
    for crowd in &crowds {
        crowd.expect_ended_with(&[0, 100, 400, 408, 503]);
    }
    wait_for_descriptors(&server, &before);
    server.get("/kv/drip").expect(404, "key not found\n");
    // There are threads for others again.
    server.put("/kv/a", "v".repeat(LARGE)).expect(200, "");
    assert_eq!(idle.send("GET", "/kv/a", "").body.len(), LARGE);
    bystander.end();
}

#[test]
fn bodies_that_drip_end_after_the_transfer_timeout() {
    expect_bodies_that_drip_to_end("--transfer-timeout=2");
}

#[test]
fn bodies_that_drip_end_under_the_minimum_rate() {
    expect_bodies_that_drip_to_end("--min-rate=2000");
}

/// Clients that do not read, or hardly, lose their connection, whatever the server was told to end them for.
fn expect_readers_that_do_not_read_to_end(option: &str) {
    let (server, bystander) = start(&[option]);
    let value = "v".repeat(LARGE);
    server.put("/kv/large", &value).expect(200, "");
    let before = Usage::of(&server);
    let read_little = |mut stream: &TcpStream| stream.read(&mut [0; 10]);
    let request = "GET /kv/large HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut readers: Vec<TcpStream> = (0..20)
        .map(|_| never_reader(server.address, request).unwrap())
        .collect();
    // Half of them read at least something, as long as anything comes.
    wait_for("their descriptors to be given back", || {
        readers[..10].iter().for_each(|reader| {
            let _ = read_little(reader); // fails when it is over
        });
        bystander.is_served();
        (Usage::of(&server).descriptors <= before.descriptors).then_some(())
    });
    for reader in &mut readers {
        let mut rest = Vec::new();
        // The kernel may have forgotten the connection by now, and then no end comes.
        reader
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let _ = reader.read_to_end(&mut rest);
        assert!(rest.len() < LARGE, "got all of it");
    }
    assert!(server.get("/kv/large").text() == value);
    bystander.end();
}

#[test]
fn readers_that_do_not_read_end_after_the_transfer_timeout() {
    expect_readers_that_do_not_read_to_end("--transfer-timeout=2");
}

#[test]
fn readers_that_do_not_read_end_under_the_minimum_rate() {
    expect_readers_that_do_not_read_to_end("--min-rate=2000");
}

#[test]
fn slow_is_not_hostile() {
    let server = Server::start(&[]);
    let value = "v".repeat(LARGE);
    server.put("/kv/large", &value).expect(200, "");
    let pieces = |mut stream: &TcpStream, bytes: &[u8]| {
        for piece in bytes.chunks(bytes.len().div_ceil(20)) {
            stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
    };
    let body = "v".repeat(20_000);
    let put = format!(
        "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\nX: {body}\r\n\r\n"
    );
    let mut stream = never_reader(server.address, "").unwrap();
    pieces(&stream, put.as_bytes());
    pieces(&stream, body.as_bytes());
    pieces(
        &stream,
        b"GET /kv/large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    let mut answers = Vec::new();
    for _ in 0..20 {
        let mut piece = vec![0; 10_000];
        let bytes = stream.read(&mut piece).unwrap();
        answers.extend(&piece[..bytes]);
        thread::sleep(Duration::from_millis(10));
    }
    stream.read_to_end(&mut answers).unwrap();
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2);
    assert!(answers.ends_with(&value));
}
