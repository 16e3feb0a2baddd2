use super::*;
use arbtest::arbtest;

/// How many requests there are in a stream, and what the client is in the middle of at its end; given whole and in
/// pieces of any size.
fn follow(stream: &str) -> (u64, Sending, usize) {
    let outcome = |piece: usize| {
        let (mut follower, mut given) = (Follower::new(), 0);
        for piece in stream.as_bytes().to_vec().chunks_mut(piece) {
            let taken = follower.follow(piece, 1);
            given += taken;
            if taken < piece.len() {
                break;
            }
        }
        (follower.requests(), follower.sending(), given)
    };
    let whole = outcome(stream.len());
    for piece in [1, 2, 3, 5, 7, 1024] {
        assert_eq!(
            outcome(piece).0,
            whole.0,
            "in pieces of {piece}: {stream:?}"
        );
        assert_eq!(
            outcome(piece).1,
            whole.1,
            "in pieces of {piece}: {stream:?}"
        );
    }
    whole
}

#[test]
fn requests_are_told_apart() {
    let get = "GET /kv/a HTTP/1.1\r\nHost: h\r\n\r\n";
    let put = "PUT /kv/a HTTP/1.1\r\ncontent-length: 5\r\n\r\n\r\n\r\nv";
    let chunked = "PUT /kv/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n1;note=x\r\n,\r\n0\r\n\r\n";
    let large = format!(
        "PUT /kv/a HTTP/1.1\r\nContent-Length: 5000\r\n\r\n{}",
        "GET / HTTP/2.0\r\n".repeat(313)
    );
    let stream = [get, put, chunked, &large[..large.len() - 8], get, put].concat();
    assert_eq!(follow(&stream), (6, Sending::Nothing, stream.len()));
}

#[test]
fn what_is_being_sent_is_known() {
    for (stream, sending) in [
        ("G", Sending::Head),
        ("GET / HTTP/1.1\r\n", Sending::Head),
        ("GET / HTTP/1.1\r\n\r", Sending::Head),
        ("GET / HTTP/1.1\r\n\r\n", Sending::Nothing),
        ("GET / HTTP/1.1\r\n\r\nG", Sending::Head),
        (
            "P / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
            Sending::SmallBody { came: 3 },
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 9999\r\n\r\nabc",
            Sending::Nothing,
        ),
        (
            "P / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
            Sending::Nothing,
        ),
    ] {
        assert_eq!(follow(stream).1, sending, "{stream:?}");
    }
}

#[test]
fn a_request_line_of_http_2_goes_no_further_and_no_other_is_taken_for_one() {
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/2.0 x"] {
        let earlier = "GET /kv/a HTTP/1.1\r\n\r\n";
        let (requests, _, given) = follow(&format!("{earlier}GET / {version}\r\n\r\n"));
        assert_eq!((requests, given), (1, earlier.len()));
    }
    for request in [
        "GET /?HTTP/2.0 HTTP/1.1\r\nX: GET / HTTP/2.0\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 16\r\n\r\nGET / HTTP/2.0\r\n",
    ] {
        assert_eq!(follow(request), (1, Sending::Nothing, request.len()));
    }
}

#[test]
fn what_tiny_http_answers_by_itself_comes_behind_no_other_answer() {
    let get = "GET /kv/a HTTP/1.1\r\n\r\n";
    for (expected, requests) in [("100-Continue", 3), ("200-ok", 2)] {
        let expecting = format!("PUT / HTTP/1.1\r\nExpect: {expected}\r\n\r\n");
        // One request has been answered.
        assert_eq!(follow(&format!("{get}{get}{expecting}")).0, requests);
        assert_eq!(follow(&format!("{get}{expecting}")).0, 2);
    }
}

#[test]
fn nothing_goes_beyond_where_the_reader_of_chunks_stops() {
    let head = "PUT /kv/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for bad in [
        "zz\r\n",
        "-1\r\n",
        "\r\n",
        "5\rxA / HTTP/2.0\r\n",
        "5\r\nhello5\r\n".trim_end(),
        "5\r\nhelloX",
        "5\r\nhello\rX",
        "0\r\nX",
        "A / HTTP/2.0\r\n",
    ] {
        let stream = format!("{head}{bad}\r\nA / HTTP/2.0\r\n\r\n");
        let (requests, _, given) = follow(&stream);
        assert_eq!(requests, 1);
        // No more than makes whoever reads it notice.
        assert!(given <= head.len() + bad.len(), "{bad:?}");
        assert!(given > head.len());
    }
}

#[test]
fn heads_and_chunk_lines_have_a_limit() {
    let head = |bytes: usize| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(bytes - 23));
    assert_eq!(follow(&head(HEAD_BYTES)).0, 1);
    let (requests, _, given) = follow(&head(HEAD_BYTES + 1));
    assert_eq!(requests, 0);
    assert!(given <= HEAD_BYTES);
    let many = |headers| format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(headers));
    assert_eq!(follow(&many(HEADERS)).0, 1);
    assert_eq!(follow(&many(HEADERS + 1)).0, 0);
    let chunked = "PUT /kv/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;";
    assert_eq!(
        follow(&format!("{chunked}{}", "x".repeat(5000))).2,
        chunked.len() - 2
    );
}

#[test]
fn a_length_has_twelve_digits_at_most_however_it_comes() {
    for (length, shortened) in [
        ("9999999999", "9999999999"),
        ("99999999999999", "999999999999  "),
        (" +18446744073709551616", " +184467440737        "),
        ("000000000000000000005", "000000000000000000005"),
        ("0009999999999999 ", "000999999999999  "),
    ] {
        let stream =
            |length| format!("PUT / HTTP/1.1\r\nX: 99999999999\r\ncontent-length:{length}\r\n");
        for piece in [1, 2, 3, 7, 100] {
            let mut bytes = stream(length).into_bytes();
            let mut follower = Follower::new();
            for piece in bytes.chunks_mut(piece) {
                assert_eq!(follower.follow(piece, 0), piece.len());
            }
            assert_eq!(bytes, stream(shortened).into_bytes());
        }
    }
}

/// Where tiny_http and we read differently, it is not noticed here, but nothing panics, and pieces do not matter.
#[test]
fn any_bytes_are_followed() {
    const PARTS: &[&str] = &[
        "GET",
        "PUT",
        " ",
        "x",
        ":",
        ";",
        "\r\n",
        "\r",
        "\n",
        " HTTP/1.1\r\n",
        "Content-Length: 7\r\n",
        "Content-Length: 300\r\n",
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
        follow(&stream);
        Ok(())
    })
    .size_max(40);
}
