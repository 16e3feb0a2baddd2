//! What the head of a request says: the part that is known before any body is read.

use std::net::SocketAddr;

use tiny_http::{HTTPVersion, Header, Method, Request};

/// Bodies up to this size are read by tiny_http before it hands the request out; larger ones are not.
pub const READ_BY_TINY_HTTP: u64 = 1024;

/// The head of a request.
#[derive(Clone, Copy)]
pub struct Head<'a>(&'a Request);

impl<'a> Head<'a> {
    pub(crate) fn of(request: &'a Request) -> Head<'a> {
        Head(request)
    }

    /// How many bytes it has, with its small body, going by what takes most.
    pub(super) fn bytes(self) -> usize {
        let headers = self.0.headers().iter();
        let headers = headers.map(|it| it.field.as_str().len() + it.value.len());
        let body = self.0.body_length().unwrap_or(0) as u64;
        self.0.url().len() + headers.sum::<usize>() + body.min(READ_BY_TINY_HTTP) as usize
    }

    /// The method.
    pub fn method(self) -> &'a Method {
        self.0.method()
    }

    /// The path, still percent-encoded, without the query. Of a target in absolute form, as proxies get it, the path.
    pub fn path(self) -> &'a str {
        let target = self.target().0;
        match target.split_once("://") {
            Some((scheme, rest)) if !scheme.contains('/') => {
                rest.find('/').map_or("/", |at| &rest[at..])
            }
            _ => target,
        }
    }

    /// The query, still encoded; empty if there is none.
    pub fn query(self) -> &'a str {
        self.target().1
    }

    fn target(self) -> (&'a str, &'a str) {
        self.0.url().split_once('?').unwrap_or((self.0.url(), ""))
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

    /// Whether the connection stays open after the answer, going by what the client asked for.
    pub(super) fn keeps_alive(self) -> bool {
        let asked = |word: &str| {
            self.header("Connection")
                .is_some_and(|v| v.to_ascii_lowercase().contains(word))
        };
        // As tiny_http decides it, since it is tiny_http that closes.
        !asked("close")
            && !asked("upgrade")
            && (*self.0.http_version() > HTTPVersion(1, 0) || asked("keep-alive"))
    }

    pub(super) fn is_http_1_0(self) -> bool {
        *self.0.http_version() <= HTTPVersion(1, 0)
    }

    /// Where the body is and how long it says it is; an error names what is wrong with it.
    ///
    /// tiny_http guesses where the head is ambiguous. Behind a proxy that guesses otherwise, the rest of such a body
    /// would be taken for a request of somebody else, so ambiguity is an error here, as RFC 9112 section 6.3 has it.
    pub(super) fn framing(self) -> Result<Framing, &'static str> {
        let control = |header: &Header| {
            header
                .value
                .as_str()
                .bytes()
                .any(|b| b < b' ' && b != b'\t')
        };
        if self.0.headers().iter().any(control) {
            return Err("a control character in a header");
        }
        let (lengths, encodings) = (
            self.headers("Content-Length"),
            self.headers("Transfer-Encoding"),
        );
        Framing::of(
            lengths,
            encodings,
            self.expects_continue(),
            self.upgrades(),
            self.is_http_1_0(),
        )
    }

    /// Whether the client waits for the word to send the body.
    pub fn expects_continue(self) -> bool {
        self.header("Expect").is_some()
    }

    fn upgrades(self) -> bool {
        self.header("Connection")
            .is_some_and(|v| v.to_ascii_lowercase().contains("upgrade"))
    }
}

/// Where the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// In memory, or there is none: reading it waits for nobody.
    Here,
    /// Still with the client: reading it takes as long as the client likes.
    Coming {
        /// How many bytes the client announced; `None` when it sends chunks.
        declared: Option<u64>,
    },
}

impl Framing {
    fn of<'a>(
        mut lengths: impl Iterator<Item = &'a str>,
        mut encodings: impl Iterator<Item = &'a str>,
        expects_continue: bool,
        upgrades: bool,
        http_1_0: bool,
    ) -> Result<Framing, &'static str> {
        let (length, encoding) = (lengths.next(), encodings.next());
        if lengths.next().is_some() || encodings.next().is_some() {
            return Err("more than one Content-Length or Transfer-Encoding header");
        }
        match (length, encoding) {
            (None, None) => Ok(Framing::Here),
            (Some(_), Some(_)) => Err("Content-Length beside Transfer-Encoding"),
            (None, Some(encoding)) if !encoding.eq_ignore_ascii_case("chunked") => {
                Err("a Transfer-Encoding other than chunked")
            }
            (None, Some(_)) if http_1_0 => Err("Transfer-Encoding in HTTP/1.0"),
            // tiny_http hands out the body of such a request raw, and chunks would have to be decoded here.
            (None, Some(_)) if upgrades => Err("Transfer-Encoding with Connection: upgrade"),
            (None, Some(_)) => Ok(Framing::Coming { declared: None }),
            (Some(length), None) => {
                if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
                    return Err("a Content-Length that is not a number");
                }
                // More digits than fit: longer than any limit.
                let declared = length.parse().unwrap_or(u64::MAX);
                let here = declared == 0
                    || declared <= READ_BY_TINY_HTTP && !expects_continue && !upgrades;
                Ok(if here {
                    Framing::Here
                } else {
                    Framing::Coming {
                        declared: Some(declared),
                    }
                })
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
    fn a_body_is_here_or_coming_or_ambiguous() {
        let of = |lengths: &[&'static str], encodings: &[&'static str], expects, upgrades| {
            Framing::of(
                lengths.iter().copied(),
                encodings.iter().copied(),
                expects,
                upgrades,
                false,
            )
        };
        let coming = |declared| Ok(Framing::Coming { declared });
        assert_eq!(of(&[], &[], false, false), Ok(Framing::Here));
        assert_eq!(of(&["0"], &[], true, true), Ok(Framing::Here));
        assert_eq!(of(&["1024"], &[], false, false), Ok(Framing::Here));
        assert_eq!(of(&["1025"], &[], false, false), coming(Some(1025)));
        assert_eq!(of(&["5"], &[], true, false), coming(Some(5)));
        assert_eq!(of(&["5"], &[], false, true), coming(Some(5)));
        assert_eq!(
            of(&["99999999999999999999999"], &[], false, false),
            coming(Some(u64::MAX))
        );
        assert_eq!(of(&[], &["Chunked"], false, false), coming(None));
        assert!(of(&[], &["Chunked"], false, true).is_err());
        assert!(of(&[], &["gzip"], false, false).is_err());
        assert!(of(&["+5"], &[], false, false).is_err());
        assert!(of(&[""], &[], false, false).is_err());
        assert!(of(&["5", "5"], &[], false, false).is_err());
        assert!(of(&["5"], &["chunked"], false, false).is_err());
        assert!(Framing::of([].into_iter(), ["chunked"].into_iter(), false, false, true).is_err());
    }
}
