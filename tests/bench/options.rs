//! The command line.

use std::env;
use std::path::{Path, PathBuf};

use argh::FromArgs;

/// Compares threadkv with its peers, under the same loads, in alternation: cargo bench -- OPTIONS
#[derive(FromArgs)]
pub struct Args {
    /// measurements of each server under each load (default 5)
    #[argh(option)]
    rounds: Option<u32>,

    /// seconds a measurement takes (default 3)
    #[argh(option)]
    seconds: Option<u32>,

    /// three rounds of one second
    #[argh(switch)]
    quick: bool,

    /// only the load of this name, or those with this in their names; can be given several times
    #[argh(option)]
    only: Vec<String>,

    /// also look for pauses, which takes some minutes and gigabytes
    #[argh(switch)]
    pauses: bool,

    /// keys there are while looking for pauses (default 10000000)
    #[argh(option, default = "10_000_000")]
    pause_keys: u32,

    /// where servers keep their data; a real disk (default target/bench/work)
    #[argh(option)]
    work_dir: Option<PathBuf>,

    /// say the names of the loads and do nothing
    #[argh(switch)]
    pub list: bool,

    /// be the bare tiny_http that is compared, on this port
    #[argh(option, hidden_help)]
    pub bare: Option<u16>,

    /// what cargo gives to every benchmark
    #[argh(switch, hidden_help)]
    #[expect(dead_code, reason = "there is nothing else to run")]
    bench: bool,
}

/// What is to be done.
pub struct Options {
    pub rounds: u32,
    pub seconds: u32,
    only: Vec<String>,
    loads: Vec<String>,
    pauses: bool,
    pub pause_keys: u32,
    pub work_directory: PathBuf,
    /// Where the results go.
    pub results: PathBuf,
}

impl Args {
    /// `loads` are the names of all.
    pub fn check(self, loads: Vec<String>) -> Result<Options, String> {
        let (rounds, seconds) = if self.quick { (3, 1) } else { (5, 3) };
        let results = target_directory().join("bench");
        let options = Options {
            rounds: self.rounds.unwrap_or(rounds),
            seconds: self.seconds.unwrap_or(seconds),
            only: self.only,
            loads,
            pauses: self.pauses,
            pause_keys: self.pause_keys,
            work_directory: self.work_dir.unwrap_or_else(|| results.join("work")),
            results,
        };
        if options.rounds == 0 || options.seconds == 0 || options.pause_keys == 0 {
            return Err("--rounds, --seconds and --pause-keys must be 1 or more".into());
        }
        Ok(options)
    }
}

impl Options {
    /// Whether a load is to be run.
    pub fn wants(&self, load: &str) -> bool {
        let names = |part: &String| match self.loads.contains(part) {
            true => load == part,
            false => load.contains(part.as_str()),
        };
        self.only.is_empty() || self.only.iter().any(names)
    }

    /// Whether to look for pauses, which has to be asked for.
    pub fn wants_pauses(&self, load: &str) -> bool {
        if self.only.is_empty() {
            self.pauses
        } else {
            self.wants(load)
        }
    }
}

/// Where cargo has put the server.
fn target_directory() -> PathBuf {
    let server = Path::new(env!("CARGO_BIN_EXE_threadkv"));
    let target = server.ancestors().nth(2);
    target.map_or_else(env::temp_dir, Path::to_path_buf)
}
