//! A well-behaved client, beside whatever else happens to the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::process::{Server, wait_for};

/// Connections that stay open, put and get all the time, and check what they get.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    rounds: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<Log>>,
}

/// What a bystander, or one of its connections, has seen.
#[derive(Default)]
pub struct Log {
    /// What each request took, in microseconds.
    times: Vec<u32>,
    /// What went wrong.
    pub failures: Vec<String>,
}

impl Bystander {
    /// One that does little, but all the time.
    pub fn start(server: &Server) -> Bystander {
        Bystander::with(server, 4, Duration::from_millis(2))
    }

    /// One with so many connections, each of which makes such a pause after each request.
    pub fn with(server: &Server, connections: usize, pause: Duration) -> Bystander {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), server.address);
        let rounds: Vec<Arc<AtomicU64>> = (0..connections).map(|_| Arc::default()).collect();
        let start = |(n, rounds): (usize, &Arc<AtomicU64>)| {
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(rounds));
            thread::spawn(move || check(address, n, pause, &rounds, &stop))
        };
        let threads = rounds.iter().enumerate().map(start).collect();
        let bystander = Bystander {
            stop,
            rounds,
            threads,
        };
        bystander.is_served();
        bystander
    }

    /// Waits until each of its connections has been served once more, from now on.
    pub fn is_served(&self) {
        let count = |rounds: &Arc<AtomicU64>| rounds.load(Ordering::Relaxed);
        let before: Vec<u64> = self.rounds.iter().map(count).collect();
        wait_for("the bystander to be served", || {
            let mut rounds = self.rounds.iter().map(count).zip(&before);
            // The first round to end may have begun earlier.
            rounds.all(|(now, before)| now >= before + 2).then_some(())
        });
    }

    /// Ends it; it must have been served throughout.
    #[track_caller]
    pub fn end(self) {
        self.is_served();
        let log = self.stop();
        assert_eq!(log.failures, [""; 0], "of {} requests", log.requests());
    }

    /// Ends it, however it was served.
    pub fn stop(self) -> Log {
        self.stop.store(true, Ordering::Relaxed);
        let mut whole = Log::default();
        for thread in self.threads {
            let log = thread.join().unwrap();
            whole.times.extend(log.times);
            whole.failures.extend(log.failures);
        }
        whole.times.sort_unstable();
        whole
    }
}

impl Log {
    pub fn requests(&self) -> usize {
        self.times.len()
    }

    /// What that part of all requests took at most.
    pub fn quantile(&self, part: f64) -> Duration {
        let at = (self.times.len() as f64 * part) as usize;
        let time = self.times.get(at).or(self.times.last());
        Duration::from_micros(time.copied().unwrap_or(0).into())
    }
}

/// One connection of a bystander, until told to stop. Comes back where it has failed.
fn check(
    address: SocketAddr,
    number: usize,
    pause: Duration,
    rounds: &AtomicU64,
    stop: &AtomicBool,
) -> Log {
    let mut log = Log::default();
    let mut client = None;
    let key = format!("bystander:{number}");
    while !stop.load(Ordering::Relaxed) {
        let round = rounds.load(Ordering::Relaxed);
        let value = format!("{round:016}").repeat(number + 1);
        let json = format!(r#"{{"value":"{value}"}}"#);
        for (method, path, body, expected) in [
            ("PUT", format!("/kv/{key}"), &*value, String::new()),
            ("GET", format!("/kv/{key}"), "", value.clone()),
            (
                "PUT",
                format!("/api/v1/kv/{key}"),
                &*json,
                r#"{"status":"ok"}"#.into(),
            ),
            (
                "GET",
                format!("/api/v1/kv/{key}"),
                "",
                format!(r#"{{"status":"ok","data":{json}}}"#),
            ),
        ] {
            let started = Instant::now();
            let outcome = ask(&mut client, address, method, &path, body, &expected);
            log.times.push(started.elapsed().as_micros() as u32);
            if let Err(failure) = outcome {
                log.failures
                    .push(format!("{method} {path} in round {round}: {failure}"));
                client = None;
            }
            if !pause.is_zero() {
                thread::sleep(pause);
            }
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    log
}

/// One request and its answer, on the connection that there is.
fn ask(
    client: &mut Option<Client>,
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    expected: &str,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{error:?}");
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::try_connect(address).map_err(failed)?),
    };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    client.try_write(request).map_err(failed)?;
    let answer = client.try_read(method).map_err(failed)?;
    if (answer.status, &*answer.body) == (200, expected.as_bytes()) {
        Ok(())
    } else {
        Err(format!(
            "{} {:.200?}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        ))
    }
}
