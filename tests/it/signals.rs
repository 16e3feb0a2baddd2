//! Signals that are sent by mistake, by a terminal that closes or by a habit, end nothing. `shutdown` shows those that are meant to.

use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::tokens::TokenFile;

/// Waits until the process has taken all signals that were sent to it, and has done what it does about them.
fn settle(server: &mut Server) {
    server.signal("-HUP");
    server.wait_for_log("SIGHUP: there is no --auth file");
}

#[test]
fn signals_that_ask_for_nothing_end_nothing() {
    let mut server = Server::start(&[]);
    let mut client = server.connect();
    client.send("PUT", "/kv/a", "1").expect(200, "");
    for signal in ["-HUP", "-USR1", "-USR2", "-ALRM", "-PIPE"] {
        server.signal(signal);
        settle(&mut server);
        client.send("GET", "/kv/a", "").expect(200, "1");
        assert!(!server.has_ended(), "{signal}");
    }
    // They do not count as a first signal to stop.
    let mut upload = server.connect();
    upload.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n2");
    server.signal("-TERM");
    server.wait_for_log("draining");
    for signal in ["-HUP", "-USR1", "-ALRM"] {
        server.signal(signal);
    }
    settle(&mut server);
    upload.write("2");
    upload.read("PUT").expect(200, "");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn an_answered_write_survives_hup_and_quit_without_durability() {
    let directory = Directory::new();
    let options = ["--working-dir", directory.path_str(), "--durability=none"];
    let mut server = Server::start(&options);
    for key in ["hup", "quit"] {
        server.put(&format!("/kv/{key}"), "kept").expect(200, "");
        server.signal(if key == "hup" { "-HUP" } else { "-QUIT" });
    }
    assert_eq!(server.wait().0.code(), Some(0));
    let server = Server::start(&options);
    for key in ["hup", "quit"] {
        server.get(&format!("/kv/{key}")).expect(200, "kept");
    }
}

#[test]
fn a_second_quit_ends_it_at_once() {
    let mut server = Server::start(&["--min-rate=0"]);
    let mut upload = server.connect();
    upload.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n");
    wait_for("the upload to be under way", || {
        (server.threads("transfer-in") > 0).then_some(())
    });
    server.signal("-INT");
    server.wait_for_log("draining");
    server.signal("-QUIT");
    assert_eq!(server.wait().0.code(), Some(128 + 3));
}

#[test]
fn hup_has_the_tokens_read_at_once() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    tokens.create(&[]);
    let mut server = Server::start(&["--auth", tokens.path()]);
    // Nothing has changed, so only the signal makes it read.
    server.signal("-HUP");
    server.wait_for_log("1 tokens let in");
    assert!(!server.has_ended());
}
