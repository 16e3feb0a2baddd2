//! `/livez` and `/readyz`: whether the server answers, and whether clients should be sent to it.

use std::net::TcpStream;

use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::prometheus::Metrics;
use crate::tokens::TokenFile;

#[test]
fn a_server_that_serves_lives_and_is_ready_for_everybody_and_as_often_as_asked() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    tokens.create(&[]);
    let server = Server::start(&["--auth", tokens.path(), "--rate-limit=1/m"]);
    let mut client = server.connect();
    for path in ["/livez", "/readyz"] {
        for _ in 0..10 {
            let answer = client.send("GET", path, "");
            answer.expect(200, "ok\n");
            assert_eq!(
                answer.header("content-type"),
                Some("text/plain; charset=utf-8")
            );
            assert_eq!(answer.header("x-ratelimit-limit"), None);
        }
        client.send("HEAD", path, "").expect(200, "");
        let refused = client.send("POST", path, "");
        refused.expect(405, "method not allowed\n");
        assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    }
}

#[test]
fn a_server_whose_disk_fails_lives_and_is_not_ready() {
    let directory = Directory::new();
    let server = Server::start_in(&directory);
    server.put("/kv/a", "1").expect(200, "");
    server.fail_disk();
    // The file has some zeros ahead, so the first writes may succeed.
    let large = "v".repeat(1 << 20);
    wait_for("a write to be refused", || {
        (server.put("/kv/a", &large).status == 503).then_some(())
    });
    let answer = server.get("/readyz");
    answer.expect(503, "the disk does not take writes, it may be full\n");
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(server.send("HEAD", "/readyz", "").status, 503);
    server.get("/livez").expect(200, "ok\n");
    let metrics = Metrics::of(&server);
    assert_eq!(metrics.get("threadkv_writable"), 0.0);
    assert_eq!(metrics.get("threadkv_ready"), 0.0);
    let unavailable = r#"threadkv_requests_refused_total{reason="unavailable"}"#;
    assert!(metrics.get(unavailable) >= 1.0);
}

#[test]
fn a_server_that_drains_lives_and_is_not_ready() {
    let mut server = Server::start(&[]);
    let ask = |path: &str| {
        let mut client = server.connect();
        // The body is what keeps the request under way.
        client.write(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n"
        ));
        client
    };
    let (mut ready, mut live) = (ask("/readyz"), ask("/livez"));
    // These two, and the one that asks.
    wait_for("both to arrive", || {
        (Metrics::of(&server).get("threadkv_http_requests_in_flight") == 3.0).then_some(())
    });
    server.signal("-TERM");
    wait_for("it to stop listening", || {
        TcpStream::connect(server.address).err()
    });
    for client in [&mut ready, &mut live] {
        client.write("x".repeat(200_000));
    }
    ready
        .read("GET")
        .expect(503, "the server is about to stop\n");
    live.read("GET").expect(200, "ok\n");
    assert!(server.wait().0.success());
}
