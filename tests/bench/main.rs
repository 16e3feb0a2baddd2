//! Compares threadkv with its peers: the same loads on each of them, in alternation, in several rounds.
//!
//! `loads.rs` says what is asked of whom, `peers.rs` how the servers are set up, and `speed.rs` puts the ones under the
//! others; `memory.rs`, `start.rs` and `pauses.rs` look at the rest. What they find is in `results.rs`, and `bars.rs`,
//! `table.rs` and `chart.rs` show it. The README beside them has the reasons.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is for whoever runs it"
)]

mod api;
mod bars;
mod chart;
mod child;
mod client;
mod directory;
mod interrupt;
mod loads;
mod machine;
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
mod wrk;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::loads::Load;
use crate::machine::Machine;
use crate::options::{Args, Options};
use crate::peers::Peer;
use crate::results::{Figures, Results};

/// What is measured otherwise than by wrk.
type Other = fn(&Options) -> Result<Vec<Figures>, String>;
const OTHERS: [(&str, Other); 4] = [
    (memory::KEYS, memory::of_keys),
    (memory::IDLE, memory::of_idle_connections),
    (start::NAME, start::measure),
    (pauses::NAME, pauses::measure),
];

fn main() -> ExitCode {
    let args: Args = argh::from_env();
    if args.list {
        let loads = loads::all();
        let names = loads.iter().map(|load| load.name.as_str());
        for name in names.chain(OTHERS.map(|(name, _)| name)) {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    match args.check().and_then(|options| compare(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::clear();
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything that is wanted. Something that fails does not keep the rest from being run, but is an error in the end.
fn compare(options: &Options) -> Result<(), String> {
    let loads: Vec<Load> = loads::all();
    let loads: Vec<Load> = loads
        .into_iter()
        .filter(|load| options.wants(&load.name))
        .collect();
    let others = OTHERS.into_iter().filter(|(name, _)| match *name {
        pauses::NAME => options.wants_pauses(name),
        _ => options.wants(name),
    });
    if !loads.is_empty() && child::find_program("wrk").is_none() {
        return Err("wrk is missing, which makes the load: apt install wrk".into());
    }
    interrupt::watch().map_err(|error| format!("cannot wait for signals: {error}"))?;
    raise_descriptor_limit();
    make_directory(&options.work_directory)?;
    let machine = Machine::look(&options.work_directory);
    if machine.file_system == "tmpfs" {
        let directory = options.work_directory.display();
        return Err(format!(
            "{directory} is not on a disk; choose another --work-dir"
        ));
    }
    print!(
        "{}",
        table::heading(&machine, options.rounds, options.seconds)
    );
    if machine.is_busy() {
        println!(
            "the machine is busy with something else, which hits some servers harder than others"
        );
    }
    say_what_is_missing();

    let mut results = Results {
        machine,
        rounds: options.rounds,
        seconds: options.seconds,
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
    for (_, measure) in others {
        let figures = measure(options)?;
        progress::clear();
        print!("{}", table::figures(&figures));
        results.figures.extend(figures);
    }
    let bars = bars::all(&results);
    print!("{}", table::bars(&bars));

    let report = options.results.join("results.json");
    let text = json!({"results": results, "bars": bars}).to_string();
    fs::write(&report, text).map_err(|error| format!("{}: {error}", report.display()))?;
    println!("\nall of it is in {}", report.display());
    match chart::draw(&results, &options.results) {
        Ok(()) => println!(
            "and as a chart in {}",
            options.results.join("peers.svg").display()
        ),
        Err(error) => println!("{error}"),
    }
    match table::failures(&results).as_slice() {
        [] => Ok(()),
        failures => Err(format!(
            "{} have failed:\n{}",
            failures.len(),
            failures.join("\n")
        )),
    }
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

fn make_directory(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn say_what_is_missing() {
    for peer in [Peer::Nginx, Peer::Redis, Peer::RedisSync, Peer::Etcd] {
        if let Some(package) = peer.missing_package() {
            println!("{} is left out: apt install {package}", peer.name());
        }
    }
}
