use super::*;
use crate::armour::head::HEADERS;
use crate::armour::waiting::AHEAD;
use arbtest::arbtest;

/// What comes of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Sorted {
    /// What tiny_http gets.
    heads: String,
    /// The body of each request that is whole, or the status with which it is refused.
    requests: Vec<Result<Vec<u8>, u16>>,
    /// What the client is in the middle of sending.
    sending: Sending,
}

fn sort_pieces(stream: &[u8], piece: usize) -> Sorted {
    let mut inbound = Inbound::new(7, &Arc::new(Budget::new(1 << 20)));
    let (mut requests, mut body) = (Vec::new(), Vec::new());
    for mut piece in stream.chunks(piece) {
        while !piece.is_empty() || inbound.is_in_body() || inbound.has_stopped() {
            let bytes = mem::take(&mut piece);
            if !inbound.is_in_body() {
                inbound.receive(bytes);
                assert!(inbound.requests() - requests.len() as u64 <= AHEAD as u64);
            } else {
                match inbound.read_body(bytes, &mut body) {
                    Ok(true) => requests.push(Ok(mem::take(&mut body))),
                    Ok(false) => break,
                    Err(fault) => requests.push(Err(fault.status())),
                }
            }
            while let Some(request) = inbound.waiting.next() {
                match request {
                    Ok(Payload::Here(body, _)) => requests.push(Ok(body)),
                    Ok(Payload::Coming { .. }) => {}
                    Err(fault) => requests.push(Err(fault.status())),
                }
            }
        }
    }
    assert_eq!(inbound.waiting_bytes(), 0);
    Sorted {
        heads: String::from_utf8(inbound.ready.clone()).unwrap(),
        requests,
        sending: inbound.sending(),
    }
}

/// The same, given whole and in pieces of any size.
fn sort(stream: &str) -> Sorted {
    let whole = sort_pieces(stream.as_bytes(), stream.len().max(1));
    for piece in [1, 2, 3, 5, 7, 1024] {
        let other = sort_pieces(stream.as_bytes(), piece);
        assert_eq!(other, whole, "in pieces of {piece}: {stream:?}");
    }
    whole
}

fn bodies(sorted: &Sorted) -> Vec<Result<&str, u16>> {
    let text = |body: &Result<Vec<u8>, u16>| match body {
        Ok(body) => Ok(str::from_utf8(body).unwrap().to_owned().leak() as &str),
        Err(status) => Err(*status),
    };
    sorted.requests.iter().map(text).collect()
}

#[test]
fn requests_are_told_apart_and_bodies_go_past_tiny_http() {
    let get = "GET /kv/a HTTP/1.0\r\n\r\n";
    let put = "PUT /kv/a HTTP/1.0\r\ncontent-length: 5\r\n\r\n\r\n\r\nv";
    let chunked = "PUT /kv/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n1;note=x\r\n,\r\n0\r\nX: y\r\n\r\n";
    let large = "GET / HTTP/2.0\r\n".repeat(5000);
    let long = format!(
        "PUT /kv/a HTTP/1.0\r\nContent-Length: {}\r\n\r\n{large}",
        large.len()
    );
    let waits =
        "PUT /kv/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi";
    let stream = [get, put, "\r\n", chunked, &long, get, waits, put].concat();
    let sorted = sort(&stream);
    assert_eq!(sorted.sending, Sending::Nothing);
    let expected = ["", "\r\n\r\nv", "hello,", &large, "", "hi", "\r\n\r\nv"];
    assert_eq!(bodies(&sorted), expected.map(Ok));
    assert!(!sorted.heads.to_ascii_lowercase().contains("content-length"));
    assert_eq!(sorted.heads.matches("/kv/a").count(), 7);
}

#[test]
fn what_is_being_sent_is_known() {
    for (stream, sending) in [
        ("G", Sending::Head),
        ("\r", Sending::Head),
        ("\r\n", Sending::Nothing),
        ("GET / HTTP/1.0\r\n", Sending::Head),
        ("GET / HTTP/1.0\r\n\r", Sending::Head),
        ("GET / HTTP/1.0\r\n\r\n", Sending::Nothing),
        ("GET / HTTP/1.0\r\n\r\nG", Sending::Head),
        (
            "P / HTTP/1.0\r\nContent-Length: 9\r\n\r\nabc",
            Sending::ShortBody(3),
        ),
        (
            "P / HTTP/1.0\r\nContent-Length: 99999\r\n\r\nabc",
            Sending::Nothing,
        ),
    ] {
        assert_eq!(sort(stream).sending, sending, "{stream:?}");
    }
}

#[test]
fn what_breaks_a_rule_is_refused_behind_what_came_before_and_nothing_follows() {
    let get = "GET /kv/a HTTP/1.0\r\n\r\n";
    let chunked = "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = |bytes: usize| format!("GET / HTTP/1.0\r\nX: {}\r\n\r\n", "x".repeat(bytes - 23));
    let many = |headers| format!("GET / HTTP/1.0\r\n{}\r\n", "X: y\r\n".repeat(headers));
    for (bad, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\n\n", 400),
        ("GET / HTTP/1.0\r\nX: a\nY: b\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\n\r\n", 505),
        ("GET / HTTP/1.0\r\nX : y\r\n\r\n", 400),
        (&"\r\n".repeat(EMPTY_LINES + 1), 400),
        (&format!("{chunked}zz\r\n"), 400),
        (&format!("{chunked}5\r\nhelloX\r\n"), 400),
        (&long(HEAD_BYTES + 1), 431),
        (&many(HEADERS + 1), 431),
        (&format!("GET /{}", "a".repeat(HEAD_BYTES)), 414),
    ] {
        let stream = format!("{get}{bad}\r\n{get}{get}");
        let sorted = sort(&stream);
        assert_eq!(bodies(&sorted), [Ok(""), Err(status)], "{bad:.60?}");
        assert_eq!(sorted.sending, Sending::Nothing);
        assert_eq!(sorted.heads.matches("\r\n\r\n").count(), 2);
    }
    for good in [long(HEAD_BYTES), many(HEADERS)] {
        assert_eq!(bodies(&sort(&good)), [Ok("")]);
    }
}

#[test]
fn what_ends_early_or_comes_too_late_is_refused_with_its_own_path() {
    for (stream, line) in [
        ("HEAD /api/v1/x", "HEAD http://7/api/v1/x HTTP/1.1\r\n"),
        (
            "PUT /y HTTP/1.0\r\nContent-Length: 9\r\n\r\nabc",
            "PUT http://7/y HTTP/1.0\r\n",
        ),
    ] {
        for end in [Inbound::end, |inbound: &mut Inbound| {
            inbound.refuse(Fault::TooSlow)
        }] {
            let mut inbound = Inbound::new(7, &Arc::new(Budget::new(1 << 20)));
            inbound.receive(stream.as_bytes());
            assert!(inbound.waiting.next().is_none());
            end(&mut inbound);
            assert!(matches!(inbound.waiting.next(), Some(Err(_))));
            assert!(inbound.has_ended());
            assert!(inbound.ready.starts_with(line.as_bytes()), "{stream}");
        }
    }
}

#[test]
fn what_is_not_complete_needs_memory_that_is_free() {
    let budget = Arc::new(Budget::new(5 * STEP as u64));
    let half = |inbound: &mut Inbound| {
        inbound.receive(b"PUT / HTTP/1.0\r\nContent-Length: 60000\r\n\r\n");
        inbound.receive(&vec![b'v'; 2 * STEP + STEP / 2]);
    };
    let mut first = Inbound::new(1, &budget);
    half(&mut first);
    assert_eq!(budget.under_way(), 3 * STEP as u64);
    let mut second = Inbound::new(2, &budget);
    half(&mut second);
    assert!(matches!(
        second.waiting.next(),
        Some(Err(Fault::Overloaded))
    ));
    assert_eq!(budget.under_way(), 3 * STEP as u64);
    first.receive(&[b'v'; 60_000][2 * STEP + STEP / 2..]);
    assert!(
        matches!(first.waiting.next(), Some(Ok(Payload::Here(body, Some(_)))) if body.len() == 60_000)
    );
    assert_eq!(budget.under_way(), 0);
}

/// Whatever comes: nothing panics, and pieces do not matter.
#[test]
fn any_bytes_are_sorted() {
    const PARTS: &[&str] = &[
        "GET",
        "PUT / HTTP/1.0\r\n",
        " ",
        "x",
        ":",
        ";",
        "\r\n",
        "\r",
        "\n",
        "\x16",
        "\x03",
        " HTTP/1.1\r\n",
        "Host: h\r\n",
        "Content-Length: 7\r\n",
        "Content-Length: 70000\r\n",
        "Transfer-Encoding: chunked\r\n",
        "\r\n\r\n",
        "5\r\nhello\r\n",
        "0\r\n",
    ];
    arbtest(|u| {
        let mut stream = String::new();
        while !u.is_empty() {
            stream += u.choose(PARTS)?;
        }
        sort(&stream);
        Ok(())
    })
    .size_max(40);
}
