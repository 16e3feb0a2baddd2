//! Raw bytes into a live server: valid requests, mangled, in pieces, in pipelines, broken off, and noise. Whatever comes,
//! each connection ends, each answer is one, and the server stays what it was.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use std::{env, fmt};

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;

use crate::client::Client;
use crate::process::Server;
use crate::usage::Usage;

/// Requests as they should be; each `~` stands for what is too long to write down.
const REQUESTS: &[&str] = &[
    "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /kv/big HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HEAD /kv/big HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /kv/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    "PUT /kv/%61 HTTP/1.1\r\nHost: localhost\r\ncontent-length: 3000\r\n\r\n~",
    "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3e8;x=y\r\n~\r\n0\r\n\r\n",
    "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    "DELETE /kv/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "GET /api/v1/kv?limit=3&prefix=a&after=a&with_ttl=true HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "PUT /api/v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n{\"value\":{\"a\":[1,2.5,\"\\u00e9\"]},\"ttl\":60}",
    "GET /api/v1/kv/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer abc\r\n\r\n",
    "GET /api/v1/kv/big HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /api/v1/kv/a/ttl HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST /api/v1/kv/a/touch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{\"ttl\":60}",
    "POST /api/v1/kv/bulk HTTP/1.1\r\nHost: localhost\r\nContent-Length: 56\r\n\r\n{\"operations\":[{\"key\":\"a\",\"value\":1,\"ttl\":6},{\"key\":\"b\"}]",
    "POST /api/v1/kv/bulk/get HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\n{\"keys\":[\"a\",\"b\"]}",
    "POST /api/v1/kv/bulk/delete HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n{\"keys\":[\"a\",\"b\"]}\r\n0\r\n\r\n",
    "GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /kv/a HTTP/2.0\r\n\r\n",
];

/// What has broken servers before.
const TOKENS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\0",
    " ",
    "\t",
    ":",
    ": ",
    ";",
    ",",
    "/",
    "?",
    "%",
    "%00",
    "%zz",
    "..",
    "\u{7f}",
    "é",
    "0\r\n\r\n",
    "[[[[[[[[",
    "\"",
    "\\u",
    "{",
    "}",
];

/// The same, as lines of a head.
const LINES: &[&str] = &[
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: 2000",
    "Content-Length: 99999999999999",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: upgrade",
    ":",
    "X:",
    "X: \0",
    " folded",
    "Host",
    "",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n",
];

/// The same, as numbers: lengths of bodies and chunks, times, limits, statuses, and versions.
const NUMBERS: &[&str] = &[
    "",
    "0",
    "00",
    "-1",
    "+5",
    "5.",
    "9",
    "2",
    "3",
    "1024",
    "1025",
    "65536",
    "70000000",
    "1000000000",
    "99999999999999",
    "18446744073709551615",
    "ffffffffffffffff",
    "fffffffffffffffff",
    "1e9",
];

/// How long whatever must happen may take.
const SOON: Duration = Duration::from_secs(15);

/// What a client sends, in pieces, and how it goes on then.
#[derive(Clone)]
struct Script {
    pieces: Vec<Vec<u8>>,
    /// Whether it waits for the answers, having said that nothing more will come, or is gone.
    stays: bool,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.stays { "stays: " } else { "leaves: " })?;
        for piece in &self.pieces {
            write!(f, "\"{:.1000}\" ", piece.escape_ascii().to_string())?;
        }
        Ok(())
    }
}

fn script(u: &mut Unstructured<'_>) -> Result<Script> {
    let mut bytes = Vec::new();
    if u.ratio(1, 13)? {
        let length = u.int_in_range(0..=300)?.min(u.len());
        bytes.extend(u.bytes(length)?);
    } else {
        for _ in 0..u.int_in_range(1..=5)? {
            bytes.extend(u.choose(REQUESTS)?.replace('~', &"v".repeat(3000)).bytes());
        }
        for _ in 0..u.int_in_range(0..=4)? {
            mangle(u, &mut bytes)?;
        }
    }
    let mut pieces = Vec::new();
    for _ in 0..u.int_in_range(0..=3)? {
        let cut = u.int_in_range(0..=bytes.len())?;
        pieces.push(bytes.drain(..cut).collect());
    }
    pieces.push(bytes);
    let stays = u.ratio(7, 10)?;
    Ok(Script { pieces, stays })
}

/// Changes something.
fn mangle(u: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    let length = bytes.len();
    if length == 0 {
        return Ok(());
    }
    let at = u.choose_index(length)?;
    match u.int_in_range(0..=6)? {
        0 => bytes[at] = u.arbitrary()?,
        1 => drop(bytes.splice(at..at, u.choose(TOKENS)?.bytes())),
        // In the place of one of the numbers.
        2 => {
            let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
            let starts = (0..length).filter(|&at| is_digit(at) && (at == 0 || !is_digit(at - 1)));
            let starts: Vec<usize> = starts.collect();
            if !starts.is_empty() {
                let start = *u.choose(&starts)?;
                let end = (start..).find(|&at| !is_digit(at)).unwrap_or(length);
                bytes.splice(start..end, u.choose(NUMBERS)?.bytes());
            }
        }
        // Before one of the lines.
        3 => {
            let starts = (0..length).filter(|&at| at == 0 || bytes[at - 1] == b'\n');
            let start = *u.choose(&starts.collect::<Vec<usize>>())?;
            let line = format!("{}\r\n", u.choose(LINES)?);
            bytes.splice(start..start, line.bytes());
        }
        4 => {
            let end = length.min(at + u.int_in_range(1..=199)?);
            let part = bytes[at..end].repeat(u.int_in_range(1..=49)?);
            bytes.splice(at..at, part);
        }
        5 => drop(bytes.drain(at..length.min(at + u.int_in_range(1..=19)?))),
        _ => bytes.truncate(at),
    }
    Ok(())
}

impl Script {
    fn bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    /// Whether it may leave something behind that tiny_http does not let go of: announces bytes by the gigabyte.
    fn is_absurd(&self) -> bool {
        let bytes = self.bytes();
        bytes
            .windows(8)
            .any(|digits| digits.iter().all(u8::is_ascii_digit))
    }

    fn contains(&self, text: &str) -> bool {
        let bytes = self.bytes().to_ascii_lowercase();
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    }
}

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
    fn play(&mut self, scripts: &[Script]) -> std::result::Result<(), String> {
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
    run(&RefCell::new(None), 6_000, 1000, false);
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
