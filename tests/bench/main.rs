//! Compares threadkv with its peers: the same loads on each of them, in alternation, in several rounds.
//!
//! `loads.rs` says what is asked of whom, `peers.rs` how the servers are set up, and `speed.rs` measures, with wrk;
//! `memory.rs`, `start.rs`, `watch.rs`, `many.rs` and `pauses.rs` look at the rest. What they find is kept in `results.rs`, and `bars.rs`,
//! `table.rs` and `chart.rs` show it. The README beside them has the reasons.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is for whoever runs it"
)]

mod api;
mod bare;
mod bars;
mod chart;
mod child;
mod client;
mod cluster;
mod directory;
mod interrupt;
mod loads;
mod machine;
mod many;
mod memory;
mod options;
mod pauses;
mod peers;
mod progress;
mod results;
mod running;
mod speed;
mod start;
mod table;
mod watch;
mod watchers;
mod wrk;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::child::find_program;
use crate::machine::Machine;
use crate::options::{Args, Options};
use crate::peers::Peer;
use crate::results::{Figures, Results};

/// What is measured otherwise than by wrk.
type Other = fn(&Options) -> Result<Vec<Figures>, String>;
const OTHERS: [(&str, Other); 8] = [
    (memory::KEYS, memory::of_keys),
    (memory::IDLE, memory::of_idle_connections),
    (start::NAME, start::measure),
    (watch::LATENCY, watch::latency),
    (watch::FANOUT, watch::fanout),
    (watch::ELSEWHERE, watch::elsewhere),
    (many::NAME, many::measure),
    (pauses::NAME, pauses::measure),
];

fn main() -> ExitCode {
    let args: Args = argh::from_env();
    if args.list {
        names().iter().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let done = match args.bare {
        Some(port) => bare::serve(port),
        None => args.check(names()).and_then(|options| compare(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::clear();
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The names of all loads.
fn names() -> Vec<String> {
    let others = OTHERS.map(|(name, _)| name.to_owned());
    let loads = loads::all().into_iter().map(|load| load.name);
    loads.chain(others).collect()
}

/// Runs everything that is wanted. What fails does not keep the rest from being run; that threadkv has failed is an error in the end.
fn compare(options: &Options) -> Result<(), String> {
    let mut loads = loads::all();
    loads.retain(|load| options.wants(&load.name));
    if !loads.is_empty() && find_program("wrk").is_none() {
        return Err("wrk is missing, which makes the load: apt install wrk".into());
    }
    interrupt::watch().map_err(|error| format!("cannot wait for signals: {error}"))?;
    raise_descriptor_limit();
    let machine = prepare(&options.work_directory)?;
    let (rounds, seconds) = (options.rounds, options.seconds);
    print!("{}", table::heading(&machine, rounds, seconds));
    say_what_is_missing();

    let mut results = Results {
        machine,
        rounds,
        seconds,
        speeds: Vec::new(),
        figures: Vec::new(),
    };
    if !loads.is_empty() {
        print!("{}", table::speed_heading());
    }
    for load in &loads {
        let speeds = speed::measure(load, options)?;
        progress::clear();
        print!("{}", table::speeds(&speeds));
        results.speeds.extend(speeds);
    }
    for (_, measure) in OTHERS.iter().filter(|(name, _)| wants_other(options, name)) {
        let figures = measure(options)?;
        progress::clear();
        print!("{}", table::figures(&figures));
        results.figures.extend(figures);
    }
    report(&results, options)?;
    match table::failures(&results).as_slice() {
        [] => Ok(()),
        failures => Err(format!("failed:\n{}", failures.join("\n"))),
    }
}

fn wants_other(options: &Options, name: &str) -> bool {
    match name {
        pauses::NAME => options.wants_pauses(name),
        _ => options.wants(name),
    }
}

/// Makes the directory that servers keep their data in. Syncing has to cost there what it costs on a disk.
fn prepare(work_directory: &Path) -> Result<Machine, String> {
    let path = work_directory.display();
    fs::create_dir_all(work_directory).map_err(|error| format!("{path}: {error}"))?;
    let machine = Machine::look(work_directory);
    if machine.file_system == "tmpfs" {
        return Err(format!("{path} is in memory; choose another --work-dir"));
    }
    Ok(machine)
}

/// Prints the bars, and writes everything to files.
fn report(results: &Results, options: &Options) -> Result<(), String> {
    let bars = bars::all(results);
    print!("{}", table::bars(&bars));
    let directory = &options.results;
    let path = directory.join("results.json");
    let text = json!({"results": results, "bars": bars}).to_string();
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&path, text))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    println!("\nfigures: {}", path.display());
    match chart::draw(results, directory) {
        Ok(path) => println!("chart: {}", path.display()),
        Err(error) => println!("{error}"),
    }
    Ok(())
}

/// For thousands of connections, here and in the servers, which inherit it.
fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    // Where it fails, so do the loads that need it, and say so.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn say_what_is_missing() {
    for peer in [Peer::Nginx, Peer::Redis, Peer::RedisSync, Peer::Etcd] {
        if let Some(package) = peer.missing_package() {
            println!("{} is left out: apt install {package}", peer.name());
        }
    }
}
