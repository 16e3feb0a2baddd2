//! Descriptors and connections run out: whoever is served already stays served, and it is over when they are back.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::bystander::Bystander;
use crate::client::Client;
use crate::process::raise_own_limit;
use crate::process::{Server, wait_for};
use crate::usage::{Usage, wait_for_descriptors};

/// From now on the process may have so many descriptors; it keeps those that it has.
fn limit_descriptors(server: &Server, limit: u64) {
    let pid = Pid::from_raw(server.pid() as i32);
    let maximum = prlimit(
        pid,
        Resource::Nofile,
        Rlimit {
            current: Some(limit),
            maximum: Some(raise_own_limit()),
        },
    );
    maximum.unwrap();
}

#[test]
fn without_descriptors_connections_are_served_that_there_are() {
    let server = Server::start(&[]);
    let bystander = Bystander::start(&server);
    let mut uploader = server.connect();
    uploader.send("PUT", "/kv/a", "v").expect(200, "");
    let before = Usage::of(&server);
    limit_descriptors(&server, 10);
    // These are in the kernel's queue, and the server has no descriptor to take them with.
    let mut newcomers: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for newcomer in &mut newcomers {
        newcomer.write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    bystander.is_served();
    // Whatever takes another way than small requests.
    let value = "v".repeat(200_000);
    uploader.send("PUT", "/kv/b", &value).expect(200, "");
    uploader.write("PUT /kv/c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    uploader.write("5\r\nhello\r\n0\r\n\r\n");
    uploader.read("PUT").expect(200, "");
    uploader.send("GET", "/kv/b", "").expect(200, &value);
    let mut absurd = uploader;
    absurd.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999\r\n\r\n");
    absurd.read("PUT").expect(413, "value too large\n");
    absurd.expect_end();
    bystander.is_served();
    limit_descriptors(&server, raise_own_limit());
    for newcomer in &mut newcomers {
        newcomer.read("GET").expect(200, "v");
    }
    drop((newcomers, absurd));
    server.get("/kv/a").expect(200, "v");
    bystander.end();
    wait_for_descriptors(&server, &before);
}

#[test]
fn connections_that_are_taken_by_the_slow_come_free_for_others() {
    // At the same time, since each kind waits for seconds.
    thread::scope(|scope| {
        for request in [
            "",
            "GET /kv/a HTTP/1.1\r\nHost: localhost\r\nX:",
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\nv",
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nv",
        ] {
            scope.spawn(|| expect_others_served_behind(request));
        }
    });
}

/// Takes all connections of a server with clients that send this, and no more.
fn expect_others_served_behind(request: &str) {
    let server = Server::start(&[
        "--max-connections=30",
        "--head-timeout=1",
        "--idle-timeout=2",
        "--transfer-timeout=2",
    ]);
    server.put("/kv/a", "v").expect(200, "");
    let bystander = Bystander::start(&server);
    let mut slow: Vec<Client> = (0..30).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.write(request);
    }
    // Behind all of them.
    server.get("/kv/a").expect(200, "v");
    bystander.end();
    drop(slow);
    wait_for("room for everybody", || {
        let mut clients: Vec<Client> = (0..24).map(|_| server.connect()).collect();
        clients
            .iter_mut()
            .all(|client| client.send("GET", "/kv/a", "").status == 200)
            .then_some(())
    });
}

#[test]
fn clients_that_reset_at_once_leave_nothing_behind() {
    let server = Server::start(&[]);
    server.put("/kv/a", "v").expect(200, "");
    let before = Usage::of(&server);
    // So that all of them wait to be accepted, and then come at once.
    server.signal("-STOP");
    for request in ["", "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n"].repeat(250) {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        // Whatever is under way is forgotten, and the other side told so.
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    server.signal("-CONT");
    wait_for_descriptors(&server, &before);
    server.get("/kv/a").expect(200, "v");
}
