//! Watching: how soon a change is told, and what it costs others that a thousand are told.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::api::{self, Api};
use crate::cluster::{Members, NODES, start_node};
use crate::directory::Directory;
use crate::interrupt;
use crate::options::Options;
use crate::peers::Peer;
use crate::progress;
use crate::results::{Figure, Figures};
use crate::running::Running;
use crate::watchers::{Watchers, watch};
use crate::wrk::{self, Requests};

pub const LATENCY: &str = "watch-latency";
pub const FANOUT: &str = "watch-1000";
pub const ELSEWHERE: &str = "cluster-watch";

/// Figures of [`LATENCY`].
pub const P50: &str = "PUT to event p50";
pub const P99: &str = "PUT to event p99";
/// Of [`FANOUT`].
pub const MISSING: &str = "events missing";
pub const KEPT: &str = "GETs by those without watchers";

/// All who watch: as many as threadkv lets in.
const WATCHERS: u32 = 1000;

/// Writes a second, beside those whose events are waited for.
const WRITES: u32 = 5000;
/// How many connections they come over, and how often one is sent over each.
const WRITERS: u32 = 10;
const TURN: Duration = Duration::from_micros(1_000_000 * WRITERS as u64 / WRITES as u64);

/// Between two writes whose events are waited for.
const PROBE: Duration = Duration::from_millis(4);

/// Changes a second of the key that a thousand watch.
const CHANGES: u32 = 100;

/// Connections that GET meanwhile, and how many keys.
const GETTERS: u32 = 16;
const KEYS: u32 = 1000;

/// The key that is watched.
const WATCHED: &str = "watched";

/// From an answered PUT to its event, beside many who watch something else and many writes of something else.
pub fn latency(options: &Options) -> Result<Vec<Figures>, String> {
    let peers = [Peer::Threadkv, Peer::ThreadkvSync, Peer::Etcd];
    Figures::of_each(LATENCY, &peers, |peer| {
        let directory = Directory::new(&options.work_directory)?;
        let server = peer.start(directory.path())?;
        let api = peer.api();
        let idle = Watchers::start(&server, api, WATCHERS - 1, |it| format!("idle:{it}"))?;
        let mut probe = Probe::start(&server, &server)?;
        let (mut rates, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            progress::show(&format!("{LATENCY}: {}, round {round}", peer.name()));
            let seconds = Duration::from_secs(options.seconds.into());
            let (rate, times) = beside_writes(&server, || probe.run(seconds))?;
            let [half, most] = quantiles(times);
            p50.push(half);
            p99.push(most);
            rates.push(rate);
        }
        idle.missing(0)?;
        idle.end()?;
        Ok(figures(p50, p99, rates))
    })
}

/// The same from one node of a cluster to another one, beside as many writes as 64 connections make.
pub fn elsewhere(options: &Options) -> Result<Vec<Figures>, String> {
    Figures::of_each(ELSEWHERE, &[Peer::Cluster], |peer| {
        let directory = Directory::new(&options.work_directory)?;
        let members = Members::start(directory.path())?;
        let mut nodes = Vec::new();
        for name in NODES {
            let (address, process) = start_node(name, &members, directory.path())?;
            nodes.push(Running::new(peer, address, process));
        }
        let server = &nodes[0];
        let mut probe = Probe::start(server, &nodes[1])?;
        let puts = (0..KEYS).map(|it| peer.api().put(&api::key(it), &api::value(it, 100), ""));
        let requests = Requests::write(directory.path(), puts)?;
        let (mut rates, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            progress::show(&format!("{ELSEWHERE}: round {round}"));
            let seconds = Duration::from_secs(options.seconds.into());
            let (sample, times) = thread::scope(|scope| {
                let times = scope.spawn(|| probe.run(seconds));
                // A thread that ends would take wrk with it, so this one starts it.
                let sample = wrk::run(server, &requests, 64, options.seconds, directory.path());
                let times = times.join().map_err(|_| "a client has panicked")??;
                Ok::<_, String>((sample?, times))
            })?;
            let [half, most] = quantiles(times);
            p50.push(half);
            p99.push(most);
            rates.push(sample.rate);
        }
        Ok(figures(p50, p99, rates))
    })
}

/// What both of them find.
fn figures(p50: Vec<f64>, p99: Vec<f64>, rates: Vec<f64>) -> Vec<Figure> {
    let all = [
        (P50, "ms", p50),
        (P99, "ms", p99),
        ("beside writes", "/s", rates),
    ];
    all.map(|(name, unit, rounds)| Figure { name, unit, rounds })
        .into()
}

/// The one in the middle, and the one that one in a hundred is above.
fn quantiles(mut times: Vec<f64>) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len().saturating_sub(1) as f64 * part) as usize);
    [0.5, 0.99].map(|part| at(part).copied().unwrap_or(f64::NAN))
}

/// Somebody who writes a key, and somebody who watches it.
struct Probe<'a> {
    server: &'a Running,
    /// The number of the latest write.
    number: u32,
    /// When the event of a write has come.
    told: Receiver<(u32, Instant)>,
}

impl Probe<'_> {
    /// Writes at one server, and watches at another one or the same.
    fn start<'a>(server: &'a Running, watched: &Running) -> Result<Probe<'a>, String> {
        let api = server.peer.api();
        let stream = watch(watched, api, WATCHED)?;
        let (tell, told) = channel();
        thread::spawn(move || listen(stream, api, &tell));
        Ok(Probe {
            server,
            number: 0,
            told,
        })
    }

    /// Returns the times from the answer to the event, in milliseconds. An event that is there before the answer took none.
    fn run(&mut self, time: Duration) -> Result<Vec<f64>, String> {
        let (mut client, mut times) = (self.server.connect()?, Vec::new());
        let started = Instant::now();
        while started.elapsed() < time {
            interrupt::check()?;
            self.number += 1;
            let request = self.server.peer.api().put(WATCHED, &value(self.number), "");
            let sent = client.send(&request);
            sent.map_err(|error| self.server.error(error))?;
            let answered = Instant::now();
            let told = self.told.recv_timeout(Duration::from_secs(30));
            let (number, at) = told.map_err(|_| self.server.error("no event"))?;
            if number != self.number {
                return Err(self.server.error("an event of another change"));
            }
            times.push(at.saturating_duration_since(answered).as_secs_f64() * 1e3);
            thread::sleep(PROBE);
        }
        Ok(times)
    }
}

/// The value of a change: it has a number, and is as long as the others.
fn value(number: u32) -> String {
    format!("{}{number:010}{}", api::WATCHED_SIGN, "v".repeat(87))
}

/// Tells when the events come, by the number of each change.
fn listen(mut stream: TcpStream, api: Api, tell: &Sender<(u32, Instant)>) -> io::Result<()> {
    let (mut text, mut number, mut buffer) = (Vec::new(), 1, [0; 4096]);
    loop {
        // It waits as long as the test goes on.
        let length = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let at = Instant::now();
        text.extend_from_slice(&buffer[..length]);
        while let Some(end) = api.end_of_value(&text, &value(number)) {
            text.drain(..end);
            if tell.send((number, at)).is_err() {
                return Ok(());
            }
            number += 1;
        }
    }
}

/// Writes all the time while something is done; returns how many writes a second there were.
fn beside_writes<T>(
    server: &Running,
    during: impl FnOnce() -> Result<T, String>,
) -> Result<(f64, T), String> {
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(move || write(server, done));
        let result = during();
        done.store(true, Ordering::Relaxed);
        let rate = writer.join().map_err(|_| "a writer has panicked")??;
        Ok((rate, result?))
    })
}

/// Sends a write over each connection in turn, and reads the answer when it is that one's turn again.
fn write(server: &Running, done: &AtomicBool) -> Result<f64, String> {
    let api = server.peer.api();
    let clients: Result<Vec<_>, String> = (0..WRITERS).map(|_| server.connect()).collect();
    let (mut clients, mut sent) = (clients?, 0);
    let started = Instant::now();
    while !done.load(Ordering::Relaxed) {
        for client in &mut clients {
            let failed = |error| server.error(error);
            if sent >= WRITERS {
                client.receive().map_err(failed)?;
            }
            let index = sent % 10_000;
            let request = api.put(&api::key(index), &api::value(index, 100), "");
            client.begin(&request).map_err(failed)?;
            sent += 1;
        }
        let next = started + TURN * (sent / WRITERS);
        // One who is late does not hurry: there are only fewer.
        thread::sleep(next.saturating_duration_since(Instant::now()).min(TURN));
    }
    Ok(f64::from(sent) / started.elapsed().as_secs_f64())
}

/// A thousand watch one key that changes all the time, while others read: how many of the events come, and how many are read.
pub fn fanout(options: &Options) -> Result<Vec<Figures>, String> {
    let peers = [Peer::Threadkv, Peer::ThreadkvSync, Peer::Etcd];
    Figures::of_each(FANOUT, &peers, |peer| {
        let directory = Directory::new(&options.work_directory)?;
        let server = peer.start(directory.path())?;
        server.fill(KEYS, 100)?;
        let requests = (0..KEYS).map(|it| peer.api().get(&api::key(it), ""));
        let requests = Requests::write(directory.path(), requests)?;
        let get = || {
            wrk::run(
                &server,
                &requests,
                GETTERS,
                options.seconds,
                directory.path(),
            )
        };
        get()?;
        let (mut alone, mut beside, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let (mut missing, mut changed, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            progress::show(&format!("{FANOUT}: {}, round {round}", peer.name()));
            let (_, without) = while_changing(&server, get)?;
            let watchers = Watchers::start(&server, peer.api(), WATCHERS, |_| WATCHED.into())?;
            let since = Instant::now();
            let (changes, with) = while_changing(&server, get)?;
            missing.push(watchers.missing(changes)? as f64);
            let rate = f64::from(changes) / since.elapsed().as_secs_f64();
            changed.push(rate);
            told.push(rate * f64::from(WATCHERS));
            watchers.end()?;
            alone.push(without.rate);
            beside.push(with.rate);
            kept.push(with.rate / without.rate);
            interrupt::check()?;
        }
        let figure = |name, unit, rounds| Figure { name, unit, rounds };
        Ok(vec![
            figure(MISSING, "", missing),
            figure("changes", "/s", changed),
            figure("events", "/s", told),
            figure("GETs without watchers", "/s", alone),
            figure("with", "/s", beside),
            figure(KEPT, "", kept),
        ])
    })
}

/// Changes the key that is watched while something is done. Returns how many changes there were.
fn while_changing<T>(
    server: &Running,
    during: impl FnOnce() -> Result<T, String>,
) -> Result<(u32, T), String> {
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let change = move || {
            let (mut client, mut changes) = (server.connect()?, 0);
            let started = Instant::now();
            while !done.load(Ordering::Relaxed) {
                let request = server.peer.api().put(WATCHED, &value(changes), "");
                client.send(&request).map_err(|error| server.error(error))?;
                changes += 1;
                let next = started + Duration::from_secs(1) * changes / CHANGES;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok::<u32, String>(changes)
        };
        let changer = scope.spawn(change);
        let result = during();
        done.store(true, Ordering::Relaxed);
        let changes = changer.join().map_err(|_| "a writer has panicked")??;
        Ok((changes, result?))
    })
}
