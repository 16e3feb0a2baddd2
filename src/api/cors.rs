//! Which web pages may use the APIs: cross-origin resource sharing, as the Fetch standard has it.

use std::borrow::Cow;

use super::route::Miss;
use crate::origin::Origin;
use crate::server::{Head, Headers, Method, Response};

/// Answer headers that pages may read.
const EXPOSED: &str = "Allow, ETag, Retry-After, WWW-Authenticate, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-Id, X-Threadkv-Age";

/// Request headers that pages may send, besides those that browsers always allow.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID, X-API-Key, X-Request-Id, X-Threadkv-Consistency";

/// Every method that any path has.
const ALL_METHODS: &str = "GET, HEAD, POST, PUT, DELETE";

/// Browsers may cache the answer to a preflight this long, in seconds.
const MAX_AGE: &str = "600";

/// The origins whose pages may use the APIs. Without any, CORS is off.
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

    /// Headers for every answer to this request, errors included. With them the browser lets the page read the answer.
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
            // Without this, a cache would give this answer to pages of other origins.
            headers.push(("Vary", "Origin".into()));
        }
        headers
    }

    /// Answers a preflight, by which a browser asks what a page may do. `None` for any other request. Pages of other origins get an
    /// answer without permission. `miss` says why the path or method leads nowhere: no path has OPTIONS.
    pub(super) fn preflight(&self, head: Head<'_>, miss: &Miss) -> Option<Response> {
        let asks = *head.method() == Method::Options
            && head.header("Origin").is_some()
            && head.header("Access-Control-Request-Method").is_some();
        if !asks || !self.any && self.origins.is_empty() {
            return None;
        }
        let methods = match miss {
            Miss::Method(allow) => allow.clone().into(),
            // Allow the real request, so that the page can read its 404.
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

    /// Whether a page without permission sends a POST. Browsers send no preflight before a POST that looks like that of a form, so any
    /// page could otherwise write to the server on its visitor's machine.
    pub(super) fn is_forged(&self, head: Head<'_>) -> bool {
        let own = |origin: &str| {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && host == head.header("Host")
        };
        *head.method() == Method::Post
            && head.headers("Origin").any(|origin| !own(origin))
            && self.allowed(head).is_none()
    }

    /// The value of `Access-Control-Allow-Origin` for this request; `None` if its origin has no permission.
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
