//! Signals that are sent by mistake, by a terminal that closes or by a habit, end nothing. `shutdown` shows those that are meant to.

use crate::directory::Directory;
use crate::process::Server;
use crate::shutdown::upload;
use crate::tokens::TokenFile;

/// Waits until the process has taken all signals that were sent to it, and has done what it does about them.
fn settle(server: &mut Server) {
    server.signal("-HUP");
    server.wait_for_log("SIGHUP: neither --auth nor --log-level");
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
    let _upload = upload(&server);
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
