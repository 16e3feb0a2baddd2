//! `--slow-log` logs requests that took long, with where the time went.

use std::thread;
use std::time::Duration;

use crate::directory::Directory;
use crate::process::Server;

/// A part of a line, in milliseconds.
fn part(line: &str, name: &str) -> f64 {
    let text = line.split(&format!("{name} ")).nth(1).unwrap();
    let text = text.split(',').next().unwrap().trim();
    let (factor, unit) = match text {
        text if text.ends_with("ns") => (1e-6, "ns"),
        text if text.ends_with("µs") => (1e-3, "µs"),
        text if text.ends_with("ms") => (1.0, "ms"),
        _ => (1e3, "s"),
    };
    let number: f64 = text.strip_suffix(unit).unwrap().parse().unwrap();
    number * factor
}

#[test]
fn a_slow_client_is_told_from_a_slow_server() {
    let directory = Directory::new();
    let options = ["--slow-log=300", "--working-dir", directory.path_str()];
    let mut server = Server::start(&options);
    server.put("/kv/fast", "1").expect(200, "");
    let mut client = server.connect();
    client.write(
        "PUT /kv/slow HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: s1\r\nContent-Length: 100000\r\n\r\n",
    );
    thread::sleep(Duration::from_millis(400));
    client.write("v".repeat(100_000));
    client.read("PUT").expect(200, "");
    let line = server.wait_for_log("slow: ");
    assert!(line.contains(r#"PUT "/kv/slow" 200 id=s1"#), "{line}");
    assert!(part(&line, "client") >= 300.0, "{line}");
    assert!(part(&line, "disk") > 0.0, "{line}");
    for name in ["queue", "store", "disk"] {
        assert!(part(&line, name) < 300.0, "{line}");
    }
}

#[test]
fn a_client_that_does_not_take_its_answer_is_slow() {
    let mut server = Server::start(&["--slow-log=500"]);
    let value = "v".repeat(9_000_000);
    server.put("/kv/large", &value).expect(200, "");
    let mut client = server.connect();
    client.write("GET /kv/large HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: s2\r\n\r\n");
    thread::sleep(Duration::from_millis(700));
    assert_eq!(client.read("GET").body.len(), value.len());
    let line = server.wait_for_log("id=s2");
    assert!(part(&line, "client") >= 500.0, "{line}");
    assert!(part(&line, "store") < 500.0, "{line}");
}

#[test]
fn streams_are_not_slow_and_with_0_every_request_is() {
    let mut server = Server::start(&["--slow-log", "0"]);
    let mut watcher = server.connect();
    watcher.write("GET /api/v1/watch HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: w\r\n\r\n");
    server.put("/kv/a", "1").expect(200, "");
    server.wait_for_log(r#"slow: "#);
    drop(watcher);
    server.get("/kv/last").expect(404, "key not found\n");
    server.wait_for_log(r#"GET "/kv/last" 404"#);
    assert!(!server.has_seen("id=w"));
}
