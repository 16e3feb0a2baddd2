//! The thread that moves bodies and answers which take as long as the client likes.
//!
//! It asks the kernel which clients have sent something, or have room for more, and moves that much ([`super::moving`]). So workers never
//! wait for a client, and no number of slow clients keeps others from being served. A client that is too slow, or takes too long
//! altogether, is cut off ([`super::pace`]).

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use super::connection::Connection;
use super::moving::{IncomingBody, OutgoingAnswer};
use super::pace::Pace;
use super::stream;
use crate::budget::{Budget, Reservation};
use crate::server::{Monitor, Outgoing, Streams, Timeouts, Upload, contain_panic};

/// The most bytes that are received in one piece.
const PIECE: usize = 64 * 1024;

/// The most clients that are looked at in one go.
const EVENTS: usize = 256;

/// Pause between two looks for clients that are too slow.
const LOOK: Duration = Duration::from_millis(250);

/// The number by which the thread knows that there is something new. Transfers count from 1.
const NEWS: u64 = 0;

/// Numbers with this bit are those of the server's streams.
const STREAM: u64 = 1 << 63;

/// A body or an answer on its way.
pub(super) trait Transfer: Send {
    fn connection(&self) -> &Connection;
    /// What has to happen for it to go on.
    fn event(&self) -> EventFlags;
    /// How far it is, as of now.
    fn pace(&mut self) -> &Pace;
    /// Moves what can be moved without waiting. `scratch` is room for what is received.
    fn go_on(&mut self, scratch: &mut [MaybeUninit<u8>]) -> Moved;
    fn end(self: Box<Self>, ending: Ending);
}

/// What has come of a turn.
pub(super) enum Moved {
    /// It goes on when its event comes.
    Wait,
    /// It goes on after so long, to leave something to others.
    Pause(Duration),
    /// It has come to its end, good or bad.
    End,
}

/// How a transfer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself.
    Own,
    /// The client is too slow.
    TooSlow,
    /// By a fault of ours.
    Failed,
}

/// The way to the thread, and what it needs.
pub(super) struct Transfers {
    pub(super) timeouts: Timeouts,
    pub(super) budget: Arc<Budget>,
    pub(super) monitor: Arc<Monitor>,
    new: Sender<Box<dyn Transfer>>,
    /// Which sockets the thread asks the kernel about.
    poll: OwnedFd,
    /// Whom to tell of the sockets of streams.
    streams: OnceLock<Streams>,
    /// Written to when there is a new one.
    news: OwnedFd,
    /// Refused clients that may send on for a while.
    pub(super) farewells: AtomicUsize,
}

impl Transfers {
    /// Starts the thread.
    pub(super) fn start(
        timeouts: Timeouts,
        monitor: Arc<Monitor>,
        budget: Arc<Budget>,
    ) -> io::Result<Arc<Transfers>> {
        let (new, arrivals) = unbounded();
        let transfers = Arc::new(Transfers {
            timeouts,
            budget,
            monitor,
            new,
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            streams: OnceLock::new(),
            news: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            farewells: AtomicUsize::new(0),
        });
        let news = EventData::new_u64(NEWS);
        epoll::add(&transfers.poll, &transfers.news, news, EventFlags::IN)?;
        let mut mover = Mover {
            transfers: Arc::clone(&transfers),
            arrivals,
            moving: HashMap::new(),
            paused: Vec::new(),
            last: NEWS,
        };
        thread::Builder::new()
            .name("transfers".into())
            .spawn(move || mover.run())?;
        Ok(transfers)
    }

    /// Reads a body, of which the beginning may be there.
    pub(super) fn receive(
        &self,
        connection: Arc<Connection>,
        upload: Upload,
        body: Vec<u8>,
        reserved: Reservation,
    ) {
        let pace = Pace::new(self.timeouts);
        self.begin(IncomingBody::new(connection, pace, upload, body, reserved));
    }

    /// Writes an answer, or what is left of it.
    pub(super) fn send(&self, connection: Arc<Connection>, outgoing: Outgoing) {
        let (pace, monitor) = (Pace::new(self.timeouts), Arc::clone(&self.monitor));
        self.begin(OutgoingAnswer::new(connection, pace, outgoing, monitor));
    }

    /// Tells the streams of these events of a socket from now on.
    pub(super) fn listen_to_stream(
        &self,
        socket: &impl AsFd,
        number: u64,
        events: EventFlags,
        streams: &Streams,
    ) -> io::Result<()> {
        self.streams.get_or_init(|| streams.clone());
        let data = EventData::new_u64(STREAM | number);
        Ok(epoll::add(&self.poll, socket, data, events)?)
    }

    pub(super) fn forget_stream(&self, socket: &impl AsFd) {
        let _ = epoll::delete(&self.poll, socket); // fails if it was never added
    }

    fn begin(&self, transfer: impl Transfer + 'static) {
        // Neither can fail: the thread stays until the process ends, and does not leave 2^64 of them lying about.
        let _ = self.new.send(Box::new(transfer));
        let _ = rustix::io::write(&self.news, &1_u64.to_ne_bytes());
    }
}

/// What the thread has.
struct Mover {
    transfers: Arc<Transfers>,
    arrivals: Receiver<Box<dyn Transfer>>,
    moving: HashMap<u64, Box<dyn Transfer>>,
    /// Those that pause, and until when.
    paused: Vec<(Instant, u64)>,
    /// The number of the latest one.
    last: u64,
}

impl Mover {
    fn run(&mut self) {
        let mut scratch = vec![MaybeUninit::uninit(); PIECE];
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let mut looked = Instant::now();
        loop {
            let next = self.paused.iter().map(|(until, _)| *until).min();
            let next = next.into_iter().chain([looked + LOOK]).min();
            let wait = next.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()));
            let wait = Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                // Up to the next millisecond, or it would be looked again and again until then.
                tv_nsec: (wait.subsec_millis() + 1).min(999) as i64 * 1_000_000,
            };
            // Fails where a signal interrupts it, and then there is nothing to do.
            let _ = epoll::wait(
                &self.transfers.poll,
                spare_capacity(&mut events),
                Some(&wait),
            );
            for event in events.drain(..) {
                let (number, flags) = (event.data.u64(), event.flags);
                match number {
                    NEWS => self.admit(&mut scratch),
                    _ if number & STREAM != 0 => {
                        if let Some(streams) = self.transfers.streams.get() {
                            stream::tell(streams, number & !STREAM, flags);
                        }
                    }
                    number => self.go_on(number, &mut scratch),
                }
            }
            self.wake_paused();
            if looked.elapsed() >= LOOK {
                self.end_slow();
                looked = Instant::now();
            }
        }
    }

    fn admit(&mut self, scratch: &mut [MaybeUninit<u8>]) {
        let _ = rustix::io::read(&self.transfers.news, &mut [0; 8]);
        while let Ok(transfer) = self.arrivals.try_recv() {
            self.last += 1;
            let number = self.last;
            let (socket, event) = (transfer.connection().socket(), transfer.event());
            let added = epoll::add(
                &self.transfers.poll,
                &socket,
                EventData::new_u64(number),
                event,
            );
            self.moving.insert(number, transfer);
            match added {
                Ok(()) => self.go_on(number, scratch),
                Err(error) => {
                    log::error!("cannot wait for a client: {error}");
                    self.end(number, Ending::Failed);
                }
            }
        }
    }

    fn go_on(&mut self, number: u64, scratch: &mut [MaybeUninit<u8>]) {
        let Some(transfer) = self.moving.get_mut(&number) else {
            return;
        };
        // What makes an answer as it goes out may panic.
        let moved = catch_unwind(AssertUnwindSafe(|| transfer.go_on(scratch)));
        match moved {
            Ok(Moved::Wait) => {}
            Ok(Moved::Pause(time)) => {
                self.listen(number, EventFlags::empty());
                self.paused.push((Instant::now() + time, number));
            }
            Ok(Moved::End) => self.end(number, Ending::Own),
            Err(_) => self.end(number, Ending::Failed),
        }
    }

    fn wake_paused(&mut self) {
        let now = Instant::now();
        let over = self.paused.extract_if(.., |(until, _)| *until <= now);
        let over: Vec<u64> = over.map(|(_, number)| number).collect();
        for number in over {
            if let Some(transfer) = self.moving.get(&number) {
                self.listen(number, transfer.event());
            }
        }
    }

    /// Waits for these events of a transfer from now on.
    fn listen(&self, number: u64, events: EventFlags) {
        if let Some(transfer) = self.moving.get(&number) {
            let socket = transfer.connection().socket();
            let _ = epoll::modify(
                &self.transfers.poll,
                &socket,
                EventData::new_u64(number),
                events,
            );
        }
    }

    fn end_slow(&mut self) {
        let moving = self.moving.iter_mut();
        let late = |(&number, it): (_, &mut Box<dyn Transfer>)| {
            it.pace().left().is_zero().then_some(number)
        };
        let slow: Vec<u64> = moving.filter_map(late).collect();
        for number in slow {
            self.end(number, Ending::TooSlow);
        }
    }

    fn end(&mut self, number: u64, ending: Ending) {
        if let Some(transfer) = self.moving.remove(&number) {
            // Fails if it was never added.
            let _ = epoll::delete(&self.transfers.poll, transfer.connection().socket());
            contain_panic(|| transfer.end(ending));
        }
    }
}
