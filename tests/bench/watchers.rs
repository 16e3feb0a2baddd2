//! Many who watch, on one thread, which only counts what comes: so most of the machine is left to the server.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::api::Api;
use crate::interrupt;
use crate::running::Running;

/// Longer than a watch takes to begin, or a change to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the thread looks whether it is to end.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Asks to watch a key, and waits until the server says that it does.
pub fn watch(server: &Running, api: Api, key: &str) -> Result<TcpStream, String> {
    begin(server, &api.watch(key), api.watching()).map_err(|error| server.error(error))
}

fn begin(server: &Running, request: &[u8], sign: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let (mut answer, mut buffer) = (String::new(), [0; 4096]);
    while !answer.contains(sign) {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::Error::other(format!("no watch: {answer}")));
        }
        answer.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    Ok(stream)
}

/// Those who watch, each on a connection of its own.
pub struct Watchers {
    /// How many changes each of them has been told of.
    counts: Arc<[AtomicU32]>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Watchers {
    /// So many, of whom each watches the key that is given for it.
    pub fn start(
        server: &Running,
        api: Api,
        count: u32,
        key: impl Fn(u32) -> String,
    ) -> Result<Watchers, String> {
        let mut streams = Vec::new();
        for number in 0..count {
            interrupt::check()?;
            streams.push(watch(server, api, &key(number))?);
        }
        let poll = register(&streams).map_err(|error| server.error(error))?;
        let counts: Arc<[AtomicU32]> = (0..count).map(|_| AtomicU32::new(0)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (counted, stopped) = (Arc::clone(&counts), Arc::clone(&stop));
        let sign = api.counted();
        let thread = thread::spawn(move || read_all(&poll, streams, sign, &counted, &stopped));
        Ok(Watchers {
            counts,
            stop,
            thread: Some(thread),
        })
    }

    /// Waits until each has been told of so many changes; gives up when nothing has come for some seconds. Returns how many are
    /// missing, and fails if there are too many.
    pub fn missing(&self, changes: u32) -> Result<u64, String> {
        let (mut last, mut since) = (u64::MAX, Instant::now());
        loop {
            let counts = self.counts.iter().map(|it| it.load(Ordering::Relaxed));
            let counts: Vec<u32> = counts.collect();
            if let Some(more) = counts.iter().find(|count| **count > changes) {
                return Err(format!("{more} events of {changes} changes"));
            }
            let missing = counts.iter().map(|count| u64::from(changes - count)).sum();
            if missing == 0 || since.elapsed() > Duration::from_secs(5) {
                return Ok(missing);
            }
            if missing != last {
                (last, since) = (missing, Instant::now());
            }
            interrupt::check()?;
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends all, and says if one has been ended before.
    pub fn end(mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("ended twice")?;
        let ended = thread.join().map_err(|_| "a thread has panicked")?;
        ended.map_err(|error| format!("a watcher: {error}"))
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn register(streams: &[TcpStream]) -> io::Result<OwnedFd> {
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    for (number, stream) in (0..).zip(streams) {
        stream.set_nonblocking(true)?;
        epoll::add(&poll, stream, EventData::new_u64(number), EventFlags::IN)?;
    }
    Ok(poll)
}

/// Reads what comes, and counts the bytes of which each change has one.
fn read_all(
    poll: &OwnedFd,
    mut streams: Vec<TcpStream>,
    sign: u8,
    counts: &[AtomicU32],
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        events.clear();
        let room = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(poll, room, Some(&LOOK)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let number = event.data.u64() as usize;
            // One read each: what is left is told again.
            match streams[number].read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    let signs = buffer[..length].iter().filter(|byte| **byte == sign);
                    counts[number].fetch_add(signs.count() as u32, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
