//! A threadkv process under test.

use crossbeam_channel::{Receiver, unbounded};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, Response};

/// Long enough for anything that happens at all, on the slowest day.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running server on a free port of its own. Killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    log: Receiver<String>,
    seen: Vec<String>,
}

impl Server {
    /// Starts the real binary and waits until it listens.
    pub fn start(options: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
        command.args(["--port", "0"]).args(options);
        Server::spawn(command)
    }

    /// Starts a command that becomes a server and waits until it listens.
    pub fn spawn(mut command: Command) -> Server {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = unbounded();
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let mut server = Server {
            child,
            address: SocketAddr::from(([0; 4], 0)),
            log,
            seen: Vec::new(),
        };
        let line = server.wait_for_log("listening on ");
        let address = line
            .split("listening on ")
            .nth(1)
            .unwrap()
            .split(": ")
            .next()
            .unwrap();
        server.address = address.parse().unwrap();
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own.
    pub fn send(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.connect().send(method, path, body)
    }

    pub fn get(&self, path: &str) -> Response {
        self.send("GET", path, "")
    }

    pub fn put(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.send("PUT", path, body)
    }

    pub fn delete(&self, path: &str) -> Response {
        self.send("DELETE", path, "")
    }

    /// Waits for a log line that contains `text`, and returns it.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("no log line with {text:?}; there were {:#?}", self.seen),
            }
        }
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits until the process has ended; returns its status, and what it logged since the last look.
    pub fn wait(&mut self) -> (ExitStatus, Vec<String>) {
        let status = wait_for("the process to end", || self.child.try_wait().unwrap());
        (status, self.log.iter().collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until there is an answer. For what gives no sign of its own when it happens.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
