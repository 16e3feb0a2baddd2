//! Authentication: checks the token of a request, and what that token may do (contract, "Access").

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::rate::Rate;
use crate::server::Head;
use crate::tokens::{TokenError, Tokens};

use super::limiter::{Client, TooMany};
use super::token_file::{LOOK, Look, REMIND, Watch};

/// The tokens in the `--auth` file. A thread keeps them up to date.
pub struct Auth {
    /// The lock is held only to clone or to replace the pointer.
    tokens: RwLock<Arc<Tokens>>,
    /// When a look at the file last showed that these tokens are current. The lock is held only to read or write the time.
    current: Mutex<Instant>,
    /// Wakes the thread, which then reads the file at once.
    wake: Sender<()>,
}

/// What a request needs to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing. It is not rate-limited either.
    Unlimited,
    /// No token. It is rate-limited by address.
    Open,
    /// Any token.
    Read,
    /// A token that may write.
    Write,
}

/// The owner of a known token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) client: Client,
    pub(super) read_only: bool,
    /// The token's own rate limit, if it has one.
    pub(super) rate_limit: Option<Rate>,
}

/// Why a request is refused before its key or body is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It has no token, an unknown one, or more than one.
    Unauthorized,
    /// The token may only read.
    ReadOnly,
    /// A web page of an origin without permission tries to write.
    Forged,
    /// Its `Host` is not allowed.
    UnknownHost,
    /// Its client is over the rate limit.
    TooMany(TooMany),
}

impl Auth {
    /// Reads the file, and starts a thread that reads it again whenever it changes. If a later read fails, the tokens stay as they were,
    /// and the log says so.
    pub fn open(path: &Path) -> Result<Arc<Auth>, TokenError> {
        let (watch, tokens) = Watch::start(path)?;
        let (wake, woken) = bounded(1);
        let auth = Arc::new(Auth {
            tokens: RwLock::new(Arc::new(tokens)),
            current: Mutex::new(Instant::now()),
            wake,
        });
        let watched = Arc::clone(&auth);
        thread::Builder::new()
            .name("tokens".into())
            .spawn(move || watched.watch(watch, &woken))
            .map_err(|error| TokenError::Io("start a thread to watch", path.into(), error))?;
        Ok(auth)
    }

    /// Asks the thread to read the file now, even if it has not changed. Does not wait.
    pub fn reload(&self) {
        let _ = self.wake.try_send(()); // or somebody has asked for it already
    }

    /// Describes the problem if the file has been unreadable for a minute or longer.
    pub(super) fn problem(&self) -> Option<String> {
        let current = *self.current.lock().unwrap_or_else(PoisonError::into_inner);
        describe(current.elapsed())
    }

    /// The owner of the token in a request; `None` without a known token.
    pub(super) fn identify(&self, head: Head<'_>) -> Option<Identity> {
        let credential = credential(head)?;
        let tokens = self.tokens();
        let token = tokens.find(credential.as_bytes())?;
        Some(Identity {
            client: Client::Token(*token.hash()),
            read_only: token.read_only,
            rate_limit: token.rate_limit,
        })
    }

    /// The name of the token in a request; `None` without a known token.
    pub(super) fn name(&self, head: Head<'_>) -> Option<String> {
        let tokens = self.tokens();
        let token = tokens.find(credential(head)?.as_bytes())?;
        Some(token.name.clone())
    }

    /// The tokens that are let in now.
    pub(super) fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn watch(&self, mut watch: Watch, woken: &Receiver<()>) {
        loop {
            let asked = woken.recv_timeout(LOOK).is_ok();
            let now = Instant::now();
            match watch.look(now, asked) {
                Look::Unchanged => {}
                Look::Read(tokens) => {
                    let count = tokens.iter().count();
                    *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens.into();
                    let path = watch.path().display();
                    log::info!("{path} has been read again: {count} tokens let in");
                }
                Look::Failed(why) => {
                    if let Some(why) = why {
                        log::warn!("{why}");
                    }
                    continue;
                }
            }
            *self.current.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
    }
}

/// Describes a file that has been unreadable for that long. It leaves the path out, since health needs no token.
fn describe(unreadable: Duration) -> Option<String> {
    let seconds = unreadable.as_secs();
    (unreadable >= REMIND).then(|| {
        format!(
            "the file of tokens has not been readable for {seconds} s; changes to it do not count"
        )
    })
}

/// Returns the token in a request. It must be in one of the two headers, once: with two tokens, a proxy might check the other one.
fn credential(head: Head<'_>) -> Option<&str> {
    let bearer = head.headers("Authorization").map(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let key = head.headers("X-API-Key").map(|value| Some(value.trim()));
    let mut given = bearer.chain(key);
    let first = given.next()?;
    if given.next().is_some() { None } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiny_http::{Header, TestRequest};

    #[test]
    fn health_tells_of_an_unreadable_file_after_a_minute() {
        assert_eq!(describe(Duration::from_secs(59)), None);
        let said = describe(Duration::from_secs(61)).unwrap();
        assert!(said.contains("not been readable for 61 s"), "{said}");
    }

    #[test]
    fn a_credential_is_given_in_one_header_and_once() {
        for (headers, token) in [
            (&["Authorization: Bearer t"][..], Some("t")),
            (&["authorization: bEARER  t "], Some("t")),
            (&["X-API-Key: t"], Some("t")),
            (&["x-api-key: Bearer t"], Some("Bearer t")),
            (&[], None),
            (&["Authorization: t"], None),
            (&["Authorization: Basic t"], None),
            (&["Authorization: Bearer"], None),
            (
                &["Authorization: Bearer t", "Authorization: Bearer t"],
                None,
            ),
            (&["Authorization: Bearer t", "X-API-Key: t"], None),
            (&["Authorization: Basic u", "X-API-Key: t"], None),
            (&["X-API-Key: t", "X-API-Key: u"], None),
        ] {
            let request = headers.iter().fold(TestRequest::new(), |request, header| {
                request.with_header(header.parse::<Header>().unwrap())
            });
            let request = request.into();
            assert_eq!(credential(Head::of(&request)), token, "{headers:?}");
        }
    }
}
