//! Heads of requests: read by the rules of HTTP, and written anew for tiny_http.
//!
//! tiny_http closes the connection without a word over a byte above 127, waits for itself over HTTP/2, takes folded lines and lengths
//! for what they are not, and reads bodies by rules of its own. So it never sees what the client wrote. It gets a head that leaves
//! nothing to be understood in two ways, and that announces no body: bodies go past tiny_http.

use std::mem::MaybeUninit;
use std::str;

use httparse::{Header, Request};

use crate::server::{Fault, Framing, path_and_query};

/// The most bytes of a request line with its headers. Other servers allow 8 to 64 KiB.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// The most headers. tiny_http makes 150 bytes of one that has four.
pub(super) const HEADERS: usize = 256;

/// As many headers have room on the stack. Each of tiny_http's threads would keep what more took.
const FEW: usize = 24;

/// Headers that tiny_http does not get as they are: those about the body, and the one that we read by the rules and it does not.
const KEPT_BACK: [&str; 4] = [
    "Content-Length",
    "Transfer-Encoding",
    "Expect",
    "Connection",
];

/// What tiny_http gets for a byte above 127, which it cannot take. No key may have either, and no header that we look at.
const SUBSTITUTE: u8 = b'"';

/// The longest part of a broken request line that is kept for the answer and the log, in bytes.
const KEPT_OF_BROKEN: usize = 256;

/// The origin that a connection's requests name in their targets, `http://7` say, as if it was a proxy that sent them. It tells which
/// connection a request came by. A header of our own would do as well, and take tiny_http twice as long.
pub(super) fn origin(connection: u64) -> String {
    format!("{SCHEME}{connection}")
}

const SCHEME: &str = "http://";

/// The number of the connection that a target names.
pub(super) fn connection_in(target: &str) -> Option<u64> {
    let rest = target.strip_prefix(SCHEME)?;
    rest[..rest.find('/')?].parse().ok()
}

/// Where a head ends, if it does. A line ends with a carriage return and a line feed, and with nothing less. `searched` counts the bytes
/// that need not be looked at again.
pub(super) fn find_end(bytes: &[u8], searched: &mut usize) -> Result<Option<usize>, Fault> {
    while let Some(feed) = bytes[*searched..].iter().position(|&it| it == b'\n') {
        let feed = *searched + feed;
        *searched = feed + 1;
        match &bytes[..=feed] {
            [.., b'\n', b'\r', b'\n'] => return Ok(Some(feed + 1)),
            [.., b'\r', b'\n'] => {}
            _ => {
                let reason = "a line feed without a carriage return before it";
                return Err(Fault::Malformed(reason));
            }
        }
    }
    *searched = bytes.len();
    Ok(None)
}

/// What a head says about the body.
pub(super) struct Announced {
    /// Where the body ends; an error says what is wrong with the request.
    pub(super) framing: Result<Framing, Fault>,
    /// Whether the client waits for the word to send it.
    pub(super) expects_continue: bool,
}

/// Reads a head, from its first byte to the empty line at its end, and appends what tiny_http gets of it to `out`. Where it cannot even
/// be read, nothing is appended.
pub(super) fn rewrite(head: &[u8], origin: &str, out: &mut Vec<u8>) -> Result<Announced, Fault> {
    let mended = mend_request_line(head)?;
    let head = mended.as_deref().unwrap_or(head);
    let mut few = [const { MaybeUninit::uninit() }; FEW];
    let mut many;
    let mut request = Request::new(&mut []);
    let mut parsed = request.parse_with_uninit_headers(head, &mut few);
    if parsed == Err(httparse::Error::TooManyHeaders) {
        many = vec![MaybeUninit::uninit(); HEADERS];
        request = Request::new(&mut []);
        parsed = request.parse_with_uninit_headers(head, &mut many);
    }
    match parsed {
        Ok(status) if status.is_complete() => {}
        Ok(_) => return Err(Fault::Malformed("an empty line within the head")),
        Err(error) => return Err(fault(error)),
    }
    // A whole head has all three.
    let (method, target) = (
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
    );
    let minor = request.version.unwrap_or_default();
    write_request_line(method, target, minor, origin, out);
    for Header { name, value } in request.headers.iter() {
        if KEPT_BACK.iter().any(|it| it.eq_ignore_ascii_case(name)) {
            continue;
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        append_ascii(value, out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(connection(request.headers));
    out.extend_from_slice(b"\r\n");
    Ok(announced(request.headers, minor == 0))
}

/// What a client wishes for the connection, in one header. All lines are one list, and `close` wins (RFC 9110 section 7.6.1, RFC 9112
/// section 9.3). We upgrade to nothing.
fn connection(headers: &[Header<'_>]) -> &'static [u8] {
    let lines = headers
        .iter()
        .filter(|it| it.name.eq_ignore_ascii_case("Connection"));
    let options = lines.flat_map(|it| it.value.split(|&byte| byte == b','));
    let mut wish: &[u8] = b"";
    for option in options.map(<[u8]>::trim_ascii) {
        if option.eq_ignore_ascii_case(b"close") {
            return b"Connection: close\r\n";
        }
        if option.eq_ignore_ascii_case(b"keep-alive") {
            wish = b"Connection: keep-alive\r\n";
        }
    }
    wish
}

/// The head with a request line that can be read, if it has none: all bytes are in ASCII, and later versions 1.x are answered as 1.1
/// (RFC 9110 section 2.5).
fn mend_request_line(head: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let end = head.iter().position(|&byte| byte == b'\r');
    let end = end.unwrap_or(head.len());
    match head[..end].last_chunk() {
        Some(b"HTTP/1.1" | b"HTTP/1.0") if head[..end].is_ascii() => Ok(None),
        Some(
            [
                b'H',
                b'T',
                b'T',
                b'P',
                b'/',
                b'1',
                b'.',
                minor @ b'0'..=b'9',
            ],
        ) => {
            let mut mended = Vec::with_capacity(head.len());
            append_ascii(&head[..end], &mut mended);
            mended[end - 1] = (*minor).min(b'1');
            mended.extend_from_slice(&head[end..]);
            Ok(Some(mended))
        }
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) => Err(Fault::Version),
        _ => Err(Fault::Malformed(REQUEST_LINE)),
    }
}

const REQUEST_LINE: &str = "the first line is not METHOD TARGET HTTP/1.1";

fn fault(error: httparse::Error) -> Fault {
    use httparse::Error::{HeaderName, HeaderValue, NewLine, TooManyHeaders};
    match error {
        HeaderName => Fault::Malformed(
            "a header that is not NAME: VALUE on one line, without a space before the colon",
        ),
        HeaderValue => Fault::Malformed("a control character in a header"),
        NewLine => Fault::Malformed("a line that does not end with CR LF"),
        TooManyHeaders => Fault::LongHead,
        _ => Fault::Malformed(REQUEST_LINE),
    }
}

fn announced(headers: &[Header<'_>], http_1_0: bool) -> Announced {
    let values = |name: &'static str| {
        let named = headers
            .iter()
            .filter(move |it| it.name.eq_ignore_ascii_case(name));
        named.map(|it| str::from_utf8(it.value).unwrap_or("\u{fffd}"))
    };
    let framing = check_host(values("Host"), http_1_0).and_then(|()| {
        let (lengths, encodings) = (values("Content-Length"), values("Transfer-Encoding"));
        Framing::of(lengths, encodings, http_1_0)
    });
    let is_met = |value: &str| value.eq_ignore_ascii_case("100-continue");
    let framing = framing.and_then(|framing| match values("Expect").all(is_met) {
        true => Ok(framing),
        false => Err(Fault::Expectation),
    });
    Announced {
        framing,
        // HTTP/1.0 does not know the word, so nobody waits for it (RFC 9110 section 10.1.1).
        expects_continue: !http_1_0 && values("Expect").next().is_some(),
    }
}

/// RFC 9112 section 3.2.
fn check_host<'a>(mut hosts: impl Iterator<Item = &'a str>, http_1_0: bool) -> Result<(), Fault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte);
    match (hosts.next(), hosts.next()) {
        (None, _) if !http_1_0 => Err(Fault::Malformed("no Host header")),
        (_, Some(_)) => Err(Fault::Malformed("more than one Host header")),
        (Some(host), _) if !host.bytes().all(allowed) => {
            Err(Fault::Malformed("a Host header that is no host"))
        }
        _ => Ok(()),
    }
}

/// Appends the head that tiny_http gets for a request that is refused and cannot be read: with its method and its target, if these are
/// there, so that the answer has the right form.
pub(super) fn stand_in(broken: &[u8], origin: &str, out: &mut Vec<u8>) {
    let line = broken.split(|byte| b"\r\n".contains(byte)).next();
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    let mut words = line.split(' ');
    let is_method = |word: &&str| {
        (1..=32).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    let method = words.next().filter(is_method);
    let target = words.find(|word| !word.is_empty()).unwrap_or_default();
    let end = target.find(|it: char| !it.is_ascii_graphic());
    let end = end.unwrap_or(target.len()).min(KEPT_OF_BROKEN);
    write_request_line(method.unwrap_or("GET"), &target[..end], 1, origin, out);
    out.extend_from_slice(b"\r\n");
}

fn write_request_line(method: &str, target: &str, minor: u8, origin: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(origin.as_bytes());
    let path = path_and_query(target);
    if !path.starts_with('/') {
        out.push(b'/');
    }
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.");
    out.extend_from_slice(&[b'0' + minor, b'\r', b'\n']);
}

/// Appends text, with [`SUBSTITUTE`] for what is no ASCII.
fn append_ascii(text: &[u8], out: &mut Vec<u8>) {
    if text.is_ascii() {
        return out.extend_from_slice(text);
    }
    out.extend(text.iter().map(|&byte| match byte.is_ascii() {
        true => byte,
        false => SUBSTITUTE,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(head: &str) -> (String, Result<Framing, Fault>) {
        let mut out = Vec::new();
        let announced = rewrite(head.as_bytes(), &origin(7), &mut out);
        let framing = announced.and_then(|announced| announced.framing);
        (String::from_utf8(out).unwrap(), framing)
    }

    #[test]
    fn tiny_http_gets_a_head_without_a_body_in_ascii() {
        let (head, framing) = rewritten(
            "PUT /kv/é HTTP/1.4\r\nhost:  h\r\nUser-Agent: café\r\ncontent-length: 5\r\n\
             Expect: 100-Continue\r\nX:\r\n\r\n",
        );
        assert_eq!(framing, Ok(Framing::Length(5)));
        let expected = "PUT http://7/kv/\"\" HTTP/1.1\r\nhost: h\r\n\
                        User-Agent: caf\"\"\r\nX: \r\n\r\n";
        assert_eq!(head, expected);
    }

    #[test]
    fn what_breaks_a_rule_gets_its_status() {
        let host = "Host: h\r\n";
        for (head, status) in [
            (format!("GET / HTTP/1.1\r\n{host}X : a\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}X: a\r\n b\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}: a\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}no colon\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}X: a\0b\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}X: a\rb\r\n\r\n"), 400),
            (
                format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding:\x0bchunked\r\n\r\n"),
                400,
            ),
            (format!("GET  / HTTP/1.1\r\n{host}\r\n"), 400),
            (format!("GET /a b HTTP/1.1\r\n{host}\r\n"), 400),
            (format!("GET / HTTP/1.1 \r\n{host}\r\n"), 400),
            (format!("GET /\r\n{host}\r\n"), 400),
            (format!("get / http/1.1\r\n{host}\r\n"), 400),
            ("GET / HTTP/1.1\r\n\r\n".into(), 400),
            (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), 400),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".into(), 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), 400),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), 400),
            (format!("GET / HTTP/1.1\r\n{host}Expect: 200\r\n\r\n"), 417),
            (
                format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\n\r\n"),
                501,
            ),
            (format!("GET / HTTP/2.0\r\n{host}\r\n"), 505),
            ("PRI * HTTP/2.0\r\n\r\n".into(), 505),
            (
                format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(HEADERS)),
                431,
            ),
        ] {
            let fault = rewritten(&head).1.unwrap_err();
            assert_eq!(fault.status(), status, "{head:?}: {fault}");
        }
        for head in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.9\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: upgrade\r\n\r\n",
        ] {
            assert_eq!(rewritten(head).1, Ok(Framing::Length(0)), "{head:?}");
        }
    }

    #[test]
    fn what_stands_in_for_a_broken_head_keeps_method_and_path() {
        for (broken, line) in [
            ("PUT /api/v1/kv/a b c\r\nX", "PUT http://7/api/v1/kv/a"),
            ("HEAD  /kv/\x01a", "HEAD http://7/kv/"),
            ("GET", "GET http://7/"),
            ("G\x7fT x HTTP/1.1", "GET http://7/x"),
            ("", "GET http://7/"),
        ] {
            let mut out = Vec::new();
            stand_in(broken.as_bytes(), &origin(7), &mut out);
            let expected = format!("{line} HTTP/1.1\r\n\r\n");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn a_target_names_its_connection_and_nothing_else() {
        for (target, named) in [
            ("/kv/a?b", "http://7/kv/a?b"),
            ("http://8/kv/a", "http://7/kv/a"),
            ("http://8", "http://7/"),
            ("HTTP://h:80?x=http://y/z", "http://7/?x=http://y/z"),
            ("/kv/http://8/", "http://7/kv/http://8/"),
            ("*", "http://7/*"),
            ("h:80", "http://7/h:80"),
        ] {
            let (head, _) = rewritten(&format!("GET {target} HTTP/1.0\r\n\r\n"));
            assert_eq!(head, format!("GET {named} HTTP/1.0\r\n\r\n"));
            assert_eq!(connection_in(named), Some(7));
        }
        assert_eq!(connection_in("/kv/a"), None);
        assert_eq!(connection_in("http://h/kv/a"), None);
    }
}
