use super::*;
use crate::server::streams::{Sink, Subscription};
use crossbeam_channel::unbounded;
use std::sync::Mutex;

/// A client that takes so many bytes.
#[derive(Default)]
struct Client {
    room: usize,
    got: Vec<u8>,
    ended: Option<Result<(), io::ErrorKind>>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Client>>);

impl Fake {
    fn with_room(room: usize) -> Fake {
        let fake = Fake::default();
        fake.0.lock().unwrap().room = room;
        fake
    }

    fn make_room(&self, room: usize) {
        self.0.lock().unwrap().room += room;
    }

    /// What it has got since it was asked last.
    fn got(&self) -> String {
        String::from_utf8(mem::take(&mut self.0.lock().unwrap().got)).unwrap()
    }

    fn ended(&self) -> Option<Result<(), io::ErrorKind>> {
        self.0.lock().unwrap().ended
    }
}

impl Sink for Fake {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut client = self.0.lock().unwrap();
        let taken = bytes.len().min(client.room);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        client.room -= taken;
        client.got.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn taken(&self) -> Option<u64> {
        None
    }

    fn end(self: Box<Self>, written: io::Result<()>) {
        self.0.lock().unwrap().ended = Some(written.map_err(|error| error.kind()));
    }
}

struct Numbered(u64);

impl Subscription for Numbered {
    fn number(&self) -> u64 {
        self.0
    }
}

/// Publishes what it is told to.
#[derive(Default)]
struct Script {
    /// For all.
    news: Mutex<Vec<(u64, &'static str)>>,
    /// For those who ask.
    more: Mutex<HashMap<u64, VecDeque<&'static str>>>,
    /// Who has not taken a text at once.
    late: Mutex<Vec<u64>>,
    unwanted: Mutex<Vec<u64>>,
    behind: Mutex<Vec<u64>>,
}

fn text(text: &str) -> Text {
    text.as_bytes().into()
}

impl Publisher for Script {
    fn publish(&self, give: &mut dyn FnMut(u64, &Text) -> bool) -> Vec<u64> {
        for (number, news) in self.news.lock().unwrap().drain(..) {
            if !give(number, &text(news)) {
                self.late.lock().unwrap().push(number);
            }
        }
        self.behind.lock().unwrap().drain(..).collect()
    }

    fn next(&self, number: u64) -> Next {
        let mut more = self.more.lock().unwrap();
        match more.get_mut(&number).and_then(VecDeque::pop_front) {
            Some("end") => Next::End,
            Some(more) => Next::Text(text(more)),
            None => Next::Wait,
        }
    }

    fn quiet(&self, _: u64) -> Option<Text> {
        Some(text("quiet"))
    }

    fn unwanted(&self) -> Vec<u64> {
        self.unwanted.lock().unwrap().drain(..).collect()
    }
}

/// A desk with streams from number 1 on.
fn desk(script: &Arc<Script>, clients: &[&Fake]) -> Desk {
    let (news, arrivals) = unbounded();
    let publisher = Arc::<Script>::clone(script);
    let mut desk = Desk::new(publisher, Arc::default(), Streams(news), never(), arrivals);
    for (number, client) in (1..).zip(clients) {
        let sink = Box::new(Fake::clone(client));
        let stream = Stream::new(sink, Box::new(Numbered(number)));
        desk.streams.insert(number, stream);
    }
    desk
}

fn run(desk: &mut Desk) {
    while !desk.news.is_empty() || !desk.next.is_empty() {
        desk.turn(false);
    }
    desk.settle();
}

#[test]
fn a_client_without_room_gets_the_rest_when_it_has_some_and_others_do_not_wait() {
    let (fast, slow) = (Fake::with_room(1000), Fake::with_room(3));
    let script = Arc::new(Script::default());
    let mut desk = desk(&script, &[&fast, &slow]);
    *script.news.lock().unwrap() = vec![(2, "hello"), (1, "hello"), (3, "nobody")];
    desk.turn(true);
    assert_eq!((fast.got(), slow.got()), ("hello".into(), "hel".into()));
    assert_eq!(*script.late.lock().unwrap(), [2, 3]);
    let more = script.more.lock().unwrap().insert(2, ["!", "?"].into());
    assert_eq!(more, None);
    // It is asked for more when it has taken all.
    slow.make_room(1);
    desk.way.has_room(2);
    run(&mut desk);
    assert_eq!(slow.got(), "l");
    slow.make_room(10);
    desk.way.has_room(2);
    run(&mut desk);
    assert_eq!((slow.got(), slow.ended()), ("o!?".into(), None));
    // Or where the publisher says so.
    script.more.lock().unwrap().insert(2, ["..."].into());
    script.behind.lock().unwrap().push(2);
    desk.turn(true);
    assert_eq!(slow.got(), "...");
    // Nothing is asked where nothing was waiting.
    script.more.lock().unwrap().insert(1, ["more"].into());
    desk.way.has_room(1);
    run(&mut desk);
    assert_eq!(fast.got(), "");
}

#[test]
fn who_takes_nothing_for_long_is_cut_off_and_who_takes_little_is_not() {
    let (stuck, slow, idle) = (Fake::default(), Fake::default(), Fake::default());
    let script = Arc::new(Script::default());
    let mut desk = desk(&script, &[&stuck, &slow, &idle]);
    *script.news.lock().unwrap() = vec![(1, "text"), (2, "text")];
    desk.turn(true);
    desk.patience.stalled = Duration::ZERO;
    desk.patience.quiet = Duration::MAX;
    slow.make_room(1);
    desk.way.has_room(2);
    run(&mut desk);
    // The clock of the one that has taken something begins anew.
    desk.patience.stalled = Duration::from_nanos(1);
    for stream in desk.streams.values_mut() {
        stream.taken.1 -= Duration::from_secs(1);
    }
    desk.look();
    desk.settle();
    let timed_out = Some(Err(io::ErrorKind::TimedOut));
    assert_eq!((stuck.ended(), slow.ended()), (timed_out, None));
    assert_eq!(idle.ended(), None);
    assert_eq!(desk.monitor.ended(Ending::Slow), 1);
    assert_eq!(desk.monitor.streams(), 2);
}

#[test]
fn what_is_quiet_gets_a_word_and_what_is_unwanted_ends() {
    let clients = [100, 100, 0].map(Fake::with_room);
    let script = Arc::new(Script::default());
    let mut desk = desk(&script, &clients.each_ref());
    *script.news.lock().unwrap() = vec![(3, "text")];
    desk.turn(true);
    desk.patience.quiet = Duration::ZERO;
    script.unwanted.lock().unwrap().push(2);
    desk.look();
    desk.settle();
    assert_eq!(clients[0].got(), "quiet");
    assert_eq!(clients[1].ended(), Some(Ok(())));
    // One that has not taken the last text is not quiet.
    assert_eq!(desk.streams[&3].pending.len(), 1);
    assert_eq!(desk.streams.len(), 2);
}

#[test]
fn a_stream_ends_when_its_client_is_gone_or_the_publisher_cannot_go_on() {
    let clients = [100, 100, 100, 0].map(Fake::with_room);
    let script = Arc::new(Script::default());
    let mut desk = desk(&script, &clients.each_ref());
    script.more.lock().unwrap().insert(2, ["end"].into());
    desk.next.push_back(2);
    desk.way.gone(1);
    // One that only sends no more may listen still, and is found out by a comment.
    desk.way.half_closed(3);
    run(&mut desk);
    let gone = Some(Err(io::ErrorKind::BrokenPipe));
    assert_eq!(
        (clients[0].ended(), clients[1].ended()),
        (gone, Some(Ok(())))
    );
    assert_eq!(
        (clients[2].ended(), clients[2].got()),
        (None, ":\n\n".into())
    );
    // All that are left end with the server; who has not taken everything is told nothing.
    *script.news.lock().unwrap() = vec![(4, "text")];
    desk.turn(true);
    desk.way.drain();
    run(&mut desk);
    assert_eq!(clients[2].ended(), Some(Ok(())));
    assert_eq!(clients[3].ended(), Some(Err(io::ErrorKind::Other)));
    assert_eq!((desk.streams.len(), desk.monitor.streams()), (0, 0));
    let counted = Ending::ALL.map(|it| desk.monitor.ended(it));
    assert_eq!(counted, [0, 1, 0, 1, 2]);
}
