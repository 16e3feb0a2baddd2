//! Many connections: all are served, whatever the limit on descriptors, and tiny_http's accept loop does not stay dead.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::Command;

use rustix::net::{bind, sockopt};
use serde_json::{Map, Value, json};

use crate::client::{Client, tcp_socket};
use crate::process::{Server, is_root, raise_own_limit};

/// What the contract's tests run with.
const DESCRIPTORS: u64 = 20_000;

/// A server with that limit on descriptors.
pub fn start_with_descriptors(limit: u64, options: &[&str]) -> Server {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {limit} && exec \"$0\" --port 0 \"$@\"");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_threadkv")])
        .args(options);
    Server::spawn(command)
}

#[test]
fn ten_thousand_puts_at_once_each_on_its_own_connection() {
    let limit = raise_own_limit().min(DESCRIPTORS);
    // Two thirds of what we may have ourselves, where that is less than the machines this was written for have.
    let count = 10_000.min(limit * 2 / 3);
    let server = start_with_descriptors(limit, &[]);
    // All connected before any asks, and all asking before any answer is read: more connections than the server has
    // descriptors for, and none goes away by itself.
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.write(format!(
            "PUT /kv/key{n} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n{n:08}"
        ));
    }
    for client in &mut clients {
        client.read("PUT").expect(200, "");
    }
    drop(clients);
    expect_numbers(&server, count);
}

/// Checks that there are so many keys, and nothing else: `key7` has the value `00000007`.
#[track_caller]
pub fn expect_numbers(server: &Server, count: u64) {
    let listing = server.get("/api/v1/kv").json();
    let entry = |n| (format!("key{n}"), json!({"value": format!("{n:08}")}));
    let expected: Map<String, Value> = (0..count).map(entry).collect();
    let found = listing["data"].as_object().unwrap();
    assert_eq!(found.len(), expected.len());
    assert!(*found == expected);
}

#[test]
fn more_connections_than_allowed_wait_for_their_turn() {
    let server = Server::start(&["--max-connections", "10"]);
    let mut clients: Vec<Client> = (0..30).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv");
    }
    // Those beyond the tenth are served once the first ones have been idle for a while and are closed.
    for client in &mut clients {
        client.read("PUT").expect(200, "");
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .unwrap()
        .count();
    assert!(open < 40, "{open} descriptors for 10 connections");
}

#[test]
fn a_connection_that_is_busy_is_not_closed_for_newcomers() {
    let server = Server::start(&["--max-connections", "2"]);
    let mut upload = server.connect();
    upload.write("PUT /kv/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n");
    let mut part = server.connect();
    part.write("GET /kv/upl");
    // Waits in vain as long as both are busy.
    let mut newcomer = server.connect();
    newcomer.write("GET /kv/upload HTTP/1.1\r\nHost: localhost\r\n\r\n");
    std::thread::sleep(std::time::Duration::from_millis(1500)); // longer than idle connections are left alone
    upload.write("v".repeat(5000));
    upload.read("PUT").expect(200, "");
    part.write("oad HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(part.read("GET").status, 200);
    assert_eq!(newcomer.read("GET").status, 200);
}

/// tiny_http's own threads take several new connections each when many come at once, and see to the first only.
#[test]
fn connections_that_come_all_at_once_are_all_served_while_all_stay() {
    raise_own_limit();
    let server = Server::start(&[]);
    for count in [3, 5, 20, 200, 1000] {
        // What comes while the process stands still is accepted at once when it goes on.
        server.signal("-STOP");
        let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv");
        }
        server.signal("-CONT");
        for client in &mut clients {
            client.read("PUT").expect(200, "");
        }
        // Threads of this round are idle when the next one comes.
    }
}

/// From one address and port to two of the server's: only the address of the server tells such connections apart.
#[test]
fn a_client_can_have_connections_from_one_port_to_two_addresses() {
    let server = Server::start(&["--host=0.0.0.0", "--no-auth"]);
    let port = server.address.port();
    let connect = |from: SocketAddr, to: [u8; 4]| {
        let socket = tcp_socket();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &from).unwrap();
        rustix::net::connect(&socket, &SocketAddr::from((to, port))).unwrap();
        socket
    };
    let mut pairs = Vec::new();
    for _ in 0..200 {
        let first = connect(SocketAddr::from(([127, 0, 0, 1], 0)), [127, 0, 0, 1]);
        let second = connect(first.local_addr().unwrap(), [127, 0, 0, 2]);
        pairs.push([first, second].map(|stream| Client::on(stream).unwrap()));
    }
    for (n, pair) in pairs.iter_mut().enumerate() {
        let [first, second] = pair;
        // Both at once: one has a body under way, the other one asks.
        let value = format!("{n}").repeat(50_000);
        let put = format!(
            "PUT /kv/{n} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            value.len()
        );
        first.write(put);
        second
            .send("GET", "/kv/none", "")
            .expect(404, "key not found\n");
        first.write(&value);
        first.read("PUT").expect(200, "");
        assert!(second.send("GET", &format!("/kv/{n}"), "").text() == value);
    }
}

#[test]
fn running_out_of_room_again_and_again_leaves_nothing_behind() {
    let server = start_with_descriptors(900, &[]);
    for _ in 0..2 {
        let mut clients: Vec<Client> = (0..400).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv");
        }
        for client in &mut clients {
            client.read("PUT").expect(200, "");
        }
    }
    server.get("/kv/a").expect(200, "v");
    crate::process::wait_for("descriptors to be given back", || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
            .unwrap()
            .count();
        (open < 30).then_some(())
    });
}

/// Clients that break off leave requests behind that are still to be worked off, while others come in.
#[test]
fn clients_that_vanish_while_others_come_do_not_stop_the_server() {
    let server = Server::start(&["--max-connections", "10", "--workers", "2"]);
    server.put("/kv/a", "v".repeat(30_000)).expect(200, "");
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let mut client = server.connect();
                    let _ = client
                        .try_write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(40));
                }
            });
        }
    });
    assert_eq!(server.get("/kv/a").status, 200);
}

#[test]
fn running_out_of_threads_ends_when_there_are_threads_again() {
    use std::os::unix::process::CommandExt;
    /// A user without any other process, since the limit counts those too.
    const NOBODY_ELSE: u32 = 54_321;
    if !is_root("running as another user") {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command
        .args(["--port", "0", "--max-connections", "1000"])
        .uid(NOBODY_ELSE);
    let mut server = Server::spawn(command);
    let pid = server.pid().to_string();
    let limit = |soft: u32| {
        let mut prlimit = Command::new("prlimit");
        prlimit
            .args(["--pid", &pid, &format!("--nproc={soft}:")])
            .uid(NOBODY_ELSE);
        let status = prlimit.status();
        assert!(status.unwrap().success());
    };
    let mut before = server.connect();
    before.send("PUT", "/kv/a", "1").expect(200, "");
    limit(20);
    let ask = |server: &Server| -> Vec<Client> {
        let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        clients
    };
    let mut clients = ask(&server);
    // The first of these that needs a new thread ends tiny_http's accept loop, and is lost with it.
    server.wait_for_log("accepting connections again");
    // And so on, with those that come after it: there are threads for some of what they need, and not for all.
    for more in 1..4 {
        limit(20 + 3 * more);
        clients.extend(ask(&server));
        server.wait_for_log("accepting connections again");
    }
    before.send("GET", "/kv/a", "").expect(200, "1");
    limit(5000);
    for mut client in ask(&server) {
        client.read("GET").expect(200, "1");
    }
    // Whoever was let in before and found no thread is told by the end of the connection; the others have been served.
    for mut client in clients {
        match client.try_read("GET") {
            Ok(answer) => {
                answer.expect(200, "1");
            }
            Err(error) => assert!(
                [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()),
                "{error}"
            ),
        }
    }
    // Whoever was served before, by the loop that has ended, still is.
    before.send("GET", "/kv/a", "").expect(200, "1");
}
