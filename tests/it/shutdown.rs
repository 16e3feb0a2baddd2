//! SIGTERM, SIGINT and SIGQUIT: requests in flight finish, newcomers are refused, the status is 0. A second signal ends it.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::process::{Server, wait_for};

#[test]
fn it_stops_at_once_when_nothing_is_in_flight() {
    for signal in ["-TERM", "-INT", "-QUIT"] {
        let mut server = Server::start(&[]);
        let mut idle = server.connect();
        idle.send("PUT", "/kv/a", "1").expect(200, "");
        let started = Instant::now();
        server.signal(signal);
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log:?}");
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "waited for an idle connection"
        );
        idle.expect_end();
    }
}

#[test]
fn requests_in_flight_finish() {
    let mut server = Server::start(&[]);
    let large = "v".repeat(500_000);
    // Three that have only been sent in part: the head; a body that tiny_http reads; a body that we read.
    let mut head = server.connect();
    head.write("PUT /kv/head HTTP/1.1\r\nHost: localhost\r\nContent-");
    let mut small = server.connect();
    small.write("PUT /kv/small HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345");
    let mut upload = server.connect();
    upload.write("PUT /kv/large HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n");
    upload.write(&large[..2000]);
    // One whose answer has not been read: more than sockets hold.
    let mut download = server.connect();
    let huge = "h".repeat(10_000_000);
    download.send("PUT", "/kv/huge", &huge).expect(200, "");
    download.write("GET /kv/huge HTTP/1.1\r\nHost: localhost\r\n\r\n");

    server.signal("-TERM");
    server.wait_for_log("draining");
    wait_for("newcomers to be refused", || {
        TcpStream::connect(server.address).err()
    });

    head.write("Length: 1\r\n\r\nv");
    small.write("67890");
    upload.write(&large[2000..]);
    for client in [&mut head, &mut small, &mut upload] {
        let response = client.read("PUT");
        response.expect(200, "");
        assert_eq!(response.header("connection"), Some("close"));
    }
    assert!(download.read("GET").text() == huge);
    // Nothing is in flight any more, so it ends, although the clients stay.
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log:?}");
    assert!(log.iter().any(|line| line.contains("drained")), "{log:?}");
}

#[test]
fn a_request_that_does_not_finish_is_given_up_after_15_seconds() {
    let mut server = Server::start(&["--min-rate=0"]);
    let _upload = upload(&server);
    let started = Instant::now();
    server.signal("-TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0));
    assert!(started.elapsed() >= Duration::from_secs(15));
    assert!(
        log.iter()
            .any(|line| line.contains("1 requests did not finish")),
        "{log:?}"
    );
}

/// A client whose body is awaited.
pub fn upload(server: &Server) -> Client {
    let mut upload = server.connect();
    upload.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 500000\r\n\r\n");
    assert_eq!(upload.read("PUT").status, 100);
    upload
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&[]);
    let _upload = upload(&server);
    server.signal("-TERM");
    server.wait_for_log("draining");
    let started = Instant::now();
    server.signal("-TERM");
    let (status, _) = server.wait();
    assert_eq!(status.code(), Some(128 + 15));
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "waited for the request in flight"
    );
}

/// The kernel takes connections ahead of the server, and requests on them.
#[test]
fn clients_that_have_connected_before_the_signal_are_served() {
    let mut server = Server::start(&[]);
    server.signal("-STOP");
    let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.write(format!(
            "PUT /kv/key{n} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv"
        ));
    }
    server.signal("-TERM");
    server.signal("-CONT");
    for client in &mut clients {
        client.read("PUT").expect(200, "");
    }
    assert_eq!(server.wait().0.code(), Some(0));
}
