//! All attackers, one kind after the other and then all at once, for as long as one likes, beside a client with 16
//! connections which never fails. By name: `cargo test --release soak -- --ignored --nocapture`.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};
use std::{array, env};

use crate::bystander::{Bystander, Log};
use crate::client::Client;
use crate::connections::start_with_descriptors;
use crate::crowd::{Crowd, begin_to_connect, never_reader};
use crate::process::raise_own_limit;
use crate::process::{PATIENCE, Server, wait_for};
use crate::usage::Usage;

/// How many connections the well-behaved client has.
const CONNECTIONS: usize = 16;

const DESCRIPTORS: u64 = 20_000;
const ABSURD_LENGTHS: usize = 1_000;
const DRIPPING_HEADS: usize = 2_000;
const DRIPPING_BODIES: usize = 200;
const NEVER_READERS: usize = 200;
const IDLE: usize = 500;
const FLOOD: usize = 25_000;

/// What never-readers ask for.
const LARGE: usize = 5_000_000;

/// How much longer than undisturbed 99 of 100 requests may take beside slow clients.
const FACTOR: u32 = 5;

/// How soon after a flood everything must be as before.
const BACK_TO_NORMAL: Duration = Duration::from_secs(2);

#[test]
#[ignore = "takes ten minutes"]
fn all_attackers_at_once_for_long() {
    raise_own_limit();
    let seconds = env::var("TESTS_SOAK_SECONDS").map_or(600, |it| it.parse().unwrap());
    let time = Duration::from_secs(seconds);
    let server = start_with_descriptors(DESCRIPTORS, &[]);
    server.put("/kv/large", "v".repeat(LARGE)).expect(200, "");
    let before = Usage::of(&server);
    say(&format!("at first: {before}"));

    let undisturbed = beside(&server, "undisturbed", || thread::sleep(time / 20));
    beside(&server, "absurd lengths", || {
        (0..ABSURD_LENGTHS).for_each(|n| absurd_length(server.address, n));
    });
    say(&format!(
        "left by {ABSURD_LENGTHS} absurd lengths: {}",
        Usage::of(&server)
    ));

    let disturbed = beside(&server, "slow clients", || {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            slow_clients(scope, server.address, &stop);
            thread::sleep(time / 4);
            say(&format!("among slow clients: {}", Usage::of(&server)));
            stop.store(true, Ordering::Relaxed);
        });
    });
    settle(&server, &before, "after slow clients");

    beside(&server, "flood", || {
        flood(&server, time / 20, 1);
        let dropped = Instant::now();
        // Whoever comes now is served as if nothing had been.
        let answer = server.get("/kv/none");
        let (took, now) = (dropped.elapsed(), Usage::of(&server));
        say(&format!("a newcomer after the flood: {took:?}; {now}"));
        assert_eq!(answer.status, 404);
        assert!(took < BACK_TO_NORMAL, "{took:?}");
    });
    settle(&server, &before, "after the flood");

    beside(&server, "all at once", || {
        let (stop, until) = (AtomicBool::new(false), Instant::now() + time / 2);
        thread::scope(|scope| {
            slow_clients(scope, server.address, &stop);
            scope.spawn(|| {
                for n in 0..ABSURD_LENGTHS {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    absurd_length(server.address, n);
                    thread::sleep(time / 2 / ABSURD_LENGTHS as u32);
                }
            });
            let mut rounds = 1;
            while Instant::now() < until {
                rounds += 1;
                flood(&server, time / 20, rounds);
                say(&format!("among all: {}", Usage::of(&server)));
                // Time for the slow to come back.
                thread::sleep(time / 20);
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
    settle(&server, &before, "at last");

    let (quiet, slow) = (undisturbed.quantile(0.99), disturbed.quantile(0.99));
    assert!(
        slow < quiet * FACTOR,
        "p99 {slow:?} among slow clients, {quiet:?} undisturbed"
    );
}

#[expect(clippy::print_stderr, reason = "what a long run reports")]
fn say(what: &str) {
    eprintln!("{what}");
}

/// Does something beside a well-behaved client, which must not fail.
fn beside(server: &Server, what: &str, attack: impl FnOnce()) -> Log {
    let bystander = Bystander::with(server, CONNECTIONS, Duration::ZERO);
    attack();
    let log = bystander.stop();
    let [half, most, nearly_all, all] = [0.5, 0.99, 0.999, 1.0].map(|part| log.quantile(part));
    let (requests, failed) = (log.requests(), log.failures.len());
    say(&format!(
        "{what}: {requests} requests, {failed} failed; p50 {half:?}, p99 {most:?}, p99.9 {nearly_all:?}, most {all:?}"
    ));
    for failure in log.failures.iter().take(20) {
        say(failure);
    }
    assert_eq!(failed, 0, "of {requests} requests {what}");
    log
}

/// Waits until all connections are gone.
fn settle(server: &Server, before: &Usage, when: &str) {
    let started = Instant::now();
    let mut usage = Usage::of(server);
    while usage.descriptors >= before.descriptors + 2 * CONNECTIONS {
        assert!(
            started.elapsed() < PATIENCE,
            "{usage} {when}, {before} before"
        );
        thread::sleep(Duration::from_millis(10));
        usage = Usage::of(server);
    }
    let (took, at_once) = (started.elapsed(), Usage::of(server));
    // tiny_http's threads stay for five seconds.
    thread::sleep(Duration::from_secs(8));
    say(&format!(
        "{when}: descriptors back after {took:?}, {at_once}; then {}; at first {before}",
        Usage::of(server)
    ));
}

/// Announces from 10^9 to 2^64 - 1 bytes.
fn absurd_length(address: SocketAddr, n: usize) {
    let steps = (ABSURD_LENGTHS - 1) as f64;
    let length = 1e9 * (u64::MAX as f64 / 1e9).powf(n as f64 / steps);
    let length = if n + 1 < ABSURD_LENGTHS {
        length as u64
    } else {
        u64::MAX
    };
    let Ok(mut client) = Client::try_connect(address) else {
        return;
    };
    let request =
        format!("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\nx");
    // In a flood, it may be closed before it is heard.
    if client.try_write(request).is_ok()
        && let Ok(answer) = client.try_read("PUT")
    {
        assert!(
            [413, 503].contains(&answer.status),
            "{length}: {}",
            answer.status
        );
    }
}

/// Dripping heads and bodies, clients that do not read, and idle ones: always as many, until told to stop. Returns when
/// all of them are there.
fn slow_clients<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    address: SocketAddr,
    stop: &'scope AtomicBool,
) {
    let ready: &AtomicUsize = Box::leak(Box::default());
    let crowds = [
        (
            "heads",
            DRIPPING_HEADS,
            "GET /kv/a HTTP/1.1\r\nHost: localhost\r\nX: ",
            "x",
        ),
        (
            "bodies",
            DRIPPING_BODIES,
            "PUT /kv/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n",
            "v",
        ),
        ("idle", IDLE, "", ""),
    ];
    for (what, size, opening, drips) in crowds {
        scope.spawn(move || {
            let mut crowd = Crowd::new(address, size, opening, drips);
            let mut least = size;
            crowd.refill();
            ready.fetch_add(1, Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) {
                crowd.drip();
                crowd.refill();
                least = least.min(crowd.connected());
                thread::sleep(Duration::from_secs(1));
            }
            say(&format!(
                "{what}: never fewer than {least}; ended with {:?}",
                crowd.ended
            ));
        });
    }
    scope.spawn(move || {
        let connect =
            || never_reader(address, "GET /kv/large HTTP/1.1\r\nHost: localhost\r\n\r\n").ok();
        let mut readers: Vec<Option<TcpStream>> = (0..NEVER_READERS).map(|_| connect()).collect();
        ready.fetch_add(1, Ordering::Relaxed);
        let mut oldest = 0;
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_secs(1));
            // Who does not read does not learn that it is over. So each comes back after a while.
            for _ in 0..NEVER_READERS / 50 {
                readers[oldest] = connect();
                oldest = (oldest + 1) % NEVER_READERS;
            }
        }
    });
    wait_for("slow clients to connect", || {
        (ready.load(Ordering::Relaxed) == crowds.len() + 1).then_some(())
    });
}

/// A process of its own that has a part of the flood's connections: one may not have as many descriptors.
struct Flooder {
    child: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
}

/// Opens many connections, holds them for a while, asks something on each, and drops all of them.
fn flood(server: &Server, hold: Duration, round: usize) {
    let mut flooders: [Flooder; 2] = array::from_fn(|n| {
        let source = Ipv4Addr::new(127, 0, round as u8, 2 + n as u8);
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args([
                "soak::part_of_a_flood",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env("TESTS_FLOOD", format!("{source} {}", server.address));
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Flooder {
            orders: child.stdin.take().unwrap(),
            reports: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    });
    let report = |flooder: &mut Flooder| {
        let mut line = String::new();
        while !line.starts_with("flood: ") {
            line.clear();
            assert!(
                flooder.reports.read_line(&mut line).unwrap() > 0,
                "no report"
            );
        }
        say(line.trim_end());
    };
    flooders.iter_mut().for_each(report);
    thread::sleep(hold);
    say(&format!("in the flood: {}", Usage::of(server)));
    for flooder in &mut flooders {
        flooder.orders.write_all(b"ask\n").unwrap();
    }
    flooders.iter_mut().for_each(report);
    for Flooder {
        mut child, orders, ..
    } in flooders
    {
        drop(orders);
        child.wait().unwrap();
    }
}

/// Run by [`flood`], in another process.
#[test]
#[ignore = "is a part of the soak test"]
fn part_of_a_flood() {
    let Ok(order) = env::var("TESTS_FLOOD") else {
        return;
    };
    let (source, address) = order.split_once(' ').unwrap();
    let (source, address) = (source.parse().unwrap(), address.parse().unwrap());
    raise_own_limit();
    let mut flood: Vec<Asker> = (0..FLOOD / 2)
        .filter_map(|_| Asker::new(source, address))
        .collect();
    let count = |flood: &[Asker], what: &dyn Fn(&Asker) -> bool| {
        flood.iter().filter(|asker| what(asker)).count()
    };
    let connected = |asker: &Asker| asker.stream.peer_addr().is_ok();
    let deadline = Instant::now() + Duration::from_secs(5);
    while count(&flood, &connected) < flood.len() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    tell(&format!(
        "{} connected of {}",
        count(&flood, &connected),
        FLOOD / 2
    ));
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while count(&flood, &|asker| asker.outcome == Outcome::None) > 0 && Instant::now() < deadline {
        flood.iter_mut().for_each(Asker::go_on);
        thread::sleep(Duration::from_millis(50));
    }
    let [answered, refused, ended] = [Outcome::Answered, Outcome::Refused, Outcome::Ended]
        .map(|outcome| count(&flood, &|asker| asker.outcome == outcome));
    let wait = count(&flood, &|asker| {
        asker.outcome == Outcome::None && connected(asker)
    });
    tell(&format!(
        "{answered} answered, {refused} refused, {ended} ended, {wait} wait, of {}",
        FLOOD / 2
    ));
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// A connection of the flood.
struct Asker {
    stream: TcpStream,
    asked: bool,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    None,
    Answered,
    Refused,
    Ended,
}

impl Asker {
    /// One that has begun to connect.
    fn new(source: Ipv4Addr, address: SocketAddr) -> Option<Asker> {
        Some(Asker {
            stream: begin_to_connect(source, address).ok()?,
            asked: false,
            outcome: Outcome::None,
        })
    }

    /// Asks if it has not, and looks for the answer.
    fn go_on(&mut self) {
        if self.outcome != Outcome::None {
            return;
        }
        if !self.asked {
            self.asked = self
                .stream
                .write_all(b"GET /kv/none HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .is_ok();
        }
        let mut answer = [0; 1000];
        self.outcome = match self.stream.read(&mut answer) {
            Ok(0) => Outcome::Ended,
            Ok(_) if answer.starts_with(b"HTTP/1.1 404 ") => Outcome::Answered,
            Ok(_) => Outcome::Refused,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => Outcome::Ended,
        };
    }
}

#[expect(clippy::print_stdout, reason = "one process reports to another")]
fn tell(what: &str) {
    println!("\nflood: {what}");
}
