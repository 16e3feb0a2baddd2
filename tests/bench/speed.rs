//! Puts servers under a load, one after the other, in several rounds.

use std::thread;
use std::time::{Duration, Instant};

use crate::directory::Directory;
use crate::interrupt;
use crate::loads::{Contender, FIRST_KEY, Load, Work};
use crate::options::Options;
use crate::progress;
use crate::results::Speed;
use crate::running::Running;
use crate::wrk::{self, Requests, Sample};

/// For caches to fill, and memory and files to grow.
const WARM_UP_SECONDS: u32 = 1;

/// Measures all contenders. What fails for one of them is in its result.
pub fn measure(load: &Load, options: &Options) -> Result<Vec<Speed>, String> {
    let installed = |it: &&Contender| it.peer.missing_package().is_none();
    let mut all: Vec<(&Contender, Speed)> = Vec::new();
    for contender in load.contenders.iter().filter(installed) {
        let speed = Speed {
            load: load.name.clone(),
            server: contender.name,
            ours: contender.peer.is_ours(),
            samples: Vec::new(),
            error: None,
        };
        all.push((contender, speed));
    }
    for round in 0..options.rounds {
        let first = round as usize % all.len().max(1);
        // Somebody else is first each time, since what comes first may find the machine in another state.
        let (later, sooner) = all.split_at_mut(first);
        for (contender, speed) in sooner.iter_mut().chain(later) {
            if speed.error.is_some() {
                continue;
            }
            let (name, rounds) = (&load.name, options.rounds);
            progress::show(&format!(
                "{name}: {}, round {} of {rounds}",
                speed.server,
                round + 1
            ));
            match take_turn(load, contender, options) {
                Ok(sample) => speed.samples.push(sample),
                Err(error) => speed.error = Some(error),
            }
            interrupt::check()?;
        }
    }
    Ok(all.into_iter().map(|(_, speed)| speed).collect())
}

/// Starts a server, gives it the keys, warms it up, measures it once, and kills it. So each one has the machine for itself, and
/// what it goes on doing afterwards is nobody else's.
fn take_turn(load: &Load, contender: &Contender, options: &Options) -> Result<Sample, String> {
    let directory = Directory::new(&options.work_directory)?; // removed when the server has ended
    let server = contender.peer.start(directory.path())?;
    if load.needs_keys() {
        server.fill(load.keys, load.value_bytes)?;
        check(load, contender, &server)?;
    }
    let requests = load.requests(contender.api, &server);
    let requests = Requests::write(directory.path(), requests)?;
    let run = |seconds| {
        wrk::run(
            &server,
            &requests,
            load.connections,
            seconds,
            directory.path(),
        )
    };
    run(WARM_UP_SECONDS)?;
    let sample = run(options.seconds)?;
    if load.work != Work::BulkDelete {
        check(load, contender, &server)?;
    }
    Ok(sample)
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
