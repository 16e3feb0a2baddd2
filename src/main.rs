//! Reads the options, builds the store, starts the server, waits for a signal, drains.

// Tests may; elsewhere a comment has to show why it cannot happen.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)
)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use signal_hook::consts::SIGTERM;
use signal_hook::low_level::signal_name;

use threadkv::api::{About, Admitted, Api, Auth, Hub, Limits};
use threadkv::budget::Budget;
use threadkv::dump::restore::{self, Restored};
use threadkv::etcd::Credentials;
use threadkv::health;
use threadkv::logging;
use threadkv::machine;
use threadkv::memory;
use threadkv::options::{self, Cluster, Config, Invocation, Restore, TokenCommand};
use threadkv::server::{self, Bell, Door, Monitor, Parts, Pool, Server};
use threadkv::signals::{self, Files};
use threadkv::store::{self, ClusterOptions, DiskOptions, Reply, Store};
use threadkv::systemd::{self, Supervisor};
use threadkv::tokens::{self, Token, Tokens};

/// How long requests under way may take to finish once the server has been told to stop (contract, "Command line").
const DRAIN_TIME: Duration = Duration::from_secs(15);

/// How long the end may wait for stderr to take the last lines of the log.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let result = match options::parse(env::args_os().skip(1), env::vars_os()) {
        Ok(Invocation::Serve(config)) => {
            let variables = config.variables.clone();
            serve(*config).map_err(|message| variables.named_in(&message))
        }
        Ok(Invocation::Tokens(file, command)) => manage_tokens(&file, command),
        Ok(Invocation::Restore(what)) => restore(&what),
        Ok(Invocation::Health(address)) => health::check(address),
        Ok(Invocation::Print(text)) => io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| error.to_string()),
        Err(message) => Err(message),
    };
    match result {
        Ok(()) => {
            logging::flush(LAST_LINES);
            ExitCode::SUCCESS
        }
        Err(message) => {
            logging::last_words(&message, LAST_LINES);
            ExitCode::FAILURE
        }
    }
}

/// Makes, lists or revokes tokens. What was asked for goes to stdout, a made token alone on its line.
fn manage_tokens(file: &Path, command: TokenCommand) -> Result<(), String> {
    let text = match command {
        TokenCommand::Create(new) => tokens::create(file, new).map(|token| format!("{token}\n")),
        TokenCommand::List => Tokens::read(file).map(|tokens| {
            let line = |token: &Token| {
                let rights = if token.read_only {
                    "read-only"
                } else {
                    "read-write"
                };
                let rate = token.rate_limit.map_or("-".into(), |rate| rate.to_string());
                format!("{}\t{rights}\t{rate}\t{}\n", token.created, token.name)
            };
            tokens.iter().map(line).collect()
        }),
        TokenCommand::Revoke(name) => tokens::revoke(file, &name).map(|()| String::new()),
    };
    let text = text.map_err(|error| error.to_string())?;
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(|error| error.to_string())
}

/// Makes a store of an export, and says on stdout what has become of it.
fn restore(what: &Restore) -> Result<(), String> {
    memory::save_address_space();
    let name = what.from.as_deref().unwrap_or(Path::new("stdin")).display();
    let mut export: Box<dyn Read> = match &what.from {
        Some(path) => Box::new(File::open(path).map_err(|error| format!("{name}: {error}"))?),
        None => Box::new(io::stdin().lock()),
    };
    let budget = Arc::new(Budget::new(machine::memory_to_use().0));
    let Restored { keys, expired } =
        restore::restore(&mut export, &what.working_dir, what.durability, budget)
            .map_err(|error| format!("restore from {name}: {error}"))?;
    let to = what.working_dir.display();
    let expired = match expired {
        0 => String::new(),
        expired => format!(", {expired} had expired"),
    };
    let written =
        io::stdout().write_all(format!("{keys} keys restored to {to}{expired}\n").as_bytes());
    written.map_err(|error| error.to_string())
}

/// Serves until a signal says to stop. An error is one line: the culprit and the remedy.
fn serve(mut config: Config) -> Result<(), String> {
    logging::init(config.log_format).map_err(|error| format!("cannot log: {error}"))?;
    let level = config.log_level.level();
    log::set_max_level(level.map_err(|error| format!("--log-level: {error}"))?);
    let given = systemd::listener()?;
    if let Some(socket) = &given {
        let address = socket.local_addr();
        config.listen_on(address.map_err(|error| format!("cannot listen: {error}"))?)?;
    }
    server::log_panics();
    memory::save_address_space();
    flush_after_panics_of_main();
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let supervisor = Arc::new(Supervisor::from_environment());
    let auth = config.auth.as_deref().map(Auth::open).transpose();
    let auth = auth.map_err(|error| error.to_string())?;
    let serving = Arc::new(AtomicBool::new(false));
    let no_thread = |error: io::Error| format!("cannot start a thread: {error}");
    let files = Files {
        auth: auth.clone(),
        level: config.log_level.follow().map_err(no_thread)?,
    };
    let stop = signals::watch(Arc::clone(&serving), files)
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    let monitor = Arc::new(Monitor::default());
    let (budget, of_memory) = budget(&config);
    let budget = Arc::new(budget);
    let (door, connections) = door(&config, &monitor, &budget)?;
    let watchers = watchers(&config, connections);
    let max_connections = connections;
    let connections = match max_connections {
        Some(most) => format!("{most} connections"),
        None => "any number of connections, since it is built without armour".to_owned(),
    };
    let socket = match given {
        Some(socket) => {
            monitor.share_socket();
            server::adopt(&socket).map(|()| socket)
        }
        None => server::bind(config.address),
    };
    let socket = socket.map_err(|error| {
        format!(
            "cannot listen on {}: {error}; choose another --host or --port",
            config.address
        )
    })?;
    let address = socket
        .local_addr()
        .map_err(|error| format!("cannot listen: {error}"))?;

    let (pool, tasks) = Pool::new();
    let loading = supervisor.while_loading(store::loading_steps);
    let loading = loading.map_err(no_thread)?;
    let store = Arc::new(open_store(&config, budget, pool.clone())?);
    drop(loading);
    let limits = Limits {
        value_bytes: config.max_value_bytes,
        batch: config.max_batch,
        rate: config.rate_limit,
    };
    let admitted = Admitted {
        auth,
        origins: config.cors_origins,
        hosts: config.allowed_hosts,
    };
    let about = About {
        durability: match (&config.cluster, &config.working_dir) {
            (Some(_), _) => "cluster".into(),
            (None, Some(_)) => config.durability.to_string(),
            (None, None) => "memory".into(),
        },
        workers: config.workers,
        started: Instant::now(),
        on_disk: config.working_dir.is_some(),
        max_connections,
        metrics_open: config.metrics_open,
        monitor: Arc::clone(&monitor),
        pool: pool.clone(),
    };
    let (bell, rung) = Bell::new();
    let hub = Hub::new(Arc::clone(&store), admitted.auth.clone(), watchers, bell);
    let hub = hub.map_err(no_thread)?;
    let api = Api::new(
        Arc::clone(&store),
        limits,
        admitted,
        Arc::clone(&hub),
        about,
    );
    let api = Arc::new(api);
    let workers = pool.clone();
    let parts = Parts {
        socket,
        workers: config.workers,
        door,
        service: Box::new(api),
        monitor,
        slow_log: config.slow_log,
        pool: (pool, tasks),
        streams: (rung, hub),
    };
    memory::start().map_err(no_thread)?;
    let server = Server::start(parts).map_err(no_thread)?;
    supervisor.watch(workers).map_err(no_thread)?;
    serving.store(true, Ordering::Release);
    let (version, workers) = (env!("CARGO_PKG_VERSION"), config.workers);
    let mode = match (&config.cluster, &config.working_dir) {
        (Some(cluster), _) => format!("{} in etcd", cluster.prefix),
        (None, Some(directory)) => {
            format!("{}, durability {}", directory.display(), config.durability)
        }
        (None, None) => "in memory".to_owned(),
    };
    log::info!("{of_memory}");
    log::info!(
        "threadkv {version} listening on {address}: {mode}, {workers} workers, {connections}"
    );

    supervisor.ready(&format!("listening on {address}"));
    let signal = stop.recv().unwrap_or(SIGTERM);
    supervisor.stopping();
    log::info!("{}: draining", signal_name(signal).unwrap_or("signal"));
    let started = Instant::now();
    let left = server.drain(DRAIN_TIME);
    if left > 0 {
        log::warn!("{left} requests did not finish in {DRAIN_TIME:?}");
    }
    store
        .close()
        .map_err(|error| format!("the end was not clean: {error}"))?;
    log::info!("drained in {:.1?}, bye", started.elapsed());
    Ok(())
}

/// A panic of this thread ends the process, so its line must be written first. One of another thread does not, and must not wait.
fn flush_after_panics_of_main() {
    let main = thread::current().id();
    let log = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        log(panic);
        if thread::current().id() == main {
            logging::flush(LAST_LINES);
        }
    }));
}

/// The door of the server, and how many connections it lets in, if there is a limit.
#[cfg(feature = "armour")]
fn door(
    config: &Config,
    monitor: &Arc<Monitor>,
    budget: &Arc<Budget>,
) -> Result<(Arc<dyn Door>, Option<usize>), String> {
    use threadkv::armour::{self, Armour};
    armour::prefer_throughput();
    if let Err(reason) = armour::check() {
        let remedy = "serve on a loopback address only, behind a proxy";
        if !config.address.ip().is_loopback() {
            return Err(format!(
                "not protected against hostile clients: {reason}; {remedy}"
            ));
        }
        log::warn!(
            "not protected against hostile clients, timeouts and limits on connections do not hold: {reason}"
        );
    }
    let most = armour::most_connections(armour::raise_descriptor_limit());
    let in_memory = machine::connections().clamp(1, most);
    let connections = config.max_connections.unwrap_or(in_memory);
    if connections > most {
        return Err(format!(
            "--max-connections {connections}: the limits on open files and threads allow {most}; \
             raise them (ulimit -Hn, ulimit -Hu) or ask for fewer"
        ));
    }
    let (monitor, budget) = (Arc::clone(monitor), Arc::clone(budget));
    let door = Armour::new(connections, config.timeouts, monitor, budget)
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    Ok((Arc::new(door), Some(connections)))
}

/// The same without the armour: all clients are trusted.
#[cfg(not(feature = "armour"))]
fn door(
    _: &Config,
    _: &Arc<Monitor>,
    _: &Arc<Budget>,
) -> Result<(Arc<dyn Door>, Option<usize>), String> {
    Ok((Arc::new(server::Plain), None))
}

/// How many clients may watch. Each has a connection, and half of these are left to others.
fn watchers(config: &Config, connections: Option<usize>) -> usize {
    let most = connections.map_or(usize::MAX, |connections| (connections / 2).max(1));
    let watchers = config.max_watchers.min(most);
    if watchers < config.max_watchers {
        let warning = format!(
            "--max-watchers {}: {watchers} are let in, half of the connections",
            config.max_watchers
        );
        log::warn!("{}", config.variables.named_in(&warning));
    }
    watchers
}

/// How much memory the data and the bodies under way may take: what the options say, or a part of what there is. And the same in
/// words.
fn budget(config: &Config) -> (Budget, String) {
    let (limit, reason) = match config.max_memory {
        Some(limit) => (limit, "as --max-memory says".to_owned()),
        None => machine::memory_to_use(),
    };
    let budget = Budget::new(limit);
    let (data, mib) = (budget.data_limit(), |bytes: u64| bytes >> 20);
    let (limit, data) = (mib(limit), mib(data));
    let words = format!("memory: {limit} MiB, {reason}; {data} MiB of it for data");
    (budget, words)
}

/// Opens the store that the options ask for. Its answers go back through the pool.
fn open_store(config: &Config, budget: Arc<Budget>, pool: Pool) -> Result<Store, String> {
    if let Some(cluster) = &config.cluster {
        return join(cluster, config, budget, pool);
    }
    let Some(directory) = &config.working_dir else {
        return Store::in_memory(config.history, budget)
            .map_err(|error| format!("cannot start a thread: {error}"));
    };
    let deliver = move |answers| pool.resume_all(answers, Reply::deliver);
    let options = DiskOptions {
        durability: config.durability,
        snapshot_after: config.snapshot_after,
        history: config.history,
    };
    Store::open(directory, options, budget, deliver).map_err(|error| error.to_string())
}

/// Becomes a node of a cluster.
fn join(
    cluster: &Cluster,
    config: &Config,
    budget: Arc<Budget>,
    pool: Pool,
) -> Result<Store, String> {
    let credentials = cluster.user.as_ref().map(|(user, file)| {
        let password = fs::read_to_string(file)
            .map_err(|error| format!("--cluster-password-file {}: {error}", file.display()))?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        let user = user.clone();
        Ok::<_, String>(Credentials { user, password })
    });
    let system = rustix::system::uname();
    let options = ClusterOptions {
        endpoints: cluster.endpoints.clone(),
        prefix: cluster.prefix.clone(),
        credentials: credentials.transpose()?,
        tls: cluster.tls.clone(),
        name: format!(
            "{}:{}",
            system.nodename().to_string_lossy(),
            config.address.port()
        ),
        history: config.history,
        snapshot_after: config.snapshot_after,
    };
    let deliver = move |answers| pool.resume_all(answers, Reply::deliver);
    Store::join(options, budget, deliver).map_err(|error| error.to_string())
}
