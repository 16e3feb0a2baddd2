//! The machine and the programs on it, since figures mean nothing without.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde::Serialize;

use crate::peers::Peer;

#[derive(Serialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: String,
    pub kernel: String,
    /// Of the disk that data is on.
    pub file_system: String,
    /// Of the minute before the start.
    pub load_average: f64,
    pub programs: Vec<String>,
}

impl Machine {
    pub fn look(work_directory: &Path) -> Machine {
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let processors = read("/proc/cpuinfo");
        let processor = processors
            .lines()
            .find(|line| line.starts_with("model name"));
        let processor = processor.and_then(|line| line.split(": ").nth(1));
        let packages = [Peer::Nginx, Peer::Redis, Peer::Etcd];
        let packages = packages.iter().flat_map(|peer| peer.programs());
        let packages = packages.map(|(_, package)| *package).chain(["wrk"]);
        let version = |package: &str| {
            let query = ["-W", "-f", "${Package} ${Version}", package];
            output(Command::new("dpkg-query").args(query))
        };
        let load_average = read("/proc/loadavg")
            .split(' ')
            .next()
            .and_then(|it| it.parse().ok());
        let threadkv = concat!("threadkv ", env!("CARGO_PKG_VERSION")).to_owned();
        Machine {
            cores,
            processor: processor.unwrap_or("unknown processor").to_owned(),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            file_system: output(
                Command::new("stat")
                    .args(["-f", "-c", "%T"])
                    .arg(work_directory),
            )
            .unwrap_or_else(|| "unknown".into()),
            load_average: load_average.unwrap_or(0.0),
            programs: [threadkv]
                .into_iter()
                .chain(packages.filter_map(version))
                .collect(),
        }
    }

    /// Whether others take so much of it that it shows in what is measured.
    pub fn is_busy(&self) -> bool {
        self.load_average > self.cores as f64 / 2.0
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What a program prints; nothing if it fails or is not there.
fn output(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned())
}
