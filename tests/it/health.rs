//! `threadkv health`, for supervisors that ask by a command.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::thread;

use crate::directory::Directory;
use crate::options::{expect_mistake, expect_mistake_with, run_with};
use crate::process::{Server, wait_for};
use crate::shutdown::upload;

/// Lets one client ask something that answers in the place of a server.
fn answer_once(answer: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 1000];
        let read = client.read(&mut request).unwrap();
        client.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    (port, server)
}

#[track_caller]
fn expect_ready(output: &Output) {
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn who_is_ready_gets_status_0_and_others_1_and_a_line() {
    let (port, server) = answer_once("HTTP/1.1 200 OK\r\n\r\nok\n");
    expect_ready(&run_with(&[], &["health", "--port", &port]));
    assert!(
        server
            .join()
            .unwrap()
            .starts_with("GET /readyz HTTP/1.1\r\n")
    );
    let (port, _) = answer_once("HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\n");
    expect_mistake(&["health", "--port", &port], "is not ready: 503 draining");
}

#[test]
fn a_real_server_is_asked_in_all_its_states() {
    let directory = Directory::new();
    let mut server = Server::start_in(&directory);
    let port = server.address.port().to_string();
    let ask = ["health", "--port", port.as_str()];
    expect_ready(&run_with(&[], &ask));
    server.fail_disk();
    let large = "v".repeat(1 << 20);
    wait_for("a write to be refused", || {
        (server.put("/kv/a", &large).status == 503).then_some(())
    });
    expect_mistake(&ask, "is not ready: 503 the disk does not take writes");
    server.signal("-TERM");
    server.wait();
    expect_mistake(&ask, "does not answer: Connection refused");
    // One that drains does not listen any more.
    let mut server = Server::start(&[]);
    let port = server.address.port().to_string();
    let _upload = upload(&server);
    server.signal("-TERM");
    server.wait_for_log("draining");
    wait_for("newcomers to be refused", || {
        TcpStream::connect(server.address).err()
    });
    expect_mistake(
        &["health", "--port", &port],
        "does not answer: Connection refused",
    );
}

/// The check of a container sees the same variables as its server.
#[test]
fn it_asks_where_the_environment_says_that_the_server_listens() {
    let (port, _) = answer_once("HTTP/1.1 200 OK\r\n\r\nok\n");
    let variables = [
        ("THREADKV_PORT", port.as_str()),
        ("THREADKV_HOST", "0.0.0.0"),
        ("THREADKV_MAX_BATCH", "7"),
    ];
    expect_ready(&run_with(&variables, &["health"]));
    // Now nobody is there.
    expect_mistake_with(
        &variables,
        &["health"],
        &format!("at 127.0.0.1:{port} does not answer"),
    );
    let wrong = [("THREADKV_PORT", "x")];
    expect_mistake_with(&wrong, &["health"], "THREADKV_PORT \"x\"");
    expect_mistake(&["health", "--port=x"], "--port \"x\"");
    expect_mistake(&["health", "--hosts=x"], "threadkv health --help");
}

#[test]
fn a_server_that_hangs_is_not_ready() {
    let server = Server::start(&[]);
    server.signal("-STOP");
    let port = server.address.port().to_string();
    expect_mistake(&["health", "--port", &port], "nothing came within 2s");
    server.signal("-CONT");
}
