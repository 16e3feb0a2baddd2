//! Reads the options, builds the store, starts the server, waits for a signal, drains.

// Tests may; elsewhere a comment has to show why it cannot happen.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)
)]

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, process, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use threadkv::api::Api;
use threadkv::options::{self, Config, Invocation};
use threadkv::server::{self, AcceptEnded, Parts, Pool, Server};
use threadkv::store::Store;

/// How long requests under way may take to finish once the server has been told to stop (contract, "Command line").
const DRAIN_TIME: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let result = match options::parse(env::args().skip(1)) {
        Ok(Invocation::Serve(config)) => serve(config),
        Ok(Invocation::Print(text)) => io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| error.to_string()),
        Err(message) => Err(message),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(io::stderr(), "threadkv: {message}"); // nowhere left to report a failure of this
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal says to stop. An error is one line: the culprit and the remedy.
fn serve(config: Config) -> Result<(), String> {
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    threadkv::logging::init(config.log_level).map_err(|error| format!("cannot log: {error}"))?;
    let accept_ended = AcceptEnded::new();
    server::report_panics(accept_ended.0.clone());

    let most = server::most_connections(server::raise_descriptor_limit());
    let max_connections = config.max_connections.unwrap_or(most);
    if max_connections > most {
        return Err(format!(
            "--max-connections {max_connections}: the limits on open files and threads allow {most}; \
             raise them (ulimit -Hn, ulimit -Hu) or ask for fewer"
        ));
    }
    let socket = server::bind(config.address).map_err(|error| {
        format!(
            "cannot listen on {}: {error}; choose another --host or --port",
            config.address
        )
    })?;
    let address = socket
        .local_addr()
        .map_err(|error| format!("cannot listen: {error}"))?;

    if let Some(directory) = config.working_dir {
        log::warn!(
            "--working-dir {}: this version keeps data in memory only",
            directory.display()
        );
    }
    let store = Arc::new(Store::in_memory());
    let api = Api::new(store, config.max_value_bytes);
    let parts = Parts {
        socket,
        workers: config.workers,
        max_connections,
        service: Arc::new(api),
        pool: Pool::new(max_connections),
        accept_ended,
    };
    let server = Server::start(parts).map_err(|error| format!("cannot start a thread: {error}"))?;
    let version = env!("CARGO_PKG_VERSION");
    let workers = config.workers;
    log::info!(
        "threadkv {version} listening on {address}: in memory, {workers} workers, {max_connections} connections"
    );

    let signal = signals.forever().next().unwrap_or(SIGTERM);
    let second = thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                process::exit(128 + signal); // as a shell reports a program that a signal has ended
            }
        });
    if let Err(error) = second {
        log::warn!("a second signal will not be noticed: {error}");
    }
    log::info!("{}: draining", signal_name(signal).unwrap_or("signal"));
    let started = Instant::now();
    match server.drain(DRAIN_TIME) {
        0 => log::info!("drained in {:.1?}, bye", started.elapsed()),
        left => log::warn!("{left} requests did not finish in {DRAIN_TIME:?}"),
    }
    Ok(())
}
