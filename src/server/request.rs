//! What the head of a request says: the part that is known before any body is read.

use std::net::SocketAddr;

use tiny_http::{HTTPVersion, Header, Method, Request};

use super::Fault;

/// Bodies up to this size are read by tiny_http before it hands the request out; larger ones are not.
const READ_BY_TINY_HTTP: u64 = 1024;

/// The head of a request.
#[derive(Clone, Copy)]
pub struct Head<'a>(&'a Request);

/// A target without the scheme and the host that it may begin with, as those that proxies get do.
pub fn path_and_query(target: &str) -> &str {
    match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find(['/', '?']).map_or("", |at| &rest[at..])
        }
        _ => target,
    }
}

impl<'a> Head<'a> {
    pub(crate) fn of(request: &'a Request) -> Head<'a> {
        Head(request)
    }

    /// How many bytes it has, with its small body, going by what takes most.
    pub(super) fn bytes(self) -> usize {
        let headers = self.0.headers().iter();
        let headers = headers.map(|it| it.field.as_str().len() + it.value.len());
        let body = self.0.body_length().unwrap_or(0);
        self.0.url().len() + headers.sum::<usize>() + body.min(READ_BY_TINY_HTTP as usize)
    }

    /// The method.
    pub fn method(self) -> &'a Method {
        self.0.method()
    }

    /// The path, still percent-encoded, without the query. Of a target in absolute form, as proxies get it, the path.
    pub fn path(self) -> &'a str {
        match self.target().0 {
            "" => "/",
            path => path,
        }
    }

    /// The query, still encoded; empty if there is none.
    pub fn query(self) -> &'a str {
        self.target().1
    }

    fn target(self) -> (&'a str, &'a str) {
        let target = path_and_query(self.0.url());
        target.split_once('?').unwrap_or((target, ""))
    }

    /// The first header of that name, whatever its case.
    pub fn header(self, name: &'static str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// All headers of that name, whatever their case.
    pub fn headers(self, name: &'static str) -> impl Iterator<Item = &'a str> + use<'a> {
        let named = move |header: &&Header| header.field.equiv(name);
        self.0
            .headers()
            .iter()
            .filter(named)
            .map(|header| header.value.as_str())
    }

    /// Where it comes from.
    pub fn peer(self) -> Option<&'a SocketAddr> {
        self.0.remote_addr()
    }

    /// Whether the connection stays open after the answer, going by what the client asked for; and whether it asked for that in so many
    /// words.
    pub(super) fn keeps_alive(self) -> (bool, bool) {
        let Some(wish) = self.header("Connection") else {
            return (!self.is_http_1_0(), false);
        };
        let wish = wish.to_ascii_lowercase();
        let asks = wish.contains("keep-alive");
        // As tiny_http decides it, since it is tiny_http that closes.
        let ends = wish.contains("close") || wish.contains("upgrade");
        (!ends && (asks || !self.is_http_1_0()), asks)
    }

    fn connection_says(self, word: &str) -> bool {
        self.header("Connection")
            .is_some_and(|value| value.to_ascii_lowercase().contains(word))
    }

    /// Whether the body is compressed, or encoded in another way.
    pub(super) fn is_encoded(self) -> bool {
        let mut encodings = self
            .headers("Content-Encoding")
            .flat_map(|it| it.split(','));
        encodings.any(|it| !matches!(it.trim(), "") && !it.trim().eq_ignore_ascii_case("identity"))
    }

    pub(super) fn is_http_1_0(self) -> bool {
        *self.0.http_version() <= HTTPVersion(1, 0)
    }

    /// Where the body is and how long it says it is; an error names what is wrong with it.
    ///
    /// tiny_http guesses where the head is ambiguous. Behind a proxy that guesses otherwise, the rest of such a body
    /// would be taken for a request of somebody else, so ambiguity is an error here, as RFC 9112 section 6.3 has it.
    pub(super) fn framing(self) -> Result<Framing, Fault> {
        let control = |header: &Header| {
            header
                .value
                .as_str()
                .bytes()
                .any(|b| b < b' ' && b != b'\t')
        };
        if self.0.headers().iter().any(control) {
            return Err(Fault::Malformed("a control character in a header"));
        }
        // tiny_http hands out the body of such a request raw, and chunks would have to be decoded here.
        if self.connection_says("upgrade") && self.header("Transfer-Encoding").is_some() {
            return Err(Fault::Unsupported("chunks with Connection: upgrade"));
        }
        let (lengths, encodings) = (
            self.headers("Content-Length"),
            self.headers("Transfer-Encoding"),
        );
        Framing::of(lengths, encodings, self.is_http_1_0())
    }

    /// Whether tiny_http has read a body of that length before it handed the request out.
    pub(super) fn has_been_read(self, length: u64) -> bool {
        length == 0
            || length <= READ_BY_TINY_HTTP
                && self.header("Expect").is_none()
                && !self.connection_says("upgrade")
    }
}

/// Where the body of a request ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
}

impl Framing {
    /// Goes by the values of all `Content-Length` and `Transfer-Encoding` headers.
    pub fn of<'a>(
        mut lengths: impl Iterator<Item = &'a str>,
        mut encodings: impl Iterator<Item = &'a str>,
        http_1_0: bool,
    ) -> Result<Framing, Fault> {
        let (length, encoding) = (lengths.next(), encodings.next());
        if lengths.next().is_some() || encodings.next().is_some() {
            return Err(Fault::Malformed(
                "more than one Content-Length or Transfer-Encoding header",
            ));
        }
        match (length, encoding) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(_), Some(_)) => Err(Fault::Malformed("Content-Length beside Transfer-Encoding")),
            (None, Some(_)) if http_1_0 => Err(Fault::Malformed("Transfer-Encoding in HTTP/1.0")),
            (None, Some(encoding)) if encoding.eq_ignore_ascii_case("chunked") => {
                Ok(Framing::Chunked)
            }
            (None, Some(_)) => Err(Fault::Unsupported("a Transfer-Encoding other than chunked")),
            (Some(length), None) => {
                if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(Fault::Malformed("a Content-Length that is not a number"));
                }
                // More digits than fit: longer than any limit.
                Ok(Framing::Length(length.parse().unwrap_or(u64::MAX)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiny_http::TestRequest;

    #[test]
    fn the_path_is_what_stands_before_the_query() {
        let request = TestRequest::new().with_path("/kv/a?b=c?d").into();
        assert_eq!(Head::of(&request).query(), "b=c?d");
        for (target, path) in [
            ("/kv/a", "/kv/a"),
            ("/kv/a?x=1&y=/z", "/kv/a"),
            ("/kv/a?u=http://b/c", "/kv/a"),
            ("http://host:80/kv/a?x", "/kv/a"),
            ("http://host", "/"),
            ("http://host?/kv/a", "/"),
            ("*", "*"),
        ] {
            let request = TestRequest::new().with_path(target).into();
            assert_eq!(Head::of(&request).path(), path, "{target}");
        }
    }

    #[test]
    fn a_body_has_a_length_or_chunks_or_is_ambiguous() {
        let of = |lengths: &[&'static str], encodings: &[&'static str]| {
            Framing::of(lengths.iter().copied(), encodings.iter().copied(), false)
        };
        assert_eq!(of(&[], &[]), Ok(Framing::Length(0)));
        assert_eq!(of(&["1025"], &[]), Ok(Framing::Length(1025)));
        assert_eq!(of(&["0005"], &[]), Ok(Framing::Length(5)));
        assert_eq!(
            of(&["99999999999999999999999"], &[]),
            Ok(Framing::Length(u64::MAX))
        );
        assert_eq!(of(&[], &["Chunked"]), Ok(Framing::Chunked));
        for (lengths, encodings, status) in [
            (&["+5"][..], &[][..], 400),
            (&[""], &[], 400),
            (&["5, 5"], &[], 400),
            (&["5", "5"], &[], 400),
            (&["5"], &["chunked"], 400),
            (&[], &["chunked", "chunked"], 400),
            (&[], &["gzip"], 501),
            (&[], &["gzip, chunked"], 501),
        ] {
            let fault = of(lengths, encodings).unwrap_err();
            assert_eq!(fault.status(), status, "{lengths:?} {encodings:?}");
        }
        assert!(Framing::of([].into_iter(), ["chunked"].into_iter(), true).is_err());
    }
}
