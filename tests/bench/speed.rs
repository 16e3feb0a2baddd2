//! Puts servers under a load, one after the other, in several rounds.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::directory::Directory;
use crate::interrupt;
use crate::loads::{Contender, FIRST_KEY, Load};
use crate::options::Options;
use crate::progress;
use crate::results::Speed;
use crate::running::Running;
use crate::wrk::{self, Requests, Sample};

/// A server that is ready for a load. Not running while it is not its turn.
struct Ready {
    // Before the directory, so that it has ended when that is removed.
    server: Running,
    requests: Requests,
    directory: Directory,
}

/// Measures all contenders. What fails for one of them is in its result.
pub fn measure(load: &Load, options: &Options) -> Result<Vec<Speed>, String> {
    let contenders = load.contenders.iter();
    let mut all = Vec::new();
    for contender in contenders.filter(|contender| contender.peer.missing_package().is_none()) {
        let ready = prepare(load, contender, options);
        interrupt::check()?;
        let (ready, error) = split(ready);
        let speed = Speed {
            load: load.name.clone(),
            server: contender.name,
            samples: Vec::new(),
            error,
        };
        all.push((contender, ready, speed));
    }
    for round in 0..options.rounds {
        let first = round as usize % all.len().max(1);
        // Somebody else is first each time, since what comes first may find the machine in another state.
        let (later, sooner) = all.split_at_mut(first);
        for (_, ready, speed) in sooner.iter_mut().chain(later) {
            let (name, rounds) = (&load.name, options.rounds);
            progress::show(&format!(
                "{name}: {}, round {} of {rounds}",
                speed.server,
                round + 1
            ));
            let Some(ready) = ready.as_ref().filter(|_| speed.error.is_none()) else {
                continue;
            };
            match run(load, ready, options.seconds) {
                Ok(sample) => speed.samples.push(sample),
                Err(error) => speed.error = Some(error),
            }
            interrupt::check()?;
        }
    }
    for (contender, ready, speed) in &mut all {
        if let (Some(ready), None) = (ready, &speed.error) {
            ready.server.signal(Signal::CONT);
            speed.error = check(load, contender, &ready.server).err();
        }
    }
    Ok(all.into_iter().map(|(_, _, speed)| speed).collect())
}

fn split<T>(result: Result<T, String>) -> (Option<T>, Option<String>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(error)),
    }
}

/// Starts a server, gives it the keys, checks one, and warms it up.
fn prepare(load: &Load, contender: &Contender, options: &Options) -> Result<Ready, String> {
    progress::show(&format!("{}: starting {}", load.name, contender.name));
    let directory = Directory::new(&options.work_directory)?;
    let server = contender.peer.start(directory.path())?;
    if load.needs_keys() {
        server.fill(load.keys, load.value_bytes)?;
        check(load, contender, &server)?;
    }
    let requests = load.requests(contender.api, &server);
    let requests = Requests::write(directory.path(), requests)?;
    let ready = Ready {
        server,
        requests,
        directory,
    };
    run(load, &ready, 1)?;
    Ok(ready)
}

/// One measurement. What a server goes on doing afterwards, it does in its own time, and not in that of the next one.
fn run(load: &Load, ready: &Ready, seconds: u32) -> Result<Sample, String> {
    let Ready {
        server,
        requests,
        directory,
    } = ready;
    server.signal(Signal::CONT);
    let sample = wrk::run(
        server,
        requests,
        load.connections,
        seconds,
        directory.path(),
    );
    server.signal(Signal::STOP);
    sample
}

/// Errors may be answered as successes are, so a key is looked at. More than once, since webdis gives the answers for
/// clients that have gone to whoever comes next.
fn check(load: &Load, contender: &Contender, server: &Running) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let checked = server.expect(contender.api, FIRST_KEY, load.value_bytes);
        if checked.is_ok() || Instant::now() > deadline {
            return checked;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
