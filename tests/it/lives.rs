//! Lives of servers: processes that a script asks for something, on disks that may fail.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::client::Client;
use crate::directory::Directory;
use crate::faults::Faults;
use crate::process::{Server, wait_for};
use crate::script::{Known, SNAPSHOT_AFTER, State, Step, first_steps, second_steps, third_steps};
use crate::trace::{self, Call};

/// All that a server holds; `None` if it has ended.
fn try_state(server: &Server) -> Option<State> {
    let mut client = Client::try_connect(server.address).ok()?;
    let list = "GET /api/v1/kv?with_ttl=true&limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.try_write(list).ok()?;
    let answer = client.try_read("GET").ok()?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut answer = answer.json();
    let serde_json::Value::Object(data) = answer["data"].take() else {
        panic!("{answer}");
    };
    let entry = |(key, value): (String, serde_json::Value)| {
        let text = value["value"].as_str().unwrap().to_owned();
        (key, (text, !value["ttl"].is_null()))
    };
    Some(data.into_iter().map(entry).collect())
}

/// All that a server holds.
pub fn state(server: &Server) -> State {
    try_state(server).expect("it has ended")
}

/// The options of all servers here.
fn options(durability: &'static str) -> Vec<&'static str> {
    vec![
        "--durability",
        durability,
        "--snapshot-after",
        SNAPSHOT_AFTER,
    ]
}

/// A server whose disk is in order, in the directory `data` below `watched`.
pub fn sound(watched: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command
        .args(["--port", "0", "--working-dir"])
        .arg(watched.join("data"))
        .args(options);
    command
}

/// The snapshot that is there, if there is one alone, and nothing of the log that it has replaced.
fn settled_snapshot(watched: &Path) -> Option<String> {
    let files = fs::read_dir(watched.join("data")).ok()?;
    let names: Vec<String> = files
        .flatten()
        .filter_map(|it| it.file_name().into_string().ok())
        .collect();
    let mut snapshots = names
        .iter()
        .filter_map(|name| name.strip_prefix("snapshot-"));
    let number = snapshots.next()?;
    let mut logs = names.iter().filter_map(|name| name.strip_prefix("log-"));
    (snapshots.next().is_none() && logs.all(|log| log >= number)).then(|| number.to_owned())
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has been carried out.
    Done,
    /// There is no such key, and nothing has happened.
    Missing,
    /// It has been refused, and nothing has happened.
    Refused,
    /// The disk has failed, and nobody knows what it has kept.
    Unknown,
}

impl Answer {
    pub fn failed(self) -> bool {
        matches!(self, Answer::Refused | Answer::Unknown)
    }
}

/// What a client sees.
pub enum Event<'a> {
    /// The server has started, and shows this.
    Started(&'a State),
    /// It has answered to the step with this number.
    Answered(usize, Answer),
}

/// How a server ended.
#[derive(Debug)]
pub enum End {
    /// It did not start, and said why.
    Refused(ExitStatus, Vec<String>),
    /// It was killed by its plan.
    Killed,
    /// The script came to its end: it was told to end, and did, or has been killed.
    Over(ExitStatus),
}

/// A part of the script: what one process is asked for.
pub struct Scenario {
    pub name: &'static str,
    pub options: Vec<&'static str>,
    /// The files that it begins with, below the directory `data`.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// What is in them.
    pub known: Known,
    pub steps: Vec<Step>,
    /// Whether it ends in order, with SIGTERM.
    pub stops: bool,
}

impl Scenario {
    /// The directory as it is at the beginning.
    pub fn directory(&self) -> Directory {
        let directory = Directory::new();
        write_files(&directory.path().join("data"), &self.files);
        directory
    }

    /// Runs it in a directory, and calls `on` with what happens.
    pub fn run(
        &self,
        watched: &Path,
        faults: &Faults,
        known: &mut Known,
        mut on: impl FnMut(Event<'_>),
    ) -> End {
        let mut server = match Server::try_spawn(faults.server(watched, &self.options)) {
            Ok(server) => server,
            Err((status, _)) if status.signal() == Some(9) => return End::Killed,
            Err((status, lines)) => return End::Refused(status, lines),
        };
        let Ok(mut client) = Client::try_connect(server.address) else {
            return killed(server);
        };
        let Some(found) = try_state(&server) else {
            return killed(server);
        };
        on(Event::Started(&found));
        known.expect(found, self.name);
        for (number, step) in self.steps.iter().enumerate() {
            let before = settled_snapshot(watched);
            let Ok(response) = step.send(&mut client) else {
                known.asked(step);
                return killed(server);
            };
            let answer = match response.status {
                200 => Answer::Done,
                404 => Answer::Missing,
                503 if response.text().contains("cannot be written to") => Answer::Refused,
                // The other API has one message for both.
                503 if response.text().contains("CLUSTER_UNAVAILABLE") => Answer::Unknown,
                503 if response.text().contains("the disk failed") => Answer::Unknown,
                _ => panic!("{response:?}"),
            };
            match answer {
                Answer::Done => known.carried_out(step),
                Answer::Missing => assert!(known.may_miss(step), "{}: step {number}", self.name),
                Answer::Refused => {}
                Answer::Unknown => known.asked(step),
            }
            on(Event::Answered(number, answer));
            if matches!(step, Step::PutLarge(..)) && answer == Answer::Done {
                wait_for("a snapshot", || {
                    let there = settled_snapshot(watched).filter(|it| Some(it) != before.as_ref());
                    (there.is_some()
                        || server.has_ended()
                        || server.has_logged("cannot write a snapshot")
                        || server.has_logged("cannot sync")
                        || server.has_logged("cannot delete"))
                    .then_some(())
                });
            }
        }
        // What goes on in the background may still have met the plan's end.
        let Some(found) = try_state(&server) else {
            return killed(server);
        };
        // Nothing shows before it counts.
        known.clone().expect(found, "at the end of the script");
        drop(client); // an open connection is waited for
        server.signal(if self.stops { "-TERM" } else { "-KILL" });
        let (status, _) = server.wait();
        match status.signal() {
            Some(9) if self.stops => End::Killed,
            _ => End::Over(status),
        }
    }
}

/// A server that has ended without having been told to.
fn killed(mut server: Server) -> End {
    let (status, log) = server.wait();
    assert_eq!(status.signal(), Some(9), "{log:#?}");
    End::Killed
}

/// Starts a server on a disk in order, and kills it again: what is there is possible, and it can write.
pub fn expect_all_there(scenario: &Scenario, watched: &Path, known: &mut Known, label: &str) {
    let start = || {
        Server::try_spawn(sound(watched, &scenario.options))
            .unwrap_or_else(|(status, lines)| panic!("{label}: {status}: {lines:#?}"))
    };
    let server = start();
    known.expect(state(&server), label);
    let step = Step::Put("afterwards", label.to_owned());
    let answer = step.send(&mut server.connect()).unwrap();
    assert_eq!(answer.status, 200, "{label}: {answer:?}");
    known.carried_out(&step);
    known.clone().expect(state(&server), label);
    drop(server);
    known.expect(
        state(&start()),
        &format!("{label}, and a kill after the next write"),
    );
}

/// The parts of the script, in the order of a store's life.
pub fn scenarios(durability: &'static str) -> Vec<Scenario> {
    let first = Scenario {
        name: "first life",
        options: options(durability),
        files: Vec::new(),
        known: Known::nothing(),
        steps: first_steps(),
        stops: true,
    };
    let (files, known) = play(&first, &Faults::default());
    let second = Scenario {
        name: "restart",
        options: options(durability),
        files,
        known,
        steps: second_steps(),
        stops: false,
    };
    let (files, known) = play(&second, &torn_at_the_end(&second));
    let third = Scenario {
        name: "start with a torn end",
        options: options(durability),
        files,
        known,
        steps: third_steps(),
        stops: true,
    };
    vec![first, second, third]
}

/// The last of its writes is carried out by half.
pub fn torn_at_the_end(scenario: &Scenario) -> Faults {
    let calls = trace_of(scenario);
    let counted = calls.iter().filter(|call| call.changes());
    let writes = counted.enumerate().filter(|(_, call)| call.writes());
    let (last, _) = writes.last().unwrap();
    Faults::plan(format!("half@{last}"))
}

/// The calls of a run without faults.
pub fn trace_of(scenario: &Scenario) -> Vec<Call> {
    let (directory, trace) = (scenario.directory(), Directory::new());
    let path = trace.path().join("trace");
    let faults = Faults::trace(path.clone());
    scenario.run(
        directory.path(),
        &faults,
        &mut scenario.known.clone(),
        |_| {},
    );
    trace::read(&path)
}

/// What a run leaves.
fn play(scenario: &Scenario, faults: &Faults) -> (Vec<(PathBuf, Vec<u8>)>, Known) {
    let directory = scenario.directory();
    let mut known = scenario.known.clone();
    scenario.run(directory.path(), faults, &mut known, |_| {});
    (files(&directory.path().join("data")), known)
}

/// All files below a directory, with their paths relative to it.
pub fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    directories.retain(|directory| directory.exists());
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let relative = path.strip_prefix(directory).unwrap().to_owned();
                // A snapshot that is being written may go meanwhile.
                found.extend(fs::read(path).ok().map(|bytes| (relative, bytes)));
            }
        }
    }
    found.sort();
    found
}

pub fn write_files(directory: &Path, files: &[(PathBuf, Vec<u8>)]) {
    for (path, bytes) in files {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
