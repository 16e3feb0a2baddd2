//! What HTTP allows is answered, and what it does not allow is refused with a reason, however it comes (RFC 9110 and 9112).

use crate::client::{Client, Response};
use crate::process::Server;

const GOOD: &str = "GET /kv/good HTTP/1.1\r\nHost: localhost\r\n\r\n";
const SMUGGLED: &str = "PUT /kv/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv";

/// A request, and the status of its answer. The parts are joined.
pub type Row = (&'static [&'static [u8]], u16);

const HOST: &[u8] = b"Host: localhost\r\n";
const END: &[u8] = b"\r\n";
const GET: &[u8] = b"GET /kv/good HTTP/1.1\r\n";
const PUT: &[u8] = b"PUT /kv/put HTTP/1.1\r\n";
const CHUNKED: &[u8] =
    b"PUT /kv/put HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
const FIVE: &[u8] = b"Content-Length: 5\r\n\r\nhello";

/// What clients may send. The connection stays open.
pub const LEGAL: &[Row] = &[
    (&[GET, HOST, END], 200),
    (&[GET, HOST, b"User-Agent: caf\xe9\r\n", END], 200),
    (&[GET, HOST, "Cookie: é=☃\r\n".as_bytes(), END], 200),
    (&[GET, HOST, b"X-Empty:\r\nX:\t tabs \t\r\n", END], 200),
    (
        &[GET, HOST, b"!#$%&'*+-.^_`|~: all of a token\r\n", END],
        200,
    ),
    (&[b"GET /kv/\xc3\xa9 HTTP/1.1\r\n", HOST, END], 400),
    (&[b"GET /kv/good?\xff=\xfe HTTP/1.1\r\n", HOST, END], 200),
    (&[b"GET /kv/a%20b HTTP/1.1\r\n", HOST, END], 400),
    (
        &[b"GET http://localhost/kv/good HTTP/1.1\r\n", HOST, END],
        200,
    ),
    (&[b"OPTIONS * HTTP/1.1\r\n", HOST, END], 404),
    (&[b"CONNECT localhost:80 HTTP/1.1\r\n", HOST, END], 404),
    (&[b"PROPFIND /kv/good HTTP/1.1\r\n", HOST, END], 405),
    (&[b"GET /kv/good HTTP/1.2\r\n", HOST, END], 200),
    (&[b"GET /kv/good HTTP/1.9\r\n", HOST, END], 200),
    (
        &[b"GET /kv/good HTTP/1.0\r\nConnection: keep-alive\r\n", END],
        200,
    ),
    (&[END, GET, HOST, END], 200),
    (&[END, END, GET, HOST, END], 200),
    (&[GET, b"host:localhost\r\n", END], 200),
    (&[GET, b"Host: [::1]:4000\r\n", END], 200),
    (&[GET, HOST, b"Upgrade: h2c\r\n", END], 200),
    (
        &[
            GET,
            HOST,
            b"TE: trailers, deflate;q=0.5\r\nTrailer: X\r\n",
            END,
        ],
        200,
    ),
    (&[GET, HOST, b"Expect: 100-continue\r\n", END], 200),
    (&[GET, HOST, FIVE], 200),
    (&[PUT, HOST, FIVE], 200),
    (&[PUT, HOST, b"content-length:00005\r\n\r\nhello"], 200),
    (&[PUT, HOST, b"Content-Encoding: identity\r\n", FIVE], 200),
    (&[PUT, HOST, b"Content-Encoding: gzip\r\n", FIVE], 415),
    (
        &[PUT, HOST, b"Content-Encoding: identity, br\r\n", FIVE],
        415,
    ),
    (&[PUT, HOST, b"Content-Length: 0\r\n", END], 400),
    (&[CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"], 200),
    (&[CHUNKED, b"005\r\nhello\r\n000\r\n\r\n"], 200),
    (&[CHUNKED, b"5;a=b;c=\"d e\"\r\nhello\r\n0;e\r\n\r\n"], 200),
    (
        &[
            CHUNKED,
            b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\nY: caf\xe9\r\n\r\n",
        ],
        200,
    ),
    (&[CHUNKED, b"0\r\n\r\n"], 400),
];

/// What they may not, or what is not there. The connection is closed.
const REFUSED: &[Row] = &[
    (&[GET, END], 400),
    (&[GET, HOST, HOST, END], 400),
    (&[GET, b"Host: a b\r\n", END], 400),
    (&[b"GET /kv/good HTTP/1.0\r\n", HOST, HOST, END], 400),
    (&[b"GET  /kv/good HTTP/1.1\r\n", HOST, END], 400),
    (&[b"GET /kv/good  HTTP/1.1\r\n", HOST, END], 400),
    (&[b"GET /kv/good HTTP/1.1 \r\n", HOST, END], 400),
    (&[b" GET /kv/good HTTP/1.1\r\n", HOST, END], 400),
    (&[b"GET /kv/go od HTTP/1.1\r\n", HOST, END], 400),
    (&[b"GET /kv/good\r\n", HOST, END], 400),
    (&[b"GET /kv/good\n"], 400),
    (&[b"GET /kv/good HTTP/1.1\nHost: localhost\n\n"], 400),
    (&[b"get /kv/good http/1.1\r\n", HOST, END], 400),
    (&[b"GET /kv/good HTTP/1.\r\n", HOST, END], 400),
    (&[b"GET /kv/good HTTP/1.10\r\n", HOST, END], 400),
    (&[b"GET /kv/good HTTP/2.0\r\n", HOST, END], 505),
    (&[b"GET /kv/good HTTP/0.9\r\n", HOST, END], 505),
    (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 505),
    (&[GET, HOST, b"X : y\r\n", END], 400),
    (&[GET, HOST, b"X: y\r\n z\r\n", END], 400),
    (&[GET, b" X: y\r\n", HOST, END], 400),
    (&[GET, HOST, b": y\r\n", END], 400),
    (&[GET, HOST, b"X\r\n", END], 400),
    (&[GET, HOST, b"X\xe9: y\r\n", END], 400),
    (&[GET, HOST, b"X: a\0b\r\n", END], 400),
    (&[GET, HOST, b"X: a\x7fb\r\n", END], 400),
    (&[GET, HOST, b"X: a\rb\r\n", END], 400),
    (&[GET, HOST, b"X: a\nY: b\r\n", END], 400),
    (&[GET, HOST, b"Expect: 200-ok\r\n", END], 417),
    (
        &[PUT, HOST, b"X: a\r\n Content-Length: 5\r\n\r\nhello"],
        400,
    ),
    (&[PUT, HOST, b"Content-Length: +5\r\n\r\nhello"], 400),
    (&[PUT, HOST, b"Content-Length: 5 5\r\n\r\nhello"], 400),
    (&[PUT, HOST, b"Content-Length: 5,5\r\n\r\nhello"], 400),
    (&[PUT, HOST, b"Content-Length: 0x5\r\n\r\nhello"], 400),
    (&[PUT, HOST, b"Content-Length: \xb2\r\n\r\nhello"], 400),
    (&[PUT, HOST, b"Content-Length: 5\r\n", FIVE], 400),
    (&[PUT, HOST, b"Transfer-Encoding: chunked\r\n", FIVE], 400),
    (
        &[PUT, HOST, b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"],
        400,
    ),
    (
        &[
            PUT,
            HOST,
            b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ],
        501,
    ),
    (&[PUT, HOST, b"Transfer-Encoding: identity\r\n\r\n"], 501),
    (
        &[b"PUT /kv/put HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        400,
    ),
    (&[CHUNKED, b"+5\r\nhello\r\n0\r\n\r\n"], 400),
    (&[CHUNKED, b" 5\r\nhello\r\n0\r\n\r\n"], 400),
    (&[CHUNKED, b"5 \r\nhello\r\n0\r\n\r\n"], 400),
    (&[CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n"], 400),
    (&[CHUNKED, b"5_0\r\nhello\r\n0\r\n\r\n"], 400),
    (&[CHUNKED, b"5\nhello\r\n0\r\n\r\n"], 400),
    (&[CHUNKED, b"5;a\nb\r\nhello\r\n0\r\n\r\n"], 400),
    (&[CHUNKED, b"5;a\0b\r\nhello\r\n0\r\n\r\n"], 400),
    (&[CHUNKED, b"5\r\nhello0\r\n\r\n"], 400),
    (&[CHUNKED, b"4\r\nhello\r\n0\r\n\r\n"], 400),
    (&[CHUNKED, b"5\r\nhello\r\n0\r\nX: a\n\r\n"], 400),
    (&[CHUNKED, b"10000000000000005\r\nhello\r\n0\r\n\r\n"], 400),
];

fn start() -> Server {
    let server = Server::start(&["--no-auth", "--host=127.0.0.1"]);
    server.put("/kv/good", "good").expect(200, "");
    server
}

/// Checks that an answer is ours, whatever was wrong.
#[track_caller]
fn expect_ours(answer: &Response, status: u16, request: &[u8]) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{}: {text}", request.escape_ascii());
    assert_eq!(answer.header("server"), Some("threadkv"));
    assert!(answer.header("date").is_some());
    if status != 200 {
        let plain = Some("text/plain; charset=utf-8");
        assert_eq!(answer.header("content-type"), plain);
        assert!(text.len() > 5 && text.ends_with('\n'), "{text:?}");
        assert_eq!(text.lines().count(), 1);
    }
}

/// Sends a request in pieces, and checks what comes of it and of what is sent behind it.
fn check(server: &Server, pieces: &[&[u8]], row: &Row, legal: bool) {
    let mut client = server.connect();
    let request = pieces.concat();
    for piece in pieces {
        // A client that is refused may find the connection closed.
        if client.try_write(piece).is_err() {
            assert!(!legal);
            break;
        }
    }
    if legal {
        client.write(GOOD);
        expect_ours(&client.read("GET"), row.1, &request);
        client.read("GET").expect(200, "good");
        return;
    }
    let _ = client.try_write(SMUGGLED);
    let answer = client.read("GET");
    expect_ours(&answer, row.1, &request);
    assert_eq!(answer.header("connection"), Some("close"));
    client.expect_end();
}

fn rows() -> impl Iterator<Item = (&'static Row, bool)> {
    let legal = LEGAL.iter().map(|row| (row, true));
    legal.chain(REFUSED.iter().map(|row| (row, false)))
}

#[test]
fn what_is_legal_is_answered_and_what_is_not_is_refused_with_a_reason() {
    let server = start();
    for (row, legal) in rows() {
        check(&server, &[&row.0.concat()], row, legal);
    }
    server.get("/kv/smuggled").expect(404, "key not found\n");
}

#[test]
fn it_makes_no_difference_where_a_request_is_split() {
    let server = start();
    for (row, legal) in rows() {
        let request = row.0.concat();
        for at in 1..request.len() {
            let (first, second) = request.split_at(at);
            check(&server, &[first, second], row, legal);
        }
        let bytes: Vec<&[u8]> = request.chunks(1).collect();
        check(&server, &bytes, row, legal);
    }
    server.get("/kv/smuggled").expect(404, "key not found\n");
}

#[test]
fn a_refusal_comes_behind_the_answers_that_are_due() {
    let server = start();
    for (row, legal) in rows() {
        let request = row.0.concat();
        let mut client = server.connect();
        client.write([GOOD.as_bytes(), GOOD.as_bytes(), &request].concat());
        client.read("GET").expect(200, "good");
        client.read("GET").expect(200, "good");
        expect_ours(&client.read("GET"), row.1, &request);
        if !legal {
            client.expect_end();
        }
    }
}

#[test]
fn a_refusal_has_the_form_of_the_api_and_the_headers_for_pages() {
    let server = Server::start(&["--cors-origin=https://a.example"]);
    let refused = |request: &str, method: &str| {
        let mut client = server.connect();
        client.write(request);
        let answer = client.read(method);
        client.expect_end();
        answer
    };
    for (request, status) in [
        ("GET /api/v1/kv/a HTTP/1.1\r\n\r\n", 400),
        ("GET /api/v1/kv/a HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        ("GET /api/v1/kv/a\n", 400),
        (
            "GET /api/v1/kv/a HTTP/1.1\r\nHost: localhost\r\nX : y\r\n\r\n",
            400,
        ),
    ] {
        let answer = refused(request, "GET");
        answer.expect_error(status, "INVALID_REQUEST", serde_json::Value::Null);
    }
    let answer = refused("HEAD /kv/a HTTP/1.1\r\nX\r\n\r\n", "HEAD");
    assert_eq!((answer.status, &answer.body[..]), (400, &b""[..]));
    let page = "Host: localhost\r\nOrigin: https://a.example\r\n";
    let request = format!("GET /kv/a HTTP/1.1\r\n{page}Expect: x\r\n\r\n");
    let answer = refused(&request, "GET");
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!((answer.status, allowed), (417, Some("https://a.example")));
}

#[test]
fn long_lines_and_many_headers_are_refused_with_a_reason() {
    let server = start();
    let long = "a".repeat(70_000);
    for (request, status) in [
        (
            format!("GET /kv/{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            414,
        ),
        (format!("GET /kv/{long}"), 414),
        (format!("GET /kv/a HTTP/1.1\r\nX: {long}\r\n\r\n"), 431),
        (
            format!("GET /kv/a HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(300)),
            431,
        ),
    ] {
        let mut client = server.connect();
        client.write([GOOD, &request].concat());
        client.read("GET").expect(200, "good");
        expect_ours(&client.read("GET"), status, b"a long one");
        client.expect_end();
    }
}

#[test]
fn refusals_are_counted_and_logged() {
    let mut server = Server::start(&["--log-level=debug"]);
    let mut client = server.connect();
    client.write("PUT /kv/a HTTP/1.1\r\n\r\n");
    assert_eq!(client.read("PUT").status, 400);
    server.wait_for_log("PUT \"/kv/a\" 400");
    let status = server.get("/api/v1/status").json();
    assert_eq!(status["data"]["requests"]["4xx"], 1, "{status}");
}

#[test]
fn who_speaks_tls_is_closed_at_once_and_the_log_says_why_once() {
    let mut server = Server::start(&[]);
    for _ in 0..20 {
        let mut client = server.connect();
        client.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        client.expect_end();
    }
    server.wait_for_log("speaks TLS");
    server.signal("-TERM");
    let (_, log) = server.wait();
    assert!(!log.iter().any(|line| line.contains("TLS")), "{log:?}");
}

#[test]
fn who_asks_to_keep_the_connection_is_told_for_how_long() {
    for (option, told) in [
        ("--idle-timeout=75", "timeout=67"),
        ("--idle-timeout=5", "timeout=4"),
        ("--idle-timeout=1", "timeout=0"),
    ] {
        let server = Server::start(&[option]);
        let mut client = server.connect();
        let mut ask = |header: &str| -> Response { client.send_with(header, "GET", "/kv/a", "") };
        let answer = ask("Connection: keep-alive\r\n");
        assert_eq!(answer.header("keep-alive"), Some(told));
        assert_eq!(ask("").header("keep-alive"), None);
        let answer = ask("Connection: close\r\n");
        assert_eq!(answer.header("keep-alive"), None);
        let mut old: Client = server.connect();
        old.write("GET /kv/a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let answer = old.read("GET");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
        assert_eq!(answer.header("keep-alive"), Some(told));
    }
}
