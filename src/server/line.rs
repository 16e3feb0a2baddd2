//! A request as the log shows it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Service;
use super::id::RequestId;
use super::request::Head;

/// What the log says of a request: as a text, and as fields for `--log-format json`.
pub(super) struct Line {
    pub(super) client: SocketAddr,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) status: u16,
    pub(super) id: String,
    /// The name of the token that it came with, if that is known.
    pub(super) token: Option<String>,
}

impl Line {
    pub(super) fn new(
        client: SocketAddr,
        head: Head<'_>,
        status: u16,
        id: RequestId<'_>,
        service: &dyn Service,
    ) -> Line {
        Line {
            client,
            method: head.method().as_str().to_owned(),
            path: head.path().to_owned(),
            status,
            id: id.to_string(),
            token: service.who(head),
        }
    }

    /// Logs that it has been answered, and how long that took.
    pub(super) fn log(&self, took: Duration) {
        log::debug!(
            client:% = self.client, method = self.method, path = self.path, status = self.status,
            request_id = self.id, token = self.token.as_deref(), duration_ms = millis(took);
            "{self} {took:?}"
        );
    }
}

/// Quotes what the client sent, so that a client cannot write log lines.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {:?} {} id={}",
            self.client,
            self.method.escape_default(),
            self.path,
            self.status,
            self.id
        )?;
        match &self.token {
            Some(name) => write!(f, " token={name:?}"),
            None => Ok(()),
        }
    }
}

/// A field that holds a time has a number of milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}
