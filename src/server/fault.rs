//! Why the server answers a request itself, without asking its [`super::Service`].

use std::fmt;

/// Why the server does not let a request through, or could not finish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It breaks a rule of HTTP; the text says which.
    Malformed(&'static str),
    /// Its head or its body did not come in time.
    TooSlow,
    /// Its body has more bytes than the limit.
    TooLarge {
        /// The most bytes that were allowed.
        limit: u64,
    },
    /// Its request line is too long.
    LongTarget,
    /// Its body is compressed.
    Encoded,
    /// It expects something else than `100-continue`.
    Expectation,
    /// Its headers are too long, or too many.
    LongHead,
    /// There is too much to do already.
    Overloaded,
    /// Answering it failed by a fault of our own.
    Internal,
    /// It asks for a part of HTTP that we do not have; the text says which.
    Unsupported(&'static str),
    /// It is for another version of HTTP.
    Version,
}

impl Fault {
    /// One of each kind.
    pub const ALL: [Fault; 11] = [
        Fault::Malformed(""),
        Fault::TooSlow,
        Fault::TooLarge { limit: 0 },
        Fault::LongTarget,
        Fault::Encoded,
        Fault::Expectation,
        Fault::LongHead,
        Fault::Overloaded,
        Fault::Internal,
        Fault::Unsupported(""),
        Fault::Version,
    ];

    /// A word for its kind.
    pub fn word(self) -> &'static str {
        match self {
            Fault::Malformed(_) => "malformed",
            Fault::TooSlow => "too_slow",
            Fault::TooLarge { .. } => "too_large",
            Fault::LongTarget => "long_target",
            Fault::Encoded => "encoded",
            Fault::Expectation => "expectation",
            Fault::LongHead => "long_head",
            Fault::Overloaded => "overloaded",
            Fault::Internal => "internal",
            Fault::Unsupported(_) => "unsupported",
            Fault::Version => "version",
        }
    }

    /// The status of the answer (RFC 9110 section 15, RFC 6585 for 431).
    pub fn status(self) -> u16 {
        match self {
            Fault::Malformed(_) => 400,
            Fault::TooSlow => 408,
            Fault::TooLarge { .. } => 413,
            Fault::LongTarget => 414,
            Fault::Encoded => 415,
            Fault::Expectation => 417,
            Fault::LongHead => 431,
            Fault::Internal => 500,
            Fault::Unsupported(_) => 501,
            Fault::Overloaded => 503,
            Fault::Version => 505,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Malformed(what) => return write!(f, "malformed request: {what}"),
            Fault::Unsupported(what) => return write!(f, "not supported: {what}"),
            Fault::TooSlow => "the request did not arrive in time",
            Fault::TooLarge { .. } => "value too large",
            Fault::LongTarget => "the request line is too long",
            Fault::Encoded => "the only Content-Encoding that is taken is identity",
            Fault::Expectation => "the only expectation that is met is 100-continue",
            Fault::LongHead => "the headers are too long or too many",
            Fault::Overloaded => "the server is overloaded, try again later",
            Fault::Internal => "internal server error",
            Fault::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here",
        })
    }
}
