//! Who may do what: which tokens let in, and what each of them may do (contract, "Access").

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::rate::Rate;
use crate::server::Head;
use crate::tokens::{TokenError, Tokens};

use super::limiter::{Client, TooMany};
use super::watch::{LOOK, Look, REMIND, Watch};

/// The tokens that let clients in, as the file has them.
pub struct Auth {
    /// Held to clone or to replace the pointer.
    tokens: RwLock<Arc<Tokens>>,
    /// When these were last known to be the tokens in the file. Held to read or write the time.
    current: Mutex<Instant>,
    /// Has the file read at once.
    wake: Sender<()>,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: anybody may, as often as they like.
    Unlimited,
    /// Nothing: anybody may.
    Open,
    /// Any token.
    Read,
    /// A token that may write.
    Write,
}

/// Who has a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) client: Client,
    pub(super) read_only: bool,
    /// A limit of its own.
    pub(super) rate_limit: Option<Rate>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is no token in it, or not one that is known, or more than one.
    Unauthorized,
    /// The token may only read.
    ReadOnly,
    /// A web page sends it that is not let in.
    Forged,
    /// It is sent to a host that nobody has allowed.
    UnknownHost,
    /// It comes sooner after others than the limit allows.
    TooMany(TooMany),
}

impl Auth {
    /// Reads the tokens, and goes on reading them whenever the file changes. Of one that cannot be read then, the tokens stay as they
    /// were, and the log says so.
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

    /// Has the file read again at once, also where it has not changed. Does not wait for it.
    pub fn reload(&self) {
        let _ = self.wake.try_send(()); // or somebody has asked for it already
    }

    /// What is wrong with the file, if it has not been readable for a minute.
    pub(super) fn problem(&self) -> Option<String> {
        let current = *self.current.lock().unwrap_or_else(PoisonError::into_inner);
        describe(current.elapsed())
    }

    /// Who sends a request, if it has a token that is known.
    pub(super) fn identify(&self, head: Head<'_>) -> Option<Identity> {
        let credential = credential(head)?;
        let tokens = Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner));
        let token = tokens.find(credential.as_bytes())?;
        Some(Identity {
            client: Client::Token(*token.hash()),
            read_only: token.read_only,
            rate_limit: token.rate_limit,
        })
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

/// What health says of a file that has not been readable for so long. The path is left out, since health needs no token.
fn describe(unreadable: Duration) -> Option<String> {
    let seconds = unreadable.as_secs();
    (unreadable >= REMIND).then(|| {
        format!(
            "the file of tokens has not been readable for {seconds} s; changes to it do not count"
        )
    })
}

/// The token in a request: in one of the two headers, and in one of them only, so that no proxy takes another one for it.
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
