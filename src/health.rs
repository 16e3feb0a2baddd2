//! `threadkv health`: asks a server on this machine whether it is ready, for supervisors that run a command, such as a container's.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long asking may take altogether.
const TIMEOUT: Duration = Duration::from_secs(2);

/// More of an answer than this is not read: a line that says what is wrong.
const MAX_ANSWER: usize = 4096;

/// Asks the server that listens on that address. An error says in one line why it is not ready.
pub fn check(listening: SocketAddr) -> Result<(), String> {
    let address = reachable(listening);
    let error = |error: io::Error| {
        format!(
            "the server at {address} does not answer: {}",
            reason(&error)
        )
    };
    let answer = ask(address, Instant::now() + TIMEOUT).map_err(error)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200) => Ok(()),
        Some(status) => {
            let said = body.lines().next().unwrap_or_default();
            Err(format!(
                "the server at {address} is not ready: {status} {said}"
            ))
        }
        None => Err(format!("what listens at {address} speaks no HTTP")),
    }
}

/// A server that listens on all addresses is asked at the loopback one.
fn reachable(mut listening: SocketAddr) -> SocketAddr {
    match listening.ip() {
        ip if !ip.is_unspecified() => {}
        IpAddr::V4(_) => listening.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => listening.set_ip(Ipv6Addr::LOCALHOST.into()),
    }
    listening
}

/// What is answered, as far as it is text.
fn ask(address: SocketAddr, deadline: Instant) -> io::Result<String> {
    let mut server = TcpStream::connect_timeout(&address, left(deadline)?)?;
    server.set_write_timeout(Some(left(deadline)?))?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    server.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; MAX_ANSWER];
    while answer.len() < MAX_ANSWER {
        server.set_read_timeout(Some(left(deadline)?))?;
        match server.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("nothing came within {TIMEOUT:?}")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Asks a server that says this, some of it after each pause, and then is silent without closing.
    fn check_of(says: &'static [&'static str], pause: Duration) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut address = listener.local_addr().unwrap();
        address.set_ip(Ipv4Addr::UNSPECIFIED.into());
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = [0; 1000];
            let read = client.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            for text in says {
                let _ = client.write_all(text.as_bytes()); // the other side may have gone
                thread::sleep(pause);
            }
            request
        });
        let result = check(address);
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:"));
        result
    }

    #[test]
    fn only_200_is_ready() {
        let at_once = Duration::ZERO;
        let ok = check_of(&["HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "ok\n"], at_once);
        assert_eq!(ok, Ok(()));
        for (says, why) in [
            (
                &["HTTP/1.1 503 No\r\n", "\r\nloading\n"][..],
                "is not ready: 503 loading",
            ),
            (&["HTTP/1.0 404 Not Found\r\n\r\n"], "is not ready: 404"),
            (&["SSH-2.0-OpenSSH\r\n"], "speaks no HTTP"),
            (&["HTTP/1.1 2"], "speaks no HTTP"),
            (&[], "speaks no HTTP"),
        ] {
            let error = check_of(says, at_once).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn it_waits_two_seconds_altogether() {
        let started = Instant::now();
        let error = check_of(&["H"; 30], Duration::from_millis(100)).unwrap_err();
        assert!(error.contains("nothing came within 2s"), "{error}");
        assert!(started.elapsed() < TIMEOUT * 2);
    }
}
