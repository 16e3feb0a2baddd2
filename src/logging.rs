//! Log lines to stderr.
//!
//! Whoever logs puts a line on a bounded queue, and one thread writes the lines to stderr. So a terminal that is stopped, a pipe that
//! nobody reads or a full disk holds up that thread only, never a request or the end of the server. When the queue is full, lines are
//! dropped and counted. Once stderr takes lines again, one of them says how many were lost.
//!
//! simplelog makes lines of text. [`json`] makes those of `--log-format json`. Both put them on the same queue.

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter};
use rustix::event::{PollFd, PollFlags, poll};
use simplelog::{ConfigBuilder, WriteLogger};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

mod json;
mod level;

pub use level::{Follower, LevelSource};

use json::JsonLogger;

/// At most so many lines wait for the thread: enough for a burst of errors.
const MAX_LINES: usize = 4096;

/// At most so many bytes of lines wait for the thread. A line holds the path of a request, which may be long.
const MAX_BYTES: usize = 1 << 20;

/// Pause between two lines that say how many were lost, while the queue does not get empty.
const REPORT: Duration = Duration::from_secs(1);

/// What tiny_http reports as an error is part of ours' normal operation, and reported by us.
const OTHERS: &str = "tiny_http";

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A text, for people.
    Text,
    /// A JSON object, for programs.
    Json,
}

/// The queue, once [`init`] has run.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Lines on their way to the thread.
struct Queue {
    items: Sender<Item>,
    format: Format,
    /// Bytes of the lines that wait.
    bytes: AtomicUsize,
    /// Lines that were dropped, and that no line has told of yet.
    lost: AtomicU64,
}

enum Item {
    /// One line, or several that belong together, with the line feed.
    Line(Vec<u8>),
    /// Tells the sender that all lines before it have been written.
    Flush(Sender<()>),
}

/// Starts to write log lines, with the time in UTC. [`log::set_max_level`] says which: until then, those of level `info` and above.
pub fn init(format: Format) -> io::Result<()> {
    let (items, lines) = bounded(MAX_LINES);
    let queue = QUEUE.get_or_init(|| Queue {
        items,
        format,
        bytes: AtomicUsize::new(0),
        lost: AtomicU64::new(0),
    });
    thread::Builder::new()
        .name("log".into())
        .spawn(move || queue.write(&lines))?;
    let logger: Box<dyn log::Log> = match format {
        Format::Text => text_logger(queue),
        Format::Json => Box::new(JsonLogger(queue)),
    };
    log::set_boxed_logger(logger).map_err(io::Error::other)?;
    log::set_max_level(LevelFilter::Info);
    Ok(())
}

fn text_logger(queue: &'static Queue) -> Box<WriteLogger<Lines>> {
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .add_filter_ignore_str(OTHERS)
        .build();
    let lines = Lines {
        queue,
        unfinished: Vec::new(),
    };
    // All levels, since the one that counts can be changed.
    WriteLogger::new(LevelFilter::Trace, config, lines)
}

/// Waits until all lines so far are on stderr, but not longer than that.
pub fn flush(wait: Duration) {
    if let Some(queue) = QUEUE.get() {
        queue.flush(Instant::now() + wait);
    }
}

/// Puts on stderr why the program ends, behind all other lines, and waits until it is there, but not longer than that.
pub fn last_words(why: &str, wait: Duration) {
    let text = format!("threadkv: {why}\n").into_bytes();
    let Some(queue) = QUEUE.get() else {
        // Nothing is being served, so nothing can be held up.
        let _ = io::stderr().write_all(&text);
        return;
    };
    let line = match queue.format {
        Format::Text => text,
        Format::Json => json::line(Level::Error, why, &None::<(&str, &str)>),
    };
    let deadline = Instant::now() + wait;
    queue.bytes.fetch_add(line.len(), Ordering::Relaxed);
    if queue
        .items
        .send_deadline(Item::Line(line), deadline)
        .is_ok()
    {
        queue.flush(deadline);
    }
}

impl Queue {
    /// Puts lines on the queue, or drops them if there are too many.
    fn push(&self, line: Vec<u8>) {
        let length = line.len();
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        if before + length > MAX_BYTES || self.items.try_send(Item::Line(line)).is_err() {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, deadline: Instant) {
        let (done, written) = bounded(1);
        if self
            .items
            .send_deadline(Item::Flush(done), deadline)
            .is_ok()
        {
            let _ = written.recv_deadline(deadline);
        }
    }

    /// Writes lines as they come. Runs on the thread.
    fn write(&self, items: &Receiver<Item>) {
        let mut stderr = Stderr { in_line: false };
        let mut reported: Option<Instant> = None;
        for item in items {
            match item {
                Item::Line(line) => {
                    if !stderr.write(&line) {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                }
                Item::Flush(done) => _ = done.send(()),
            }
            let due = reported.is_none_or(|at| at.elapsed() >= REPORT);
            let lost = self.lost.load(Ordering::Relaxed);
            if lost > 0 && (due || items.is_empty()) && stderr.write(&self.report(lost)) {
                self.lost.fetch_sub(lost, Ordering::Relaxed);
                reported = Some(Instant::now());
            }
        }
    }

    /// A line of the log about those that were lost.
    fn report(&self, lost: u64) -> Vec<u8> {
        let text = format!("{lost} log lines were lost: stderr did not take them in time");
        match self.format {
            Format::Text => format!("{} [WARN] {text}\n", now()).into_bytes(),
            Format::Json => json::line(Level::Warn, &text, &("lost", lost)),
        }
    }
}

/// The time, as lines of the log have it.
fn now() -> String {
    let now = OffsetDateTime::now_utc().format(&Rfc3339);
    now.unwrap_or_default() // fails beyond the year 9999
}

/// Where simplelog writes to. It writes a line in pieces.
struct Lines {
    queue: &'static Queue,
    /// The pieces so far.
    unfinished: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.unfinished.extend_from_slice(piece);
        if piece.ends_with(b"\n") {
            self.queue.push(mem::take(&mut self.unfinished));
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The standard error of the process.
struct Stderr {
    /// Whether a write has failed in the middle of a line.
    in_line: bool,
}

impl Stderr {
    /// Writes a line. Waits as long as it takes. Returns whether the whole line was written.
    fn write(&mut self, line: &[u8]) -> bool {
        if self.in_line && write_all(b"\n") > 0 {
            return false;
        }
        let left = write_all(line);
        self.in_line = left > 0 && left < line.len();
        left == 0
    }
}

/// Writes bytes to stderr until it fails. Returns how many are left.
fn write_all(mut bytes: &[u8]) -> usize {
    while !bytes.is_empty() {
        let Some(written) = write_some(bytes) else {
            break;
        };
        bytes = &bytes[written..];
    }
    bytes.len()
}

/// Writes what stderr takes, and waits until it takes something. `None` if it fails.
fn write_some(bytes: &[u8]) -> Option<usize> {
    loop {
        match io::stderr().write(bytes) {
            Ok(0) => return None,
            Ok(written) => return Some(written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Whoever has started the server may share a pipe with it that does not block.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let stderr = io::stderr();
                let _ = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None);
            }
            Err(_) => return None,
        }
    }
}
