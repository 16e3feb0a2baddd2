//! Streams: answers without an end, which grow as things happen.
//!
//! One thread has all of them, so that thousands may listen and no thread waits for each. A [`Publisher`] says what goes out, and knows
//! what the streams are about; a [`Sink`] takes it to a client, and never waits. Between the two, at most a text or two wait for a client.
//! Whoever takes nothing of them for ten seconds is cut off.
//!
//! The thread sleeps until somebody rings the [`Bell`], or a sink says that there is room again or that its client is gone.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select, unbounded};

use super::door::{Connection, Outgoing};
use super::monitor::{Ending, Monitor};
use super::pool::contain_panic;

/// A piece of a stream. Many streams may get the same one.
pub type Text = Arc<[u8]>;

/// After so long without a text, a stream gets what the publisher has for that.
const QUIET: Duration = Duration::from_secs(15);

/// A client that has taken nothing for so long, while something waited for it, is cut off.
const STALLED: Duration = Duration::from_secs(10);

/// Pause between two looks at all streams. Without streams, there are none.
const LOOK: Duration = Duration::from_millis(250);

/// After a turn, the thread leaves the processors to others for this many times as long as the turn took, if others are served. What
/// happens meanwhile goes out together.
const LEFT_TO_OTHERS: u32 = 4;

/// A turn ends after so long, however many streams are behind: others may have news.
const TURN: Duration = Duration::from_millis(1);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// What clients may skip: a comment (WHATWG HTML, 9.2.5).
const COMMENT: &[u8] = b":\n\n";

/// A place among the streams, given by the publisher. It is dropped when the stream has ended, however that came.
pub trait Subscription: Send {
    /// By which the publisher knows it.
    fn number(&self) -> u64;
}

/// Says what goes out on the streams. Called on one thread, and must not wait.
pub trait Publisher: Send + Sync + 'static {
    /// Something may have happened. Calls `give` with a text for each stream that waits for news and gets some. `give` returns
    /// whether all of it has been taken at once. If not, [`Publisher::next`] is called when it has been.
    fn publish(&self, give: &mut dyn FnMut(u64, &Text) -> bool);

    /// What comes next on a stream that has taken all it was given. Also called when a stream begins.
    fn next(&self, number: u64) -> Next;

    /// What to send on a stream to which nothing has been sent for 15 seconds.
    fn quiet(&self, number: u64) -> Option<Text>;

    /// The streams that have to end, because somebody may not listen any more. Called several times a second, while there are streams.
    fn unwanted(&self) -> Vec<u64>;
}

/// What comes next on a stream.
pub enum Next {
    /// This.
    Text(Text),
    /// Nothing yet: ask again.
    Later,
    /// Nothing, until the publisher gives it something.
    Wait,
    /// The end: the publisher cannot go on.
    End,
}

/// Wakes the thread of the streams.
#[derive(Clone)]
pub struct Bell(Sender<()>);

impl Bell {
    /// A bell, and the other end of it.
    pub fn new() -> (Bell, Receiver<()>) {
        let (ring, rung) = bounded(1);
        (Bell(ring), rung)
    }

    /// Something may have happened. Does not wait.
    pub fn ring(&self) {
        let _ = self.0.try_send(()); // or it has been rung already
    }
}

/// Takes texts to a client.
pub trait Sink: Send {
    /// Takes as many bytes as there is room for. If there is none, the error is of the kind `WouldBlock`, and
    /// [`Streams::has_room`] is called when there is again.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// How many bytes the client's side has taken, as far as that can be told.
    fn taken(&self) -> Option<u64>;

    /// Ends the answer: in order, or since the client has not taken all of it.
    fn end(self: Box<Self>, written: io::Result<()>);
}

/// The way to the thread.
#[derive(Clone)]
pub struct Streams(Sender<News>);

enum News {
    Begin(Box<Beginning>),
    HasRoom(u64),
    /// The client sends no more. It may have closed the connection, or still be listening.
    HalfClosed(u64),
    Gone(u64),
    Drain,
}

/// A stream that is to begin.
struct Beginning {
    connection: Arc<dyn Connection>,
    /// The head of the answer.
    outgoing: Outgoing,
    subscription: Box<dyn Subscription>,
}

impl Streams {
    /// Starts the thread.
    pub(super) fn start(
        rung: Receiver<()>,
        publisher: Arc<dyn Publisher>,
        monitor: Arc<Monitor>,
    ) -> io::Result<Streams> {
        let (news, arrivals) = unbounded();
        let streams = Streams(news);
        let mut desk = Desk {
            publisher,
            monitor,
            way: streams.clone(),
            rung,
            news: arrivals,
            streams: HashMap::new(),
            next: VecDeque::new(),
            ended: Vec::new(),
            looked: Instant::now(),
            draining: false,
            patience: Patience::default(),
        };
        thread::Builder::new()
            .name("streams".into())
            .spawn(move || desk.run())?;
        Ok(streams)
    }

    /// Begins a stream behind the head of an answer.
    pub(super) fn begin(
        &self,
        connection: Arc<dyn Connection>,
        outgoing: Outgoing,
        subscription: Box<dyn Subscription>,
    ) {
        self.tell(News::Begin(Box::new(Beginning {
            connection,
            outgoing,
            subscription,
        })));
    }

    /// A sink that had no room has some.
    pub fn has_room(&self, number: u64) {
        self.tell(News::HasRoom(number));
    }

    /// The client of a sink sends no more; it may be gone, or listen still.
    pub fn half_closed(&self, number: u64) {
        self.tell(News::HalfClosed(number));
    }

    /// The client of a sink is gone.
    pub fn gone(&self, number: u64) {
        self.tell(News::Gone(number));
    }

    /// Ends all streams, those that are still to come too.
    pub(super) fn drain(&self) {
        self.tell(News::Drain);
    }

    fn tell(&self, news: News) {
        let _ = self.0.send(news); // the thread stays until the process ends
    }
}

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
struct Desk {
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

struct Stream {
    sink: Box<dyn Sink>,
    subscription: Box<dyn Subscription>,
    /// What it has not taken yet; of the first text, from that byte on.
    pending: VecDeque<Text>,
    written: usize,
    /// When it last got a text.
    sent: Instant,
    /// How many bytes the client had taken, and since when it is that many.
    taken: (u64, Instant),
    /// How many it will have taken when it has everything that the sink got.
    total: u64,
    /// Whether the client has said that it sends no more.
    half_closed: bool,
}

impl Desk {
    fn run(&mut self) {
        loop {
            let rung = self.wait();
            let (since, answered) = (Instant::now(), self.monitor.answered());
            // What makes texts may panic.
            contain_panic(|| self.turn(rung));
            self.settle();
            if self.streams.is_empty() {
                continue;
            }
            if since.duration_since(self.looked) >= LOOK {
                self.looked = since;
                contain_panic(|| self.look());
                self.settle();
            }
            if self.monitor.answered() != answered || !self.rung.is_empty() {
                let pause = since.elapsed() * LEFT_TO_OTHERS;
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
        publisher.publish(&mut |number, text| {
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
    }

    /// Looks at all streams: some are too slow, some have been quiet for long, some may not go on.
    fn look(&mut self) {
        let now = Instant::now();
        for (&number, stream) in &mut self.streams {
            if stream.is_owed() {
                if stream.stalled(now) >= self.patience.stalled {
                    self.ended.push((number, Ending::Slow));
                }
            } else if now - stream.sent >= self.patience.quiet
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

impl Stream {
    fn new(sink: Box<dyn Sink>, subscription: Box<dyn Subscription>) -> Stream {
        let (now, taken) = (Instant::now(), sink.taken().unwrap_or(0));
        Stream {
            sink,
            subscription,
            pending: VecDeque::new(),
            written: 0,
            sent: now,
            taken: (taken, now),
            total: taken,
            half_closed: false,
        }
    }

    /// Whether the client has not taken everything. A client that has vanished takes nothing, and only its kernel could say so.
    fn is_owed(&self) -> bool {
        !self.pending.is_empty() || self.count_taken() < self.total
    }

    /// Sends a text behind what is pending. Returns whether nothing is pending any more.
    fn give(&mut self, text: &Text) -> io::Result<bool> {
        let now = Instant::now();
        self.sent = now;
        if !self.is_owed() {
            self.taken = (self.total, now);
        }
        self.pending.push_back(Arc::clone(text));
        self.write()
    }

    /// Writes what is pending. Returns whether that was all.
    fn write(&mut self) -> io::Result<bool> {
        while let Some(text) = self.pending.front() {
            match self.sink.write(&text[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.total += bytes as u64;
                    self.written += bytes;
                    if self.written == text.len() {
                        self.pending.pop_front();
                        self.written = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// For how long the client has taken nothing.
    fn stalled(&mut self, now: Instant) -> Duration {
        let taken = self.count_taken();
        if taken != self.taken.0 {
            self.taken = (taken, now);
        }
        now - self.taken.1
    }

    fn count_taken(&self) -> u64 {
        self.sink.taken().unwrap_or(self.total)
    }
}

#[cfg(test)]
mod tests;
