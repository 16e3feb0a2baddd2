//! What a service answers, before it is known whom the answer goes to.

use std::borrow::Cow;

use arcstr::Substr;

use super::streams::Subscription;

/// Header fields. The values are our own, never a client's text.
pub type Headers = Vec<(&'static str, Cow<'static, str>)>;

/// An answer, before it is known whom it goes to.
pub struct Response {
    pub(super) status: u16,
    /// `None` where there is no body, not even an empty one.
    pub(super) content_type: Option<&'static str>,
    pub(super) headers: Headers,
    pub(crate) body: Body,
}

/// The body of a response.
pub enum Body {
    /// Text known when the program was compiled.
    Static(&'static str),
    /// Bytes made for this answer.
    Owned(Vec<u8>),
    /// Text shared with the store.
    Shared(Substr),
    /// Bytes made as they go out.
    Stream(Box<dyn Stream>),
    /// What a publisher has to say to this subscription, without an end.
    Endless(Box<dyn Subscription>),
}

/// A body that is made part by part, as the client takes it.
pub trait Stream: Send {
    /// Appends the next part, some kilobytes as a rule. Returns whether more follow.
    fn next_part(&mut self, out: &mut Vec<u8>) -> bool;
}

impl Response {
    /// A response with a body of that type.
    pub fn new(status: u16, content_type: &'static str, body: Body) -> Response {
        Response {
            status,
            content_type: Some(content_type),
            headers: Headers::new(),
            body,
        }
    }

    /// A response with a status that says that there is no body, as 204 and 304 do.
    pub fn empty(status: u16) -> Response {
        Response {
            status,
            content_type: None,
            headers: Headers::new(),
            body: Body::Static(""),
        }
    }

    /// The same with one more header.
    pub fn with_header(
        mut self,
        name: &'static str,
        value: impl Into<Cow<'static, str>>,
    ) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with more headers.
    pub fn with_headers(mut self, headers: Headers) -> Response {
        self.headers.extend(headers);
        self
    }

    /// Whether its body has no end.
    pub(super) fn is_endless(&self) -> bool {
        matches!(self.body, Body::Endless(_))
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }
}
