//! Raw bytes into a live server: valid requests, mangled, in pieces, in pipelines, broken off, and noise. Whatever comes,
//! each connection ends, each answer is one, and the server stays what it was.

use std::cell::RefCell;
use std::env;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use arbtest::arbtest;

use crate::client::Client;
use crate::fuzz_script::{Script, script};
use crate::process::Server;
use crate::usage::Usage;

/// How long whatever must happen may take.
const SOON: Duration = Duration::from_secs(15);

/// A server under fire, and what it was before.
struct Target {
    server: Server,
    before: Usage,
    /// A connection that is there all the time.
    steady: Client,
    /// How many scripts were absurd.
    absurd: usize,
    rounds: u64,
}

impl Target {
    fn start() -> Target {
        let server = Server::start(&[]);
        server.put("/kv/big", "v".repeat(100_000)).expect(200, "");
        let mut steady = server.connect();
        steady.send("GET", "/kv/none", "");
        Target {
            before: Usage::of(&server),
            steady,
            server,
            absurd: 0,
            rounds: 0,
        }
    }

    /// Has all scripts played at the same time, and looks what has become of the server.
    fn play(&mut self, scripts: &[Script]) -> Result<(), String> {
        let connect = |_: &Script| TcpStream::connect(self.server.address);
        let streams: Result<Vec<TcpStream>, _> = scripts.iter().map(connect).collect();
        let streams = streams.map_err(|error| format!("connecting: {error}"))?;
        let most = scripts.iter().map(|script| script.pieces.len()).max();
        // Where the server has had enough, answers may be lost that were on their way.
        let mut cut_off = vec![false; scripts.len()];
        for n in 0..most.unwrap_or(0) {
            for ((script, mut stream), cut_off) in scripts.iter().zip(&streams).zip(&mut cut_off) {
                if let Some(piece) = script.pieces.get(n) {
                    let _ = stream.set_write_timeout(Some(SOON));
                    *cut_off |= stream.write_all(piece).is_err();
                }
            }
        }
        for ((script, stream), cut_off) in scripts.iter().zip(streams).zip(cut_off) {
            if script.stays {
                let answers = listen(&stream)?;
                // What HEAD is answered cannot be told from what GET is.
                if !cut_off && !script.contains("head") {
                    expect_answers(&answers)?;
                }
            }
        }
        self.absurd += scripts.iter().filter(|script| script.is_absurd()).count();
        self.rounds += 1;
        self.is_unharmed()
    }

    fn is_unharmed(&mut self) -> Result<(), String> {
        let value = format!("{:020}", self.rounds).repeat(60);
        let new = Client::try_connect(self.server.address).map_err(|it| it.to_string())?;
        for client in [&mut self.steady, &mut { new }] {
            // 1200 bytes take another way than 600.
            for value in [&value[..], &value[..600]] {
                client.send("PUT", "/kv/steady", value).expect(200, "");
                client.send("GET", "/kv/steady", "").expect(200, value);
            }
        }
        let deadline = Instant::now() + SOON;
        loop {
            let (now, before) = (Usage::of(&self.server), self.before);
            // tiny_http's threads stay for a while, so there may be one for each script of some rounds.
            let few = now.descriptors <= before.descriptors
                && now.threads < before.threads + 500 + self.absurd;
            let little = now.memory < before.memory + (96 << 20) + self.absurd as u64 * 32_000;
            if few && little {
                break;
            }
            if Instant::now() >= deadline {
                return Err(format!("{now} after {before}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.rounds.is_multiple_of(100) {
            self.steady.send("DELETE", "/clear", "").expect(200, "");
            self.steady
                .send("PUT", "/kv/big", "v".repeat(100_000))
                .expect(200, "");
        }
        Ok(())
    }
}

/// Reads what a client is answered, to the end, which must come. Nothing, where that was a reset: it takes along what has
/// not been read yet.
fn listen(mut stream: &TcpStream) -> Result<Vec<u8>, String> {
    let ended = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(SOON));
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let answered = bytes.escape_ascii().to_string();
            Err(format!("no end, after {answered:.300}"))
        }
        Ok(_) if ended.is_ok() => Ok(bytes),
        _ => Ok(Vec::new()),
    }
}

/// Checks that these are whole answers, none of which says that the server has failed.
fn expect_answers(bytes: &[u8]) -> Result<(), String> {
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = after_answer(rest).ok_or_else(|| {
            let (all, rest) = (bytes.escape_ascii().to_string(), rest.escape_ascii());
            format!(
                "not an answer: {:.1000}, at the end of {all:.1000}",
                rest.to_string()
            )
        })?;
    }
    Ok(())
}

/// What comes behind the answer at the beginning; `None` if that is none, or says that the server has failed.
fn after_answer(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, mut rest) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 4..]);
    let mut lines = head.split("\r\n");
    let line = lines.next()?;
    let status: u16 = line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let header = |name: &str| {
        let mut values = lines.clone().filter_map(|line| line.split_once(": "));
        values.find_map(|(it, value)| it.eq_ignore_ascii_case(name).then_some(value))
    };
    if status == 500 {
        return None;
    }
    if status == 100 {
        return Some(rest);
    }
    if let Some(length) = header("content-length") {
        return rest.get(length.parse().ok()?..);
    }
    if header("transfer-encoding") != Some("chunked") {
        return Some(&[]);
    }
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        let chunk = rest.get(end + 2..end + 2 + length + 2)?;
        if !chunk.ends_with(b"\r\n") {
            return None;
        }
        rest = &rest[end + 2 + length + 2..];
        if length == 0 {
            return Some(rest);
        }
    }
}

/// So many cases. One that fails names its seed: `.minimize()` behind it looks for a short one.
fn run(target: &RefCell<Option<Target>>, seed: u64, cases: u64, tame: bool) {
    /// How much chance there is to a case, in bytes.
    const SIZE: u64 = 1000;
    let wild = |script: &Script| {
        script.is_absurd() || script.contains("http/2.0") || script.contains("http/3.0")
    };
    for case in seed..seed + cases {
        arbtest(|u| {
            let mut scripts = Vec::new();
            for _ in 0..u.int_in_range(1..=19)? {
                scripts.push(script(u)?);
            }
            if tame {
                scripts.retain(|script| !wild(script));
            }
            // After a failure, a new one.
            let mut current = target.take().unwrap_or_else(Target::start);
            let played = current.play(&scripts);
            played.unwrap_or_else(|failure| panic!("{failure}: {scripts:?}"));
            target.replace(Some(current));
            Ok(())
        })
        .seed((case << 32) | SIZE);
    }
}

#[test]
fn whatever_bytes_come_the_server_stays_what_it_was() {
    run(&RefCell::new(None), 6_000, 300, false);
}

/// For TESTS_FUZZ_SECONDS (1800), from TESTS_FUZZ_SEED (the clock) on. With TESTS_FUZZ_TAME, without what is
/// known to leave something behind.
#[test]
#[ignore = "takes half an hour"]
#[expect(clippy::print_stderr, reason = "the seed, and how it goes")]
fn whatever_bytes_come_for_long_the_server_stays_what_it_was() {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let time = Duration::from_secs(number("TESTS_FUZZ_SECONDS").unwrap_or(1800));
    let tame = env::var_os("TESTS_FUZZ_TAME").is_some();
    let clock = || std::process::id().into();
    let mut seed = number("TESTS_FUZZ_SEED").unwrap_or_else(clock);
    let (target, started) = (RefCell::new(None), Instant::now());
    let mut reported = started;
    while started.elapsed() < time {
        run(&target, seed, 200, tame);
        seed += 200;
        if reported.elapsed() > Duration::from_secs(30)
            && let Some(target) = &*target.borrow()
        {
            reported = Instant::now();
            let (now, before) = (Usage::of(&target.server), target.before);
            let (seconds, rounds) = (started.elapsed().as_secs(), target.rounds);
            eprintln!("{seconds} s, next seed {seed}, {rounds} rounds: {now}; at first {before}");
        }
    }
}
