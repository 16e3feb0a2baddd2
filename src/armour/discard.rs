//! Getting rid of what nobody will read, without waiting for anybody, and without memory for it.

use std::io::{self, Read};
use std::mem;
use std::time::{Duration, Instant};

use tiny_http::Request;

use super::reading::{Reading, in_manner};
use super::socket::Held;
use crate::server::Head;

/// The most bytes of a refused body that are read and thrown away, so that a client that sends first and reads later gets to read the
/// answer. Also the most that tiny_http may throw away itself, for which it allocates as much in one piece.
const DISCARDED: u64 = 64 * 1024 * 1024;

/// The longest body that is skipped, in bytes. No longer one gets past [`super::follow`].
const SKIPPED: usize = 1_000_000_000_000;

/// A body is skipped in steps of so many bytes.
const STEP: usize = 1024 * 1024;

/// Gets rid of a request of a connection that has ended, and says nothing, unlike dropping the request.
pub(super) fn throw_away(mut request: Request) {
    // As tiny_http understood it, whatever we make of the head.
    let length = request.body_length().unwrap_or(0);
    if length > SKIPPED {
        return leak(request);
    }
    if length as u64 > DISCARDED {
        skip(&mut request, length);
    }
    if Head::of(&request).header("Transfer-Encoding").is_some() {
        // tiny_http would take what it has buffered of the chunks for the next request.
        let _ = in_manner(Reading::AtEnd, || {
            io::copy(request.as_reader(), &mut io::sink())
        });
    }
    in_manner(Reading::AtEnd, || drop(request.into_writer()));
}

/// Makes tiny_http believe that all of the body has been read: it counts down what is left, so it has nothing left to read, and to
/// allocate memory for, when it drops the request. [`super::follow`] sees to it that no length has more than twelve digits, so that this
/// takes a million steps at most.
fn skip(request: &mut Request, length: usize) {
    let mut nowhere = vec![0; STEP];
    in_manner(Reading::Pretended, || {
        let (body, mut left) = (request.as_reader(), length);
        // There may be less left than that. Where the request asks for an upgrade, there is no end at all.
        while left > 0 {
            match body.read(&mut nowhere[..left.min(STEP)]) {
                Ok(0) | Err(_) => break,
                Ok(bytes) => left -= bytes,
            }
        }
    });
}

/// The same for a request of a connection that does not come through our hooks: it keeps its thread and its descriptors, since
/// tiny_http would allocate the whole length at once, and the process would die of that.
pub(super) fn leak_if_huge(request: Request) -> Option<Request> {
    if request.body_length().unwrap_or(0) as u64 > DISCARDED {
        leak(request);
        return None;
    }
    Some(request)
}

fn leak(request: Request) {
    log::warn!("a request with a huge body keeps a thread until the server stops");
    mem::forget(request);
}

/// Reads what the client still sends, up to a limit, and throws it away.
pub(super) fn discard(mut connection: &Held, time: Duration) {
    let (deadline, mut buffer, mut discarded) = (Instant::now() + time, [0; 16 * 1024], 0);
    while discarded < DISCARDED {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !connection.is_readable(left) {
            return;
        }
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => discarded += bytes as u64,
        }
    }
}
