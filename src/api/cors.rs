//! Which web pages may use the APIs: cross-origin resource sharing, as the Fetch standard has it.

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::route::Miss;
use crate::server::{Head, Headers, Method, Response};

/// What pages may read besides the body.
const EXPOSED: &str = "Allow, Retry-After, WWW-Authenticate, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset";

/// What pages may send besides what browsers let them send anyway.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, X-API-Key";

/// What any path has.
const ALL_METHODS: &str = "GET, HEAD, POST, PUT, DELETE";

/// How long browsers may keep the answer to a preflight, in seconds.
const MAX_AGE: &str = "600";

/// Whose pages are let in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Everybody's.
    Any,
    /// Those of this origin, as browsers write it: scheme, host, and a port other than the scheme's own.
    Exactly(String),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Origin, String> {
        if text == "*" {
            return Ok(Origin::Any);
        }
        read_origin(&text.to_ascii_lowercase())
            .map(Origin::Exactly)
            .ok_or_else(|| {
                format!(
                    "{text:?}: expected an origin as browsers send it, such as https://example.com \
                     or https://xn--bcher-kva.example:8443, or *"
                )
            })
    }
}

/// An origin in lower case, as browsers write it.
fn read_origin(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse::<u16>().ok()?)),
        _ => (rest, None),
    };
    let all = |text: &str, others: &[u8]| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
        !text.is_empty() && text.bytes().all(allowed)
    };
    let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let host = match bracketed {
        Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().ok()?),
        None => host.to_owned(),
    };
    let well_formed = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && all(scheme, b"+-.")
        && (bracketed.is_some() || all(&host, b"-._"));
    // Browsers leave the scheme's own port out.
    let port = match (scheme, port) {
        ("http", Some(80)) | ("https", Some(443)) | (_, None) => String::new(),
        (_, Some(port)) => format!(":{port}"),
    };
    well_formed.then(|| format!("{scheme}://{host}{port}"))
}

/// The origins whose pages are let in. None of them, and CORS is off.
pub(super) struct Cors {
    any: bool,
    origins: Vec<String>,
}

impl Cors {
    pub(super) fn new(origins: Vec<Origin>) -> Cors {
        let any = origins.contains(&Origin::Any);
        let exactly = |origin| match origin {
            Origin::Exactly(origin) => Some(origin),
            Origin::Any => None,
        };
        Cors {
            any,
            origins: origins.into_iter().filter_map(exactly).collect(),
        }
    }

    /// What every answer to a request carries, so that the page which sent it may read the answer, errors included.
    pub(super) fn headers(&self, head: Head<'_>) -> Headers {
        let mut headers = Headers::new();
        let Some(allowed) = self.allowed(head) else {
            if !self.origins.is_empty() {
                headers.push(("Vary", "Origin".into()));
            }
            return headers;
        };
        headers.push(("Access-Control-Allow-Origin", allowed));
        headers.push(("Access-Control-Expose-Headers", EXPOSED.into()));
        if !self.any {
            // Or a cache would hand this answer to pages of other origins.
            headers.push(("Vary", "Origin".into()));
        }
        headers
    }

    /// The answer to a request that a browser sends to learn what a page may do; `None` if it is another request. Pages
    /// that are not let in get no permission with it. `miss` is why there is nothing else to answer.
    pub(super) fn preflight(&self, head: Head<'_>, miss: &Miss) -> Option<Response> {
        let asks = *head.method() == Method::Options
            && head.header("Origin").is_some()
            && head.header("Access-Control-Request-Method").is_some();
        if !asks || !self.any && self.origins.is_empty() {
            return None;
        }
        let methods = match miss {
            Miss::Method(allow) => allow.clone().into(),
            // Let what comes next be sent, so that the page can read what is wrong with it.
            Miss::Path => Cow::from(ALL_METHODS),
        };
        let response = Response::empty(204);
        Some(match self.allowed(head) {
            None => response,
            Some(_) => response
                .with_header("Access-Control-Allow-Methods", methods)
                .with_header("Access-Control-Allow-Headers", ALLOWED_HEADERS)
                .with_header("Access-Control-Max-Age", MAX_AGE),
        })
    }

    /// Whether a page sends a request that it has no permission for. Browsers ask first, but not before a POST that looks
    /// like that of a form: any page could write to the server of whoever visits it.
    pub(super) fn is_forged(&self, head: Head<'_>) -> bool {
        let own = |origin: &str| {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && host == head.header("Host")
        };
        *head.method() == Method::Post
            && head.headers("Origin").any(|origin| !own(origin))
            && self.allowed(head).is_none()
    }

    /// What the request's origin is told that it is let in as.
    fn allowed(&self, head: Head<'_>) -> Option<Cow<'static, str>> {
        if self.any {
            return Some("*".into());
        }
        let mut given = head.headers("Origin");
        let origin = given.next().filter(|_| given.next().is_none())?;
        let known = self.origins.iter().find(|known| *known == origin);
        known.map(|known| known.clone().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_as_browsers_write_it() {
        for (text, origin) in [
            ("https://example.com", "https://example.com"),
            ("HTTPS://Example.COM:443", "https://example.com"),
            ("http://example.com:80", "http://example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[0::1]", "http://[::1]"),
            ("https://example.com:80", "https://example.com:80"),
            ("app://threadkv", "app://threadkv"),
        ] {
            assert_eq!(text.parse(), Ok(Origin::Exactly(origin.into())));
        }
        assert_eq!("*".parse(), Ok(Origin::Any));
        for text in [
            "",
            "null",
            "example.com",
            "https://",
            "://example.com",
            "https://example.com/",
            "https://user@example.com",
            "https://*.example.com",
            "https://example.com, https://example.org",
            "https://exämple.com",
            "https://example.com:",
            "https://example.com:65536",
            "http://:80",
            "http://a:b:c",
            "https://[::1",
            "https://::1",
        ] {
            let error = text.parse::<Origin>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?}")), "{error}");
        }
    }
}
