//! A threadkv process under test.

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::mem;
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};

use crate::client::{Client, Response};
use crate::directory::Directory;

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

    /// Starts the real binary in a directory on whose disk it can be made to fail, see [`Server::fail_disk`].
    pub fn start_in(directory: &Directory) -> Server {
        Server::start_in_with(directory, &[])
    }

    /// The same with more options.
    pub fn start_in_with(directory: &Directory, options: &[&str]) -> Server {
        let mut command = Command::new("sh");
        // Writing beyond a limit kills by default. Ignored, it is an error like that of a full disk.
        command
            .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#])
            .args([env!("CARGO_BIN_EXE_threadkv"), "--port", "0"])
            .args(["--working-dir", directory.path_str()])
            .args(options);
        Server::spawn(command)
    }

    /// From now on nothing can be written to any file.
    pub fn fail_disk(&self) {
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let pid = Pid::from_raw(self.pid() as i32);
        rustix::process::prlimit(pid, Resource::Fsize, none).unwrap();
    }

    /// Starts a command that becomes a server and waits until it listens.
    pub fn spawn(command: Command) -> Server {
        Server::try_spawn(command).unwrap_or_else(|(status, lines)| panic!("{status}: {lines:#?}"))
    }

    /// Starts a command that may become a server; if it ends instead, its status and what it said on stderr.
    pub fn try_spawn(mut command: Command) -> Result<Server, (ExitStatus, Vec<String>)> {
        forget_own_settings(&mut command);
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
        let address = SocketAddr::from(([0; 4], 0));
        let mut server = Server {
            child,
            address,
            log,
            seen: Vec::new(),
        };
        let Some(line) = server.next_log("listening on ") else {
            let (status, _) = server.wait();
            return Err((status, mem::take(&mut server.seen)));
        };
        let address = line
            .split("listening on ")
            .nth(1)
            .unwrap()
            .split(": ")
            .next()
            .unwrap();
        server.address = address.parse().unwrap();
        Ok(server)
    }

    /// Starts a command that becomes a server whose log nobody reads, since `stderr` is something else, and waits until it listens.
    pub fn spawn_unheard(mut command: Command, stderr: Stdio) -> Server {
        forget_own_settings(&mut command);
        let child = command.stdin(Stdio::null()).stderr(stderr).spawn().unwrap();
        let (_, log) = unbounded();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server {
            child,
            address,
            log,
            seen: Vec::new(),
        };
        let port = wait_for("it to listen", || {
            assert!(!server.has_ended());
            listening_port(server.pid())
        });
        server.address.set_port(port);
        server
    }

    /// What the process says on stderr, where that was asked for with [`Server::spawn_unheard`].
    pub fn take_stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::try_connect(self.address).unwrap_or_else(|error| {
            // Most likely it has ended, and its last words say why.
            let log: Vec<String> = self.log.try_iter().collect();
            panic!("{error}: {}, which has logged {log:#?}", self.address)
        })
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

    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.send("POST", path, body)
    }

    pub fn delete(&self, path: &str) -> Response {
        self.send("DELETE", path, "")
    }

    /// Waits for a log line that contains `text`, and returns it.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        match self.next_log(text) {
            Some(line) => line,
            None => panic!("no log line with {text:?}; there were {:#?}", self.seen),
        }
    }

    /// The next log line that contains `text`; `None` when the log ends before.
    fn next_log(&mut self, text: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.recv_deadline(deadline) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return Some(line);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} in {:#?}", self.seen),
            }
        }
    }

    /// Whether a log line that has been waited for or passed over contains `text`.
    pub fn has_seen(&self, text: &str) -> bool {
        self.seen.iter().any(|line| line.contains(text))
    }

    /// Whether there has been a log line so far that contains `text`.
    pub fn has_logged(&mut self, text: &str) -> bool {
        self.seen.extend(self.log.try_iter());
        self.has_seen(text)
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// A log line that has been waited for or passed over already.
    pub fn seen(&self, text: &str) -> &str {
        self.seen.iter().find(|line| line.contains(text)).unwrap()
    }

    /// Ends the process as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
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

/// Keeps the variables of whoever runs the tests, such as `THREADKV_PORT`, from a server. What the command sets itself stays.
pub fn forget_own_settings(command: &mut Command) {
    let kept: Vec<OsString> = command.get_envs().map(|(name, _)| name.into()).collect();
    let ours = env::vars_os().map(|(name, _)| name);
    let ours = ours.filter(|name| name.as_encoded_bytes().starts_with(b"THREADKV_"));
    for name in ours.filter(|name| !kept.contains(name)) {
        command.env_remove(name);
    }
}

/// The port on which a process listens for IPv4, once it does.
fn listening_port(pid: u32) -> Option<u16> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = descriptors.filter_map(|it| fs::read_link(it.ok()?.path()).ok());
    let links: Vec<String> = links.map(|it| it.to_string_lossy().into_owned()).collect();
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        // The address, the state (0A: listening), and the number of the socket.
        let (address, state, number) = (fields[1], fields[3], fields[9]);
        let ours = state == "0A" && links.contains(&format!("socket:[{number}]"));
        let port = address.split_once(':')?.1;
        ours.then(|| u16::from_str_radix(port, 16).ok())?
    })
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

/// Whether this test may do what only root may; says so if not.
#[expect(
    clippy::print_stderr,
    reason = "whoever asks for a test's output should see it"
)]
pub fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: {what} takes root");
    }
    root
}

/// Lets this process have as many descriptors as it may, and says how many.
pub fn raise_own_limit() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .unwrap();
    maximum.unwrap_or(u64::MAX)
}
