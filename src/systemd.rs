//! What systemd and the server tell each other: that it loads, serves, is alive and stops, and which socket it listens on.
//!
//! All of it happens only where the environment asks for it, as systemd sets it for `Type=notify`, `WatchdogSec=` and socket units. A
//! message is one datagram, so this needs no crate; nor does the descriptor of a socket: the crates that take it over bring futures.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketType};

use crate::server::Pool;

/// The first descriptor that systemd passes (`sd_listen_fds`).
const FIRST_PASSED: i32 = 3;

/// Pause between two messages that loading has got on.
const EXTEND: Duration = Duration::from_secs(5);

/// Loading may take so long again, each time that it has got on. Reading a long log takes a while in which nothing can be seen.
const LOADING: Duration = Duration::from_secs(120);

/// How long systemd may take to accept a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// The listening socket that systemd has passed, if it has. To be called once.
pub fn listener() -> Result<Option<TcpListener>, String> {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(process::id()) {
        return Ok(None); // these variables are of somebody else
    }
    match number("LISTEN_FDS") {
        None | Some(0) => return Ok(None),
        Some(1) => {}
        Some(sockets) => {
            return Err(format!(
                "LISTEN_FDS {sockets}: expected one socket; give the unit one ListenStream= only"
            ));
        }
    }
    let wrong = |error: &dyn std::fmt::Display| {
        format!(
            "the socket that LISTEN_FDS passes cannot be used: {error}; expected ListenStream= with an address and a port"
        )
    };
    // SAFETY: systemd has opened it for this process, and nobody else here knows of it.
    #[expect(unsafe_code, reason = "a descriptor has no owner before")]
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST_PASSED) };
    fcntl_setfd(&socket, FdFlags::CLOEXEC).map_err(|error| wrong(&error))?;
    let family = sockopt::socket_domain(&socket).map_err(|error| wrong(&error))?;
    let kind = sockopt::socket_type(&socket).map_err(|error| wrong(&error))?;
    let is_tcp = [AddressFamily::INET, AddressFamily::INET6].contains(&family);
    if !is_tcp || kind != SocketType::STREAM {
        return Err(wrong(&"it is no TCP socket"));
    }
    let socket = TcpListener::from(socket);
    match sockopt::socket_acceptconn(&socket) {
        Ok(true) => Ok(Some(socket)),
        Ok(false) => Err(wrong(&"it does not listen (Accept=yes cannot be served)")),
        Err(error) => Err(wrong(&error)),
    }
}

/// The way to systemd, or to nobody where nobody has asked.
#[derive(Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear that the server is alive.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Whoever the environment names.
    pub fn from_environment() -> Supervisor {
        let Some(name) = env::var("NOTIFY_SOCKET").ok().filter(|it| !it.is_empty()) else {
            return Supervisor::default();
        };
        match connect(&name) {
            Ok(socket) => Supervisor {
                socket: Some(socket),
                watchdog: watchdog(|name| env::var(name).ok()),
            },
            Err(error) => {
                log::warn!("NOTIFY_SOCKET {name:?}: {error}; systemd is told nothing");
                Supervisor::default()
            }
        }
    }

    /// The server serves.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// The server drains.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// Asks for more time again and again while the store is loaded, as long as `steps` grows: a disk that hangs is to be noticed. Ends when
    /// what is returned is dropped.
    pub fn while_loading(
        self: &Arc<Self>,
        steps: impl Fn() -> u64 + Send + 'static,
    ) -> io::Result<Loading> {
        self.extend_while(steps, EXTEND)
    }

    fn extend_while(
        self: &Arc<Self>,
        steps: impl Fn() -> u64 + Send + 'static,
        pause: Duration,
    ) -> io::Result<Loading> {
        let ended = Arc::new(AtomicBool::new(false));
        if self.socket.is_some() {
            let seen = steps();
            self.extend();
            let (supervisor, ended) = (Arc::clone(self), Arc::clone(&ended));
            thread::Builder::new()
                .name("loading".into())
                .spawn(move || supervisor.look(seen, steps, pause, &ended))?;
        }
        Ok(Loading(ended))
    }

    fn look(&self, mut seen: u64, steps: impl Fn() -> u64, pause: Duration, ended: &AtomicBool) {
        let mut told = Instant::now();
        while !ended.load(Ordering::Acquire) {
            let now = steps();
            if now != seen && told.elapsed() >= pause {
                (seen, told) = (now, Instant::now());
                self.extend();
            }
            thread::sleep(pause / 5);
        }
    }

    fn extend(&self) {
        let time = LOADING.as_micros();
        self.tell(&format!("EXTEND_TIMEOUT_USEC={time}\nSTATUS=loading"));
    }

    /// Tells it that the server is alive, twice in the time that it wants to hear of it, where it does: each time a worker has answered.
    pub fn watch(self: &Arc<Self>, pool: Pool) -> io::Result<()> {
        let Some(interval) = self.watchdog else {
            return Ok(());
        };
        let supervisor = Arc::clone(self);
        let watch = move || {
            loop {
                let started = Instant::now();
                let (answer, answered) = bounded(1);
                pool.resume(move || _ = answer.send(()));
                if answered.recv_timeout(interval).is_err() {
                    log::error!("no worker has been free for {interval:?}");
                    if answered.recv().is_err() {
                        return; // the workers have ended
                    }
                }
                supervisor.tell("WATCHDOG=1");
                thread::sleep((interval / 2).saturating_sub(started.elapsed()));
            }
        };
        let thread = thread::Builder::new().name("watchdog".into());
        thread.spawn(watch).map(|_| ())
    }

    fn tell(&self, what: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(what.as_bytes())
        {
            log::warn!("cannot tell systemd {what:?}: {error}");
        }
    }
}

/// Loading goes on until this is dropped.
pub struct Loading(Arc<AtomicBool>);

impl Drop for Loading {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn connect(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None if name.starts_with('/') => SocketAddr::from_pathname(name)?,
        None => return Err(io::Error::other("expected a path, or @ and a name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// How often systemd wants to hear from this process, if at all.
fn watchdog(variable: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let meant = match variable("WATCHDOG_PID") {
        Some(pid) => pid == process::id().to_string(),
        None => true,
    };
    let time = variable("WATCHDOG_USEC")?.parse().ok();
    time.filter(|time| meant && *time > 0)
        .map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// A supervisor, and what it is told.
    fn pair() -> (Arc<Supervisor>, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs
            .set_read_timeout(Some(Duration::from_millis(400)))
            .unwrap();
        let supervisor = Supervisor {
            socket: Some(ours),
            watchdog: Some(Duration::from_millis(100)),
        };
        (Arc::new(supervisor), theirs)
    }

    fn next(socket: &UnixDatagram) -> Option<String> {
        let mut told = [0; 500];
        let length = socket.recv(&mut told).ok()?;
        Some(String::from_utf8_lossy(&told[..length]).into_owned())
    }

    #[test]
    fn without_a_worker_that_answers_it_is_not_alive() {
        let (supervisor, systemd) = pair();
        let (pool, tasks) = Pool::new();
        supervisor.watch(pool).unwrap();
        assert_eq!(next(&systemd), None);
        drop(tasks);
        assert_eq!(next(&systemd), None);
    }

    #[test]
    fn time_is_asked_for_as_long_as_loading_gets_on() {
        let (supervisor, systemd) = pair();
        let pause = Duration::from_millis(100);
        systemd.set_read_timeout(None).unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        let loading = supervisor.extend_while(move || counted.load(Ordering::Relaxed), pause);
        let more = "EXTEND_TIMEOUT_USEC=120000000\nSTATUS=loading";
        assert_eq!(next(&systemd).as_deref(), Some(more));
        steps.store(1, Ordering::Relaxed);
        assert_eq!(next(&systemd).as_deref(), Some(more));
        // Now it hangs.
        systemd.set_read_timeout(Some(pause * 4)).unwrap();
        assert_eq!(next(&systemd), None);
        drop(loading);
    }

    #[test]
    fn only_who_is_asked_says_that_it_is_alive() {
        let ours = process::id().to_string();
        for (pid, time, expected) in [
            (Some(ours.as_str()), Some("2000000"), Some(2)),
            (None, Some("2000000"), Some(2)),
            (Some("1"), Some("2000000"), None),
            (None, None, None),
            (None, Some("0"), None),
            (None, Some("soon"), None),
        ] {
            let variable = |name: &str| match name {
                "WATCHDOG_PID" => pid.map(str::to_owned),
                _ => time.map(str::to_owned),
            };
            assert_eq!(watchdog(variable), expected.map(Duration::from_secs));
        }
    }
}
