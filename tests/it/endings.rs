//! What comes behind a request or a body, and how a connection ends.

use crate::process::Server;

#[test]
fn all_lines_that_say_what_becomes_of_the_connection_are_one_list() {
    let server = Server::start(&[]);
    for (version, headers, closes) in [
        ("1.1", "Connection: x\r\nConnection: close\r\n", true),
        ("1.1", "Connection: keep-alive, Close\r\n", true),
        ("1.1", "Connection: closed-loop\r\n", false),
        ("1.0", "Connection: x\r\nConnection: Keep-Alive\r\n", false),
        ("1.0", "Connection: keep-alive-not\r\n", true),
    ] {
        let mut client = server.connect();
        client.write(format!(
            "GET /kv/a HTTP/{version}\r\nHost: localhost\r\n{headers}\r\n"
        ));
        let answer = client.read("GET");
        let says = answer.header("connection") == Some("close");
        assert_eq!(says, closes, "{version} {headers}");
        match closes {
            true => client.expect_end(),
            false => assert_eq!(client.send("GET", "/kv/a", "").status, 404),
        }
    }
}

/// Some clients send an empty line behind a body, and what arrives at a closed socket resets the connection.
#[test]
fn whoever_sends_something_behind_a_last_request_gets_the_whole_answer() {
    let server = Server::start(&[]);
    let value = "v".repeat(9_000_000);
    server.put("/kv/large", &value).expect(200, "");
    for behind in [
        "\r\n",
        "GET /kv/none HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "junk",
    ] {
        let mut client = server.connect();
        let last = "GET /kv/large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        client.write(last.to_owned() + behind);
        client.write(behind);
        assert!(client.read("GET").text() == value);
        client.expect_end();
    }
}

#[test]
fn what_comes_in_one_piece_behind_a_body_is_answered_in_order() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let get = "GET /kv/a HTTP/1.1\r\nHost:localhost\r\n\r\n";
    client.write("5\r\nhello\r\n0\r\n\r\n".to_owned() + &get.repeat(1300));
    client.read("PUT").expect(200, "");
    for _ in 0..1300 {
        client.read("GET").expect(200, "hello");
    }
}
