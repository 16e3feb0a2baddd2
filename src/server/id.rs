//! What tells a request from all others: the `X-Request-Id` of its answer, and of its line in the log.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::request::Head;

/// The header.
const NAME: &str = "X-Request-Id";

/// The longest id that a client may give, in bytes.
const LONGEST: usize = 128;

/// The id of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId<'a>(Id<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id<'a> {
    /// The client has given it, and it is safe to repeat.
    Given(&'a str),
    /// A number of ours.
    Ours(u64),
}

impl<'a> RequestId<'a> {
    /// The id that the client has given, or a new one where it has given none, or one that is not safe to repeat.
    pub fn of(head: Head<'a>) -> RequestId<'a> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let given = head.header(NAME).filter(|id| is_safe(id));
        RequestId(match given {
            Some(id) => Id::Given(id),
            None => Id::Ours(LAST.fetch_add(1, Ordering::Relaxed) + 1),
        })
    }

    /// Writes the header line.
    pub(super) fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(NAME.as_bytes());
        out.extend_from_slice(b": ");
        match self.0 {
            Id::Given(id) => out.extend_from_slice(id.as_bytes()),
            Id::Ours(number) => {
                out.extend_from_slice(PREFIX.as_bytes());
                write_number(number, out);
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl fmt::Display for RequestId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Id::Given(id) => f.write_str(id),
            Id::Ours(number) => write!(f, "{}{number}", *PREFIX),
        }
    }
}

/// Another one in each life of the server, so that ids of two lives, or of two servers, are not the same.
static PREFIX: LazyLock<String> = LazyLock::new(|| {
    let random = RandomState::new().hash_one(0); // its keys are random
    format!("{:08x}-", random as u32)
});

/// What tracing systems use, and nothing that would mean something in a header, a log line or a URL.
fn is_safe(id: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/+=@~".contains(&byte);
    (1..=LONGEST).contains(&id.len()) && id.bytes().all(safe)
}

/// Appends a number in decimal, without the machinery of `write!`.
fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiny_http::{Header, TestRequest};

    fn line(given: Option<&str>) -> String {
        let mut request = TestRequest::new();
        if let Some(given) = given {
            request = request.with_header(Header::from_bytes(NAME, given).unwrap());
        }
        let request = request.into();
        let id = RequestId::of(Head::of(&request));
        let mut line = Vec::new();
        id.write_to(&mut line);
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line, format!("{NAME}: {id}\r\n"));
        line
    }

    #[test]
    fn a_safe_id_is_repeated_and_any_other_is_replaced() {
        let longest = "x".repeat(LONGEST);
        for safe in ["a", "A-z_0.9:/+=@~", "Root=1-67891233-abcdef", &longest] {
            assert_eq!(line(Some(safe)), format!("{NAME}: {safe}\r\n"));
        }
        let too_long = "x".repeat(LONGEST + 1);
        for unsafe_one in ["", "a b", "a\"b", "a;b", "a\\b", "<a>", &too_long] {
            let line = line(Some(unsafe_one));
            assert!(line.starts_with(&format!("{NAME}: {}", *PREFIX)), "{line}");
        }
    }

    #[test]
    fn ids_of_ours_are_short_and_never_the_same() {
        let [one, two] = [line(None), line(None)];
        assert_ne!(one, two);
        assert!(one.len() < NAME.len() + 4 + 30);
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            write_number(number, &mut out);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
