//! The command line, checked once into a [`Config`] that the rest may trust.

use std::ffi::OsString;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use argh::FromArgs;
use log::LevelFilter;

use crate::store::Durability;

/// More workers than this are a mistake: they would only wait for each other.
const MAX_WORKERS: usize = 256;

/// The largest value that can be asked for: 1 GiB. Values live in memory, and each upload needs its size once more.
const MAX_MAX_VALUE_BYTES: u64 = 1 << 30;

/// The largest bulk request that can be asked for: readers wait while it is applied, about a microsecond an item.
pub const MAX_MAX_BATCH: usize = 100_000;

/// A small, fast key-value server over HTTP, made of plain threads and channels.
#[derive(FromArgs)]
struct Args {
    /// address to listen on (default 127.0.0.1)
    #[argh(option, default = "String::from(\"127.0.0.1\")", arg_name = "address")]
    host: String,

    /// port to listen on; 0 takes a free one (default 4000)
    #[argh(option, default = "String::from(\"4000\")", arg_name = "number")]
    port: String,

    /// directory that keeps the data; without it, data lives in memory only
    #[argh(option, arg_name = "dir")]
    working_dir: Option<PathBuf>,

    /// sync, os or none: what an answered write survives (default sync, a power cut)
    #[argh(option, default = "String::from(\"sync\")", arg_name = "mode")]
    durability: String,

    /// threads that answer requests (default: one a core, at least two)
    #[argh(option, arg_name = "number")]
    workers: Option<String>,

    /// connections open at once; more wait (default: what the limits of the machine allow)
    #[argh(option, arg_name = "number")]
    max_connections: Option<String>,

    /// largest value, in bytes (default 10485760)
    #[argh(option, default = "String::from(\"10485760\")", arg_name = "bytes")]
    max_value_bytes: String,

    /// items of a bulk request, at most (default 500)
    #[argh(option, default = "String::from(\"500\")", arg_name = "number")]
    max_batch: String,

    /// off, error, warn, info, debug or trace (default info)
    #[argh(option, default = "String::from(\"info\")", arg_name = "level")]
    log_level: String,

    /// print the version and exit
    #[argh(switch)]
    version: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Serve.
    Serve(Config),
    /// Print this text and exit with status 0: the help or the version.
    Print(String),
}

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Where to listen.
    pub address: SocketAddr,
    /// Where data lives; `None` keeps it in memory only.
    pub working_dir: Option<PathBuf>,
    /// What an answered write means, where there is a working directory.
    pub durability: Durability,
    /// Threads in the pool.
    pub workers: usize,
    /// Connections open at once; `None` for as many as the machine allows.
    pub max_connections: Option<usize>,
    /// The largest value, in bytes.
    pub max_value_bytes: u64,
    /// The most items of a bulk request.
    pub max_batch: usize,
    /// The least severe log lines that are written.
    pub log_level: LevelFilter,
}

/// Reads the arguments that follow the program's name. An error is one line that names the culprit and the remedy.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, String> {
    let text = |argument: OsString| {
        argument
            .into_string()
            .map_err(|it| format!("{it:?}: expected an argument in UTF-8"))
    };
    let arguments = arguments
        .into_iter()
        .map(text)
        .collect::<Result<Vec<String>, String>>()?;
    let arguments = split_equals(arguments);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let args = match Args::from_args(&["threadkv"], &arguments) {
        Ok(args) => args,
        Err(exit) if exit.status.is_ok() => return Ok(Invocation::Print(exit.output)),
        Err(exit) => return Err(one_line(&exit.output)),
    };
    if args.version {
        return Ok(Invocation::Print(format!(
            "threadkv {}\n",
            env!("CARGO_PKG_VERSION")
        )));
    }
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    Ok(Invocation::Serve(Config {
        address: SocketAddr::new(
            host(&args.host)?,
            number("--port", &args.port, 0..=u16::MAX)?,
        ),
        working_dir: args.working_dir,
        durability: durability(&args.durability)?,
        workers: args.workers.map_or(Ok(cores.max(2)), |n| {
            number("--workers", &n, 1..=MAX_WORKERS)
        })?,
        max_connections: args
            .max_connections
            .map(|n| number("--max-connections", &n, 1..=usize::MAX))
            .transpose()?,
        max_value_bytes: number(
            "--max-value-bytes",
            &args.max_value_bytes,
            1..=MAX_MAX_VALUE_BYTES,
        )?,
        max_batch: number("--max-batch", &args.max_batch, 1..=MAX_MAX_BATCH)?,
        log_level: args.log_level.parse().map_err(|_| {
            format!(
                "--log-level {:?}: expected off, error, warn, info, debug or trace",
                args.log_level
            )
        })?,
    }))
}

/// argh knows `--option value` only; `lsfr` passes `--option=value`.
fn split_equals(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut split = Vec::new();
    for argument in arguments {
        match argument.split_once('=') {
            Some((option, value)) if option.starts_with("--") => {
                split.extend([option.to_owned(), value.to_owned()])
            }
            _ => split.push(argument),
        }
    }
    split
}

/// argh spreads some messages over several lines, and does not say where to look.
fn one_line(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    format!("{}; threadkv --help lists the options", words.join(" "))
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "sync" => Ok(Durability::Sync),
        "os" => Ok(Durability::Os),
        "none" => Ok(Durability::None),
        _ => Err(format!("--durability {text:?}: expected sync, os or none")),
    }
}

fn host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .map_err(|_| format!("--host {text:?}: expected an IP address or localhost"))
}

fn number<N: FromStr + PartialOrd + Display>(
    option: &str,
    text: &str,
    range: RangeInclusive<N>,
) -> Result<N, String> {
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            format!(
                "{option} {text:?}: expected a number from {} to {}",
                range.start(),
                range.end()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, String> {
        match parse(arguments.iter().map(OsString::from))? {
            Invocation::Serve(config) => Ok(config),
            Invocation::Print(text) => panic!("printed {text}"),
        }
    }

    #[test]
    fn without_options_the_defaults_of_the_contract_hold() {
        let config = config(&[]).unwrap();
        assert_eq!(config.address, "127.0.0.1:4000".parse().unwrap());
        assert_eq!(config.working_dir, None);
        assert_eq!(config.durability, Durability::Sync);
        assert!(config.workers >= 2);
        assert_eq!(config.max_connections, None);
        assert_eq!(config.max_value_bytes, 10_485_760);
        assert_eq!(config.max_batch, 500);
        assert_eq!(config.log_level, LevelFilter::Info);
    }

    #[test]
    fn every_option_takes_both_forms() {
        let spaced = [
            "--host",
            "::1",
            "--port",
            "8001",
            "--working-dir",
            "a=b",
            "--workers",
            "3",
        ];
        let joined = [
            "--host=::1",
            "--port=8001",
            "--working-dir=a=b",
            "--workers=3",
        ];
        for arguments in [&spaced[..], &joined[..]] {
            let config = config(arguments).unwrap();
            assert_eq!(config.address, "[::1]:8001".parse().unwrap());
            assert_eq!(config.working_dir, Some(PathBuf::from("a=b")));
            assert_eq!(config.workers, 3);
        }
        let rest = [
            "--durability=os",
            "--max-connections=10",
            "--max-value-bytes=5",
            "--max-batch=7",
            "--log-level=debug",
            "--host=localhost",
        ];
        let config = config(&rest).unwrap();
        assert_eq!(config.max_connections, Some(10));
        assert_eq!(config.durability, Durability::Os);
        assert_eq!(config.max_value_bytes, 5);
        assert_eq!(config.max_batch, 7);
        assert_eq!(config.log_level, LevelFilter::Debug);
        assert_eq!(config.address.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn a_mistake_is_answered_by_one_line_that_names_it() {
        for (arguments, named) in [
            (&["--port", "65536"][..], "--port \"65536\""),
            (&["--port=-1"], "--port \"-1\""),
            (&["--port="], "--port \"\""),
            (&["--port"], "--port"),
            (&["--host", "example"], "--host \"example\""),
            (&["--workers", "0"], "--workers \"0\""),
            (&["--workers", "20000"], "--workers \"20000\""),
            (&["--max-connections", "0"], "--max-connections \"0\""),
            (&["--max-value-bytes", "1.5"], "--max-value-bytes \"1.5\""),
            (&["--max-batch", "0"], "--max-batch \"0\""),
            (&["--log-level", "loud"], "--log-level \"loud\""),
            (&["--durability", "disk"], "--durability \"disk\""),
            (&["--bogus"], "--bogus"),
            (&["--bogus=1"], "--bogus"),
            (&["stray"], "stray"),
            (&["--port", "1", "--port", "2"], "port"),
        ] {
            let error = config(arguments).unwrap_err();
            assert!(error.contains(named), "{arguments:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn help_and_version_are_printed() {
        let printed = |argument: &str| match parse([OsString::from(argument)]) {
            Ok(Invocation::Print(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(printed("--help").contains("--max-value-bytes"));
        assert_eq!(
            printed("--version"),
            format!("threadkv {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
}
