//! Streams: answers without an end, which grow as things happen.
//!
//! One thread has all of them, so that thousands may listen and no thread waits for each. A [`Publisher`] says what goes out, and knows
//! what the streams are about; a [`Sink`] takes it to a client, and never waits. Between the two, at most a text or two wait for a client.
//! Whoever takes nothing of them for ten seconds is cut off.
//!
//! The thread sleeps until somebody rings the [`Bell`], or a sink says that there is room again or that its client is gone.

mod desk;
mod stream;

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::door::{Connection, Outgoing};
use super::monitor::Monitor;
use desk::Desk;

/// A piece of a stream. Many streams may get the same one.
pub type Text = Arc<[u8]>;

/// A place among the streams, given by the publisher. It is dropped when the stream has ended, however that came.
pub trait Subscription: Send {
    /// By which the publisher knows it.
    fn number(&self) -> u64;
}

/// Says what goes out on the streams. Called on one thread, and must not wait.
pub trait Publisher: Send + Sync + 'static {
    /// Something may have happened. Calls `give` with a text for each stream that waits for news and gets some. `give` returns
    /// whether all of it has been taken at once. If not, [`Publisher::next`] is called when it has been. Also for the streams that this
    /// returns.
    fn publish(&self, give: &mut dyn FnMut(u64, &Text) -> bool) -> Vec<u64>;

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
        let mut desk = Desk::new(publisher, monitor, streams.clone(), rung, arrivals);
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
