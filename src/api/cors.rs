//! Which web pages may use the APIs: cross-origin resource sharing, as the Fetch standard has it.

use std::borrow::Cow;

use super::route::Miss;
use crate::origin::Origin;
use crate::server::{Head, Headers, Method, Response};

/// What pages may read besides the body.
const EXPOSED: &str = "Allow, Retry-After, WWW-Authenticate, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset";

/// What pages may send besides what browsers let them send anyway.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, X-API-Key";

/// What any path has.
const ALL_METHODS: &str = "GET, HEAD, POST, PUT, DELETE";

/// How long browsers may keep the answer to a preflight, in seconds.
const MAX_AGE: &str = "600";

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
