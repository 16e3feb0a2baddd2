//! The command line and the environment, checked once into a [`Config`] that the rest may trust.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;

use crate::host::Host;
use crate::logging::{Format, LevelSource};
use crate::origin::Origin;
use crate::rate::Rate;
use crate::server::Timeouts;
use crate::store::{Durability, HISTORY_BYTES, MAX_OPERATIONS};

mod args;
mod cluster;
mod commands;
mod environment;
mod peers;
mod values;

pub use cluster::Cluster;
pub use commands::{Restore, TokenCommand};
pub use environment::Variables;

use args::{Args, HealthArgs, Subcommand, TokenArgs};
use commands::{restore, token_command};
use environment::Environment;
use peers::working_dir_of_peer;
use values::{bytes, durability, host, log_format, number, parsed, seconds};

/// More workers than this are a mistake: they would only wait for each other.
const MAX_WORKERS: usize = 256;

/// The largest value that can be asked for: 1 GiB. Values live in memory, and each upload needs its size once more.
const MAX_MAX_VALUE_BYTES: u64 = 1 << 30;

/// The largest value unless another one is asked for, in bytes: 10 MiB.
const VALUE_BYTES: u64 = 10 << 20;

/// The least and the most memory that can be asked for, in bytes: 1 MiB and 1 PiB.
const MIN_MAX_MEMORY: u64 = 1 << 20;
const MAX_MAX_MEMORY: u64 = 1 << 50;

/// The shortest and the longest log that can be asked for, in bytes: 4 KiB and 1 TiB.
const MIN_SNAPSHOT_AFTER: u64 = 4 << 10;
const MAX_SNAPSHOT_AFTER: u64 = 1 << 40;

/// The length of the log from which on a snapshot replaces it, in bytes, unless another one is asked for: 16 MiB.
const SNAPSHOT_AFTER: u64 = 16 << 20;

/// The longest time that can be asked for: a day, in seconds.
const MAX_SECONDS: u64 = 86_400;

/// The highest rate that can be asked for, in bytes a second: 1 GiB. No network is faster.
const MAX_MIN_RATE: u64 = 1 << 30;

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Serve.
    Serve(Box<Config>),
    /// Do something with the tokens in a file.
    Tokens(PathBuf, TokenCommand),
    /// Make a store of an export.
    Restore(Restore),
    /// Ask the server that listens on this address whether it is ready.
    Health(SocketAddr),
    /// Print this text and exit with status 0: the help or the version.
    Print(String),
}

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Where to listen.
    pub address: SocketAddr,
    /// Whether options have said so.
    address_given: bool,
    /// Whether everybody who can connect is let in without `--no-auth` saying so.
    lets_all_in: bool,
    /// Where data lives; `None` keeps it in memory only.
    pub working_dir: Option<PathBuf>,
    /// The cluster that this is a node of.
    pub cluster: Option<Cluster>,
    /// What an answered write means, where there is a working directory.
    pub durability: Durability,
    /// Bytes of log after which a snapshot of the data replaces it, at least.
    pub snapshot_after: u64,
    /// Threads in the pool.
    pub workers: usize,
    /// Connections open at once; `None` for as many as the machine allows.
    pub max_connections: Option<usize>,
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// Bytes of memory for data and bodies under way; `None` for a part of what the machine has.
    pub max_memory: Option<u64>,
    /// Bytes of memory for the latest changes.
    pub history: u64,
    /// The most clients that watch at once.
    pub max_watchers: usize,
    /// The largest value, in bytes.
    pub max_value_bytes: u64,
    /// The most items of a bulk request.
    pub max_batch: usize,
    /// The file of the tokens that let clients in; `None` lets everybody in.
    pub auth: Option<PathBuf>,
    /// How often one client may ask.
    pub rate_limit: Option<Rate>,
    /// Whether everybody may read the metrics, also without a token.
    pub metrics_open: bool,
    /// The origins of web pages that may use the APIs.
    pub cors_origins: Vec<Origin>,
    /// The hosts that requests may name where there are no tokens, besides the usual ones.
    pub allowed_hosts: Vec<Host>,
    /// Requests that take so long are logged.
    pub slow_log: Option<Duration>,
    /// Which log lines are written.
    pub log_level: LevelSource,
    /// What they look like.
    pub log_format: Format,
    /// Options that have no effect, or another one than the user may expect: a line of the log each.
    pub warnings: Vec<String>,
    /// The options that come from the environment.
    pub variables: Variables,
}

impl Config {
    /// The server listens on a socket that is open already. An error says why it may not.
    pub fn listen_on(&mut self, address: SocketAddr) -> Result<(), String> {
        if self.lets_all_in {
            refuse_others(&format!("the socket at {address}"), address.ip())?;
        }
        if self.address_given {
            let warning = format!(
                "--host and --port have no effect: systemd has passed a socket that listens on {address}"
            );
            self.warnings.push(warning);
        }
        self.address = address;
        Ok(())
    }
}

/// Reads the arguments that follow the program's name, and the variables of its environment. An error is one line that names the culprit and
/// the remedy.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, String> {
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
    refuse_empty(&arguments)?;
    let args = match Args::from_args(&["threadkv"], &arguments) {
        Ok(args) => args,
        Err(exit) if exit.status.is_ok() => return Ok(Invocation::Print(exit.output)),
        Err(exit) => return Err(one_line(&exit.output, &arguments)),
    };
    if args.version {
        return Ok(Invocation::Print(format!(
            "threadkv {}\n",
            env!("CARGO_PKG_VERSION")
        )));
    }
    match args.command {
        Some(Subcommand::Token(TokenArgs { command })) => return token_command(command),
        Some(Subcommand::Restore(args)) => return restore(args).map(Invocation::Restore),
        // The variables say where.
        Some(Subcommand::Health(_)) | None => {}
    }
    let environment = environment::read(variables, &arguments)?;
    let both = environment.arguments.iter().map(String::as_str);
    let both: Vec<&str> = both.chain(arguments).collect();
    let Environment {
        variables,
        warnings,
        ..
    } = &environment;
    let args = Args::from_args(&["threadkv"], &both);
    let mut args = args.map_err(|exit| variables.named_in(&one_line(&exit.output, &[])))?;
    if let Some(Subcommand::Health(HealthArgs { host, port })) = args.command.take() {
        args.host = host.or(args.host);
        args.port = port.or(args.port);
        let address = address(&args).map_err(|message| variables.named_in(&message))?;
        return Ok(Invocation::Health(address));
    }
    let mut config = config(args).map_err(|message| variables.named_in(&message))?;
    let named = config.warnings.iter().map(|it| variables.named_in(it));
    config.warnings = warnings.iter().cloned().chain(named).collect();
    config.variables = variables.clone();
    Ok(Invocation::Serve(Box::new(config)))
}

/// Checks what a server is to do.
fn config(args: Args) -> Result<Config, String> {
    let address = address(&args)?;
    let (host, port) = (address.ip(), address.port());
    if args.auth.is_some() && args.no_auth {
        return Err("--auth beside --no-auth: choose one of them".into());
    }
    let lets_all_in = args.auth.is_none() && !args.no_auth;
    if lets_all_in {
        refuse_others(&format!("--host {host}"), host)?;
    }
    let warnings = warnings(&args);
    let cluster = cluster::cluster(&args)?;
    let working_dir = match &args.peers {
        Some(peers) => working_dir_of_peer(peers, port, args.working_dir)?,
        None => args.working_dir,
    };
    let (value_option, most, value_bytes, snapshot_after) = match &cluster {
        Some(_) => (
            "--cluster beside --max-value-bytes",
            cluster::MAX_VALUE_BYTES,
            cluster::MAX_VALUE_BYTES,
            cluster::SNAPSHOT_AFTER,
        ),
        None => (
            "--max-value-bytes",
            MAX_MAX_VALUE_BYTES,
            VALUE_BYTES,
            SNAPSHOT_AFTER,
        ),
    };
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    Ok(Config {
        address,
        address_given: args.host.is_some() || args.port.is_some(),
        lets_all_in,
        working_dir,
        cluster,
        auth: args.auth,
        metrics_open: args.metrics_open,
        durability: args
            .durability
            .map_or(Ok(Durability::Sync), |mode| durability(&mode))?,
        snapshot_after: args.snapshot_after.map_or(Ok(snapshot_after), |bytes| {
            let range = MIN_SNAPSHOT_AFTER..=MAX_SNAPSHOT_AFTER;
            number("--snapshot-after", &bytes, range)
        })?,
        workers: args.workers.map_or(Ok(cores.max(2)), |n| {
            number("--workers", &n, 1..=MAX_WORKERS)
        })?,
        max_connections: args
            .max_connections
            .map(|n| number("--max-connections", &n, 1..=usize::MAX))
            .transpose()?,
        timeouts: Timeouts {
            idle: seconds("--idle-timeout", &args.idle_timeout)?,
            head: seconds("--head-timeout", &args.head_timeout)?,
            transfer: seconds("--transfer-timeout", &args.transfer_timeout)?,
            min_rate: number("--min-rate", &args.min_rate, 0..=MAX_MIN_RATE)?,
        },
        max_memory: args
            .max_memory
            .map(|text| bytes("--max-memory", &text, MIN_MAX_MEMORY..=MAX_MAX_MEMORY))
            .transpose()?,
        history: args.history.map_or(Ok(HISTORY_BYTES), |text| {
            bytes("--history", &text, 0..=MAX_MAX_MEMORY)
        })?,
        max_watchers: number("--max-watchers", &args.max_watchers, 0..=usize::MAX)?,
        max_value_bytes: args.max_value_bytes.map_or(Ok(value_bytes), |bytes| {
            number(value_option, &bytes, 1..=most)
        })?,
        max_batch: number("--max-batch", &args.max_batch, 1..=MAX_OPERATIONS)?,
        rate_limit: rate(args.rate_limit)?,
        cors_origins: args
            .cors_origin
            .iter()
            .map(|origin| parsed("--cors-origin", origin))
            .collect::<Result<_, _>>()?,
        allowed_hosts: args
            .allow_host
            .iter()
            .map(|host| parsed("--allow-host", host))
            .collect::<Result<_, _>>()?,
        slow_log: args.slow_log.map_or(Ok(None), |text| {
            number("--slow-log", &text, 0..=MAX_SECONDS * 1000)
                .map(|millis| Some(Duration::from_millis(millis)))
        })?,
        log_level: parsed("--log-level", &args.log_level)?,
        log_format: args
            .log_format
            .map_or(Ok(Format::Text), |format| log_format(&format))?,
        warnings,
        variables: Variables::default(),
    })
}

fn address(args: &Args) -> Result<SocketAddr, String> {
    let port = args.port.as_deref().unwrap_or("4000");
    let port = number("--port", port, 0..=u16::MAX)?;
    let host = host(args.host.as_deref().unwrap_or("127.0.0.1"))?;
    Ok(SocketAddr::new(host, port))
}

/// Nobody from elsewhere is let in by accident.
fn refuse_others(culprit: &str, address: IpAddr) -> Result<(), String> {
    if address.is_loopback() {
        return Ok(());
    }
    Err(format!(
        "{culprit} lets other machines in: give --auth a file of tokens, or say --no-auth if everybody may read and write"
    ))
}

fn rate(text: Option<String>) -> Result<Option<Rate>, String> {
    text.map(|text| parsed("--rate-limit", &text)).transpose()
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

/// An empty value is a mistake: most often a variable of the shell that is not set.
fn refuse_empty(arguments: &[&str]) -> Result<(), String> {
    let Some(at) = arguments.iter().position(|argument| argument.is_empty()) else {
        return Ok(());
    };
    let before = at.checked_sub(1).map(|at| arguments[at]);
    Err(match before.filter(|before| before.starts_with('-')) {
        Some(option) => {
            format!("{option} \"\": its value is empty; give one, or leave {option} out")
        }
        None => "\"\": an empty argument; leave it out".into(),
    })
}

/// What the user should know about options that are allowed, but do nothing or not all that they promise.
fn warnings(args: &Args) -> Vec<String> {
    let mut warnings = Vec::new();
    for (option, given) in [
        ("--durability", args.durability.is_some()),
        (
            "--snapshot-after",
            args.snapshot_after.is_some() && args.cluster.is_none(),
        ),
    ] {
        if given && args.working_dir.is_none() {
            let place = match args.cluster {
                Some(_) => "etcd keeps the data",
                None => "data lives in memory only",
            };
            warnings.push(format!(
                "{option} has no effect without --working-dir: {place}"
            ));
        }
    }
    if args.auth.is_some() && !args.allow_host.is_empty() {
        warnings
            .push("--allow-host has no effect beside --auth: tokens let in, by any host".into());
    }
    if let Some(peers) = &args.peers {
        warnings.push(format!(
            "--peers {peers}: this is one node, it does not form a cluster and copies nothing to the others"
        ));
    }
    warnings
}

/// argh spreads some messages over several lines, and does not say where to look.
fn one_line(message: &str, arguments: &[&str]) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    let command = match arguments {
        ["token", command @ ("create" | "list" | "revoke"), ..] => format!(" token {command}"),
        [command @ ("token" | "restore" | "health"), ..] => format!(" {command}"),
        _ => String::new(),
    };
    let message = words.join(" ");
    let message = message.trim_end_matches('.');
    format!("{message}; threadkv{command} --help says more")
}

#[cfg(test)]
mod tests;
