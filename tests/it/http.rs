//! HTTP as clients speak it: keep-alive, pipelining, chunks, 100-continue, HTTP/1.0, HEAD; and as they should not.

use crate::process::Server;
use crate::usage::{Usage, wait_for_descriptors};

#[test]
fn a_connection_serves_many_requests() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for n in 0..1000 {
        client.send("PUT", "/kv/a", n.to_string()).expect(200, "");
        client.send("GET", "/kv/a", "").expect(200, &n.to_string());
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_and_see_each_other() {
    let server = Server::start(&["--workers", "4"]);
    let mut client = server.connect();
    let large = "x".repeat(100_000);
    let mut sent = Vec::new();
    for n in 0..200 {
        // Bodies that are at hand, bodies that are not, and answers that change threads.
        let value = if n % 10 == 3 {
            format!("{n}{large}")
        } else {
            n.to_string()
        };
        let put = format!(
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{value}",
            value.len()
        );
        client.write(put + "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\nDELETE /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        sent.push(value);
        // All that fits without reading, but no more than the sockets hold.
        if n % 10 == 9 {
            for value in sent.drain(..) {
                client.read("PUT").expect(200, "");
                assert!(client.read("GET").text() == value);
                client.read("DELETE").expect(200, "");
                client.read("GET").expect(404, "key not found\n");
            }
        }
    }
}

#[test]
fn many_clients_that_pipeline_do_not_stop_the_workers() {
    let server = Server::start(&["--workers", "2"]);
    let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    let request = "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nvGET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for client in &mut clients {
        client.write(request.repeat(100));
    }
    for client in &mut clients {
        for _ in 0..100 {
            client.read("PUT").expect(200, "");
            client.read("GET").expect(200, "v");
        }
    }
}

#[test]
fn a_body_may_come_in_chunks() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for _ in 0..3 {
        client.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.write("5\r\nhello\r\n1;note=x\r\n,\r\n6\r\n world\r\n0\r\n\r\n");
        client.read("PUT").expect(200, "");
        client.send("GET", "/kv/a", "").expect(200, "hello, world");
        client.write(
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        );
        client.read("PUT").expect(400, "value cannot be empty\n");
    }
}

#[test]
fn whoever_has_sent_all_may_say_so_and_read_the_answers() {
    let server = Server::start(&[]);
    let before = Usage::of(&server);
    for _ in 0..20 {
        for (body, status) in [
            (
                "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                200,
            ),
            ("Content-Length: 5\r\n\r\nhello", 200),
            ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0", 400),
            ("Transfer-Encoding: chunked\r\n\r\n5\r\nhell", 400),
        ] {
            let mut client = server.connect();
            client.write(format!("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\n{body}"));
            client.finish_writing();
            assert_eq!(client.read("PUT").status, status, "{body}");
            client.expect_end();
        }
        // With requests behind it, the last of which is refused, and may have asked to be told to go on.
        let mut client = server.connect();
        client.write(concat!(
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nv\r\n0\r\n\r\n",
            "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nw\r\n0\r\n\r\n",
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n",
            "Expect: 100-continue\r\n\r\nhello"
        ));
        client.finish_writing();
        client.read("PUT").expect(200, "");
        client.read("GET").expect(200, "v");
        client.read("PUT").expect(200, "");
        assert_eq!(client.read("PUT").status, 400);
        client.expect_end();
    }
    wait_for_descriptors(&server, &before);
    server.get("/kv/a").expect(200, "w");
}

#[test]
fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let server = Server::start(&[]);
    for size in [5, 5000] {
        let value = "v".repeat(size);
        let mut client = server.connect();
        client.write(format!(
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
        ));
        assert_eq!(client.read("PUT").status, 100);
        client.write(&value);
        client.read("PUT").expect(200, "");
        client.send("GET", "/kv/a", "").expect(200, &value);
    }
    // A request that is refused is refused without asking for the body.
    let mut client = server.connect();
    client.write("PUT /kv/a%20b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.read("PUT").status, 400);
    client.expect_end();
}

#[test]
fn http_1_0_closes_unless_asked_to_stay() {
    let server = Server::start(&[]);
    server.put("/kv/a", "1").expect(200, "");
    let mut client = server.connect();
    client.write("GET /kv/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let response = client.read("GET");
    response.expect(200, "1");
    assert_eq!(response.header("connection"), Some("keep-alive"));
    client.write("GET /kv/a HTTP/1.0\r\n\r\n");
    let response = client.read("GET");
    response.expect(200, "1");
    assert_eq!(response.header("connection"), Some("close"));
    client.expect_end();
}

#[test]
fn connection_close_closes() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5000\r\n\r\n");
    client.write("v".repeat(5000));
    let response = client.read("PUT");
    response.expect(200, "");
    assert_eq!(response.header("connection"), Some("close"));
    client.expect_end();
}

#[test]
fn head_answers_like_get_without_the_body() {
    let server = Server::start(&[]);
    for size in [3, 20_000, 200_000] {
        server.put("/kv/a", "v".repeat(size)).expect(200, "");
        let mut client = server.connect();
        let head = client.send("HEAD", "/kv/a", "");
        assert_eq!(head.header("content-length"), Some(&*size.to_string()));
        // Had there been a body, this answer would not be readable.
        let get = client.send("GET", "/kv/a", "");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert_eq!((head.status, get.status), (200, 200));
    }
    let mut client = server.connect();
    assert_eq!(client.send("HEAD", "/kv/b", "").status, 404);
    assert_eq!(client.send("HEAD", "/clear", "").status, 405);
    assert_eq!(client.send("HEAD", "/nowhere", "").status, 404);
}

#[test]
fn a_request_may_name_the_host_in_its_target() {
    let server = Server::start(&[]);
    server.put("http://example.com/kv/a", "1").expect(200, "");
    server.get("/kv/a").expect(200, "1");
    let root = server.get("http://example.com");
    assert_eq!(root.body, server.get("/").body);
}

#[test]
fn a_request_to_upgrade_is_answered_as_http_1_1() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n";
    client.write(format!(
        "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\n{upgrade}Content-Length: 5\r\n\r\nhello"
    ));
    client.read("PUT").expect(200, "");
    client.write(format!(
        "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n"
    ));
    client.read("GET").expect(200, "hello");
    client.send("GET", "/kv/a", "").expect(200, "hello");
}

/// Where a request ends must not be a matter of opinion: a proxy in front may hold another one.
#[test]
fn an_ambiguous_request_is_refused_and_nothing_behind_it_is_carried_out() {
    let server = Server::start(&[]);
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 50\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 5, 5\r\n",
        "X: a\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut client = server.connect();
        let smuggled =
            "PUT /kv/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv".repeat(3);
        client.write(format!(
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n0\r\n\r\n{smuggled}"
        ));
        let response = client.read("PUT");
        assert_eq!(response.status, 400, "{headers}");
        assert!(
            response.text().starts_with("malformed request: "),
            "{headers}"
        );
        client.expect_end();
        server.get("/kv/smuggled").expect(404, "key not found\n");
    }
}

#[test]
fn bad_chunks_are_refused() {
    let server = Server::start(&[]);
    for chunks in [
        "zz\r\nhello\r\n",
        "-1\r\nhello\r\n",
        "5\r\nhelloXX",
        "fffffffffffffffff\r\n",
    ] {
        let mut client = server.connect();
        client.write(format!(
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        client
            .read("PUT")
            .expect(400, "malformed request: a bad chunk\n");
        client.expect_end();
    }
    server.get("/kv/a").expect(404, "key not found\n");
}

#[test]
fn a_body_that_breaks_off_changes_nothing() {
    let mut server = Server::start(&["--log-level", "debug"]);
    server.put("/kv/a", "before").expect(200, "");
    for head in [
        "Content-Length: 5000\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n32\r\n",
    ] {
        let mut client = server.connect();
        client.write(format!(
            "PUT /kv/broken HTTP/1.1\r\nHost: localhost\r\n{head}half of it"
        ));
        drop(client);
        server.wait_for_log("PUT \"/kv/broken\" 400");
        server.get("/kv/broken").expect(404, "key not found\n");
    }
    // Short ones do not come out of tiny_http, so there is no sign of them.
    let mut client = server.connect();
    client.write(
        "PUT /kv/broken HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf of it",
    );
    drop(client);
    server.get("/kv/broken").expect(404, "key not found\n");
    server.get("/kv/a").expect(200, "before");
}

/// tiny_http would make space for all of it, to throw the rest away, and the process would die of that.
#[test]
fn an_absurd_content_length_is_refused_and_the_process_lives() {
    let server = Server::start(&[]);
    for length in [
        "1000000000",
        "99999999999999",
        "9223372036854775807",
        "18446744073709551615",
        "9".repeat(30).as_str(),
    ] {
        for request in ["PUT /kv/a", "POST /kv/a", "GET /nowhere"] {
            let mut client = server.connect();
            client.write(format!(
                "{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\nx"
            ));
            let status = client.read("PUT").status;
            assert!(
                [404, 405, 413].contains(&status),
                "{request} {length}: {status}"
            );
        }
        server.put("/kv/a", length).expect(200, "");
    }
}

/// tiny_http goes by the first length, and reads a sign, where we find the request ambiguous.
#[test]
fn an_absurd_content_length_in_an_ambiguous_request_is_no_worse() {
    let server = Server::start(&[]);
    let absurd = "99999999999999";
    for headers in [
        format!("Content-Length: {absurd}\r\nContent-Length: 5\r\n"),
        format!("Content-Length: +{absurd}\r\n"),
        format!("Content-Length: {absurd}\r\nX: a\x01b\r\n"),
    ] {
        let mut client = server.connect();
        client.write(format!(
            "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\n{headers}\r\nx"
        ));
        assert_eq!(client.read("PUT").status, 400, "{headers}");
        client.expect_end();
        drop(client);
        server.put("/kv/a", "alive").expect(200, "");
    }
}

#[test]
fn clients_that_pipeline_and_do_not_read_harm_only_themselves() {
    let server = Server::start(&["--workers", "2"]);
    let value = "v".repeat(60_000);
    server.put("/kv/a", &value).expect(200, "");
    let mut hogs: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for hog in &mut hogs {
        hog.write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(400));
    }
    let mut client = server.connect();
    for _ in 0..200 {
        client.send("PUT", "/kv/b", "1").expect(200, "");
        client.send("GET", "/kv/b", "").expect(200, "1");
    }
    // Their answers are all there when they come for them.
    for hog in &mut hogs {
        for _ in 0..400 {
            assert!(hog.read("GET").text() == value);
        }
    }
}

#[test]
fn what_is_no_http_is_refused() {
    let server = Server::start(&[]);
    for line in [
        "GET\r\n\r\n",
        "GET /kv/a\r\n\r\n",
        "GET /kv/a HTTP/9\r\n\r\n",
        "GET /kv/a HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.write(line);
        assert_eq!(client.read("GET").status, 400, "{line:?}");
        client.expect_end();
    }
    server.get("/kv/a").expect(404, "key not found\n");
}
