//! Legal requests in which something has been changed: whatever it is, there is an answer.

use std::env;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;

use crate::legal::LEGAL;
use crate::process::{PATIENCE, Server};

/// How much chance there is to a case, in bytes.
const SIZE: u64 = 400;

/// A legal request with one to four changes.
fn mutated(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut bytes = u.choose(LEGAL)?.0.concat();
    for _ in 0..u.int_in_range(1..=4)? {
        let at = u.int_in_range(0..=bytes.len())?;
        let end = (at + u.int_in_range(0..=20)?).min(bytes.len());
        match u.int_in_range(0..=5)? {
            0 => bytes.insert(at, u.arbitrary()?),
            1 => drop(bytes.drain(at..end)),
            2 => bytes[at..end].fill(u.arbitrary()?),
            3 => bytes.truncate(at.max(1)),
            4 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let other = u.choose(LEGAL)?.0.concat();
                let from = u.int_in_range(0..=other.len())?;
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
    Ok(bytes)
}

/// Whether there is nothing to answer: only empty lines, or TLS.
fn is_nothing(mut request: &[u8]) -> bool {
    while let Some(rest) = request.strip_prefix(b"\r\n") {
        request = rest;
    }
    request.is_empty() || request.starts_with(&[0x16, 3])
}

/// Sends a request, and says that it is all. The answer must begin, and must not be a fault of the server's.
fn check(server: &Server, request: &[u8]) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let shown = (request.escape_ascii(), answer.escape_ascii());
    assert!(ended.is_ok(), "{ended:?}: {} {}", shown.0, shown.1);
    if answer.is_empty() {
        assert!(is_nothing(request), "no answer: {}", shown.0);
        return;
    }
    let status = answer.strip_prefix(b"HTTP/1.1 ").map(|rest| &rest[..3]);
    let fine = status.is_some_and(|status| status != b"500" && status[0].is_ascii_digit());
    assert!(fine, "{} {}", shown.0, shown.1);
}

/// So many cases. One that fails names its seed.
fn run(server: &Server, seed: u64, cases: u64) {
    for case in seed..seed + cases {
        arbtest(|u| {
            check(server, &mutated(u)?);
            Ok(())
        })
        .seed((case << 32) | SIZE);
    }
}

#[test]
fn a_legal_request_with_a_change_is_answered() {
    run(&Server::start(&[]), 1000, 3000);
}

/// For TESTS_FUZZ_SECONDS (600), from TESTS_FUZZ_SEED (the process's number) on.
#[test]
#[ignore = "takes ten minutes"]
#[expect(clippy::print_stderr, reason = "how many there were")]
fn a_legal_request_with_a_change_is_answered_for_long() {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let time = Duration::from_secs(number("TESTS_FUZZ_SECONDS").unwrap_or(600));
    let first = number("TESTS_FUZZ_SEED").unwrap_or(std::process::id().into());
    let (server, started, mut seed) = (Server::start(&[]), Instant::now(), first);
    while started.elapsed() < time {
        run(&server, seed, 1000);
        seed += 1000;
    }
    eprintln!("{} requests from seed {first} on", seed - first);
}
