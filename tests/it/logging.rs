//! Whoever does not take the log lines holds up nobody.

use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStderr, Command, Stdio};
use std::thread;

use crossbeam_channel::{Receiver, unbounded};

use crate::process::{PATIENCE, Server};

/// Requests whose lines are longer together than a pipe and the queue of lines are.
pub const REQUESTS: usize = 3000;

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command.args(["--port=0", "--log-level=debug"]);
    command
}

/// Makes the server log megabytes.
pub fn make_noise(server: &Server) {
    let mut client = server.connect();
    let path = format!("/kv/{}", "k".repeat(1000));
    for _ in 0..REQUESTS {
        client.send("GET", &path, "").expect(404, "key not found\n");
    }
}

/// The lines of a pipe, as they come.
pub fn read_lines(pipe: ChildStderr) -> Receiver<String> {
    let (sender, lines) = unbounded();
    let mut read = BufReader::new(pipe).lines().map_while(Result::ok);
    thread::spawn(move || read.try_for_each(|line| sender.send(line)));
    lines
}

#[test]
fn a_pipe_that_nobody_reads_stops_neither_requests_nor_the_end() {
    let mut server = Server::spawn_unheard(command(), Stdio::piped());
    make_noise(&server);
    server.signal("-TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn lines_that_were_lost_are_counted() {
    let mut server = Server::spawn_unheard(command(), Stdio::piped());
    make_noise(&server);
    let lines = read_lines(server.take_stderr());
    let next = || lines.recv_timeout(PATIENCE).expect("another line");
    let (mut requests, mut lost) = (0, 0);
    while requests + lost < REQUESTS {
        let line = next();
        if let Some((before, _)) = line.split_once(" log lines were lost") {
            let (_, number) = before.rsplit_once(' ').unwrap();
            lost += number.parse::<usize>().unwrap();
        } else if line.contains("/kv/kkk") {
            requests += 1;
        }
    }
    assert!(requests > 0 && lost > 0, "{requests} and {lost}");
    assert_eq!(requests + lost, REQUESTS);
    // And it goes on as if nothing had been.
    server.put("/kv/after", "1").expect(200, "");
    while !next().contains("/kv/after") {}
    server.signal("-TERM");
    assert_eq!(server.wait().0.code(), Some(0));
    let last: Vec<String> = lines.iter().collect();
    assert!(last.iter().any(|line| line.contains("bye")), "{last:?}");
}

#[test]
fn without_a_stderr_or_with_a_full_one_it_serves() {
    for redirection in ["2>&-", "2>/dev/full"] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!(r#"exec "$0" "$@" {redirection}"#)]);
        shell
            .arg(command().get_program())
            .args(command().get_args());
        let mut server = Server::spawn_unheard(shell, Stdio::null());
        make_noise(&server);
        server.signal("-TERM");
        assert_eq!(server.wait().0.code(), Some(0), "{redirection}");
    }
}

/// The reader has gone, as `threadkv 2>&1 | head -1` does it.
#[test]
fn a_stderr_whose_reader_has_gone_stops_nothing() {
    let mut server = Server::spawn_unheard(command(), Stdio::piped());
    let mut first = [0];
    server.take_stderr().read_exact(&mut first).unwrap();
    make_noise(&server);
    server.signal("-TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

/// What ends the server is said last, also while it loads.
#[test]
fn why_it_ends_is_said_before_it_ends() {
    let server = Server::start(&[]);
    for _ in 0..20 {
        let output = Command::new(env!("CARGO_BIN_EXE_threadkv"))
            .args(["--log-level=trace", "--durability=os"])
            .args(["--port", &server.address.port().to_string()])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].contains("[WARN] --durability"), "{said}");
        assert!(
            lines
                .last()
                .unwrap()
                .starts_with("threadkv: cannot listen on"),
            "{said}"
        );
    }
}
