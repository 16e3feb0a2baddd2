//! The thread of the streams.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, never, select};
use rustix::time::{ClockId, clock_gettime};

use super::stream::Stream;
use super::{Beginning, News, Next, Publisher, Streams, Text};
use crate::server::monitor::{Ending, Monitor};
use crate::server::pool::contain_panic;

/// After so long without a text, a stream gets what the publisher has for that.
const QUIET: Duration = Duration::from_secs(15);

/// A client that has taken nothing for so long, while something waited for it, is cut off.
const STALLED: Duration = Duration::from_secs(10);

/// Pause between two looks at all streams. Without streams, there are none.
const LOOK: Duration = Duration::from_millis(250);

/// After a turn, the thread leaves the processors to others for this many times as long as the turn has kept one busy, if others are served.
/// What happens meanwhile goes out together, in one system call for each client.
const LEFT_TO_OTHERS: u32 = 8;

/// A turn ends after so long, however many streams are behind: others may have news.
const TURN: Duration = Duration::from_millis(1);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What clients may skip: a comment (WHATWG HTML, 9.2.5).
const COMMENT: &[u8] = b":\n\n";

/// How long clients may take.
struct Patience {
    quiet: Duration,
    stalled: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            quiet: QUIET,
            stalled: STALLED,
        }
    }
}

/// What the thread has.
pub(super) struct Desk {
    publisher: Arc<dyn Publisher>,
    monitor: Arc<Monitor>,
    way: Streams,
    rung: Receiver<()>,
    news: Receiver<News>,
    streams: HashMap<u64, Stream>,
    /// Those that have taken everything, and are to be asked for more.
    next: VecDeque<u64>,
    /// Those that have ended in this turn.
    ended: Vec<(u64, Ending)>,
    looked: Instant,
    draining: bool,
    patience: Patience,
}

impl Desk {
    pub(super) fn new(
        publisher: Arc<dyn Publisher>,
        monitor: Arc<Monitor>,
        way: Streams,
        rung: Receiver<()>,
        news: Receiver<News>,
    ) -> Desk {
        Desk {
            publisher,
            monitor,
            way,
            rung,
            news,
            streams: HashMap::new(),
            next: VecDeque::new(),
            ended: Vec::new(),
            looked: Instant::now(),
            draining: false,
            patience: Patience::default(),
        }
    }

    pub(super) fn run(&mut self) {
        loop {
            let rung = self.wait();
            let (since, answered) = (busy(), self.monitor.answered());
            // What makes texts may panic.
            contain_panic(|| self.turn(rung));
            self.settle();
            if self.streams.is_empty() {
                continue;
            }
            if self.looked.elapsed() >= LOOK {
                self.looked = Instant::now();
                contain_panic(|| self.look());
                self.settle();
            }
            if self.monitor.answered() != answered || !self.rung.is_empty() {
                let pause = (busy() - since) * LEFT_TO_OTHERS;
                thread::sleep(pause.min(LONGEST_PAUSE));
            }
        }
    }

    /// Waits for something to do. Returns whether that is to publish.
    fn wait(&mut self) -> bool {
        if !self.next.is_empty() {
            return self.rung.try_recv().is_ok();
        }
        let look = match self.streams.is_empty() {
            true => never(),
            false => after(LOOK),
        };
        select! {
            recv(self.rung) -> rung => {
                if rung.is_err() {
                    self.rung = never(); // nobody is left to ring it
                }
                return rung.is_ok();
            }
            recv(self.news) -> news => news.into_iter().for_each(|it| self.hear(it)),
            recv(look) -> _ => {}
        }
        false
    }

    /// Does what there is to do, once round.
    fn turn(&mut self, rung: bool) {
        while let Ok(news) = self.news.try_recv() {
            self.hear(news);
        }
        if rung {
            self.publish();
        }
        // One text each, so that nobody starves.
        let since = Instant::now();
        for _ in 0..self.next.len() {
            if since.elapsed() >= TURN {
                return;
            }
            let Some(number) = self.next.pop_front() else {
                return;
            };
            let Some(stream) = self.streams.get_mut(&number) else {
                continue;
            };
            // Making a text may panic, which costs that stream.
            let next = catch_unwind(AssertUnwindSafe(|| self.publisher.next(number)));
            match next.unwrap_or(Next::End) {
                Next::Text(text) => match stream.give(&text) {
                    Ok(true) => self.next.push_back(number),
                    Ok(false) => {}
                    Err(_) => self.ended.push((number, Ending::Gone)),
                },
                Next::Later => self.next.push_back(number),
                Next::Wait => {}
                Next::End => self.ended.push((number, Ending::Behind)),
            }
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Begin(beginning) => self.begin(*beginning),
            News::HasRoom(number) => {
                let Some(stream) = self.streams.get_mut(&number) else {
                    return;
                };
                let had_none = stream.pending.is_empty();
                match stream.write() {
                    Ok(true) if !had_none => self.next.push_back(number),
                    Ok(_) => {}
                    Err(_) => self.ended.push((number, Ending::Gone)),
                }
            }
            News::HalfClosed(number) => {
                // If it has closed altogether, its kernel says so when something comes.
                let Some(stream) = self.streams.get_mut(&number) else {
                    return;
                };
                let is_first = !mem::replace(&mut stream.half_closed, true);
                if is_first && stream.give(&Text::from(COMMENT)).is_err() {
                    self.ended.push((number, Ending::Gone));
                }
            }
            News::Gone(number) => self.ended.push((number, Ending::Gone)),
            News::Drain => {
                self.draining = true;
                let all = self.streams.keys();
                self.ended.extend(all.map(|it| (*it, Ending::Drained)));
            }
        }
    }

    fn begin(&mut self, beginning: Beginning) {
        let Beginning {
            connection,
            mut outgoing,
            subscription,
        } = beginning;
        let (number, now) = (subscription.number(), Instant::now());
        let head = Text::from(outgoing.message.take_bytes());
        let sink = connection.stream(outgoing, number, &self.way);
        let mut stream = Stream::new(sink, subscription);
        match stream.give(&head) {
            Ok(true) => self.next.push_back(number),
            Ok(false) => {}
            Err(_) => self.ended.push((number, Ending::Gone)),
        }
        if self.draining {
            self.ended.push((number, Ending::Drained));
        }
        if self.streams.is_empty() {
            self.looked = now;
        }
        self.streams.insert(number, stream);
        self.monitor.set_streams(self.streams.len());
    }

    fn publish(&mut self) {
        let Desk {
            streams,
            ended,
            publisher,
            ..
        } = self;
        let more = publisher.publish(&mut |number, text| {
            let given = streams.get_mut(&number).map(|stream| stream.give(text));
            match given {
                Some(Ok(whole)) => whole,
                Some(Err(_)) => {
                    ended.push((number, Ending::Gone));
                    false
                }
                None => false,
            }
        });
        self.next.extend(more);
    }

    /// Looks at all streams: some are too slow, some have been quiet for long, some may not go on.
    fn look(&mut self) {
        let now = Instant::now();
        for (&number, stream) in &mut self.streams {
            if stream.stalled(now) >= self.patience.stalled {
                self.ended.push((number, Ending::Slow));
            } else if stream.pending.is_empty()
                && now - stream.sent >= self.patience.quiet
                && let Some(text) = self.publisher.quiet(number)
                && stream.give(&text).is_err()
            {
                self.ended.push((number, Ending::Gone));
            }
        }
        let unwanted = self.publisher.unwanted();
        let unwanted = unwanted.into_iter().map(|it| (it, Ending::Unwanted));
        self.ended.extend(unwanted);
    }

    /// Lets go of those that have ended.
    fn settle(&mut self) {
        for (number, ending) in self.ended.drain(..) {
            let Some(stream) = self.streams.remove(&number) else {
                continue;
            };
            self.monitor.count_ending(ending);
            let whole = stream.pending.is_empty();
            let written = match ending {
                Ending::Slow => Err(io::ErrorKind::TimedOut.into()),
                Ending::Gone => Err(io::ErrorKind::BrokenPipe.into()),
                Ending::Behind | Ending::Unwanted | Ending::Drained if whole => Ok(()),
                _ => Err(io::Error::other(
                    "the stream ends, and the client has not read it",
                )),
            };
            let Stream {
                sink, subscription, ..
            } = stream;
            contain_panic(|| sink.end(written));
            contain_panic(|| drop(subscription));
        }
        self.monitor.set_streams(self.streams.len());
    }
}

/// For how long this thread has kept a processor busy.
fn busy() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests;
