//! Load, from wrk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::child::{Child, find_program};
use crate::running::Running;

/// What one measurement found.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Requests a second.
    pub rate: f64,
    /// Response times in milliseconds.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// What `load.lua` prints. Times are in microseconds.
#[derive(Deserialize)]
struct Done {
    requests: u64,
    duration: u64,
    connect: u64,
    read: u64,
    write: u64,
    status: u64,
    timeout: u64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// Requests, ready to be sent.
pub struct Requests(PathBuf);

impl Requests {
    pub fn write(
        directory: &Path,
        requests: impl Iterator<Item = Vec<u8>>,
    ) -> Result<Requests, String> {
        let path = directory.join("requests");
        let written = File::create(&path).and_then(|file| {
            let mut file = BufWriter::new(file);
            for request in requests {
                writeln!(file, "{}", request.len())?;
                file.write_all(&request)?;
                writeln!(file)?;
            }
            file.into_inner().map_err(io::Error::from)
        });
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Requests(path))
    }
}

/// Sends requests for so many seconds. Anything but success is an error.
pub fn run(
    server: &Running,
    requests: &Requests,
    connections: u32,
    seconds: u32,
    directory: &Path,
) -> Result<Sample, String> {
    let wrk = find_program("wrk").ok_or("wrk is not installed")?;
    let mut command = Command::new(wrk);
    command
        .args(["--threads", "1", "--timeout", "30s", "--script"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/load.lua"))
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{seconds}s")])
        .arg(format!("http://{}/", server.address))
        .arg("--")
        .arg(&requests.0);
    let output = Child::spawn("wrk", command, directory)?.finish()?;
    let line = output.lines().last().unwrap_or_default();
    let done: Done =
        serde_json::from_str(line).map_err(|error| format!("wrk: {error}: {output}"))?;
    let errors = [
        (done.connect, "failed connections"),
        (done.read, "failed reads"),
        (done.write, "failed writes"),
        (done.timeout, "requests without an answer in 30 seconds"),
        (done.status, "answers with a status of 400 or more"),
    ];
    let errors = errors.iter().filter(|(count, _)| *count > 0);
    let errors: Vec<String> = errors
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !errors.is_empty() {
        return Err(errors.join(", "));
    }
    if done.requests == 0 {
        return Err("no answers".into());
    }
    Ok(Sample {
        rate: done.requests as f64 / (done.duration as f64 / 1e6),
        p50: done.p50 / 1e3,
        p99: done.p99 / 1e3,
        p999: done.p999 / 1e3,
        max: done.max / 1e3,
    })
}
