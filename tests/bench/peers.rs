//! threadkv and its peers: how each is set up and started. The reasons for the settings are in the README.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::json;

use crate::api::{self, Api};
use crate::child::{Child, find_program};
use crate::client::Redis;
use crate::cluster;
use crate::running::Running;

/// Tokens among which requests take turns, where there are tokens.
const TOKENS: usize = 10;

/// A server with its settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Threadkv,
    /// With a working directory; every write is synced.
    ThreadkvSync,
    /// With tokens, and a rate limit that nothing reaches.
    ThreadkvTokens,
    /// tiny_http alone. Answers everything with the value of the first key.
    Bare,
    /// The same in nginx.
    Nginx,
    Redis,
    /// With an append-only file; every write is synced.
    RedisSync,
    Etcd,
    /// Three members.
    EtcdThree,
    /// Three nodes on three members of etcd.
    Cluster,
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Peer::Threadkv => "threadkv",
            Peer::ThreadkvSync => "threadkv --working-dir",
            Peer::ThreadkvTokens => "threadkv --auth --rate-limit",
            Peer::Bare => "tiny_http, bare",
            Peer::Nginx => "nginx, return 200",
            Peer::Redis => "Redis/webdis",
            Peer::RedisSync => "Redis always/webdis",
            Peer::Etcd => "etcd",
            Peer::EtcdThree => "etcd, three members",
            Peer::Cluster => "threadkv --cluster",
        }
    }

    /// Whether it is threadkv, and not what it is compared with.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Peer::Threadkv | Peer::ThreadkvSync | Peer::ThreadkvTokens | Peer::Cluster
        )
    }

    /// How it is talked to, unless a load says otherwise.
    pub fn api(self) -> Api {
        match self {
            Peer::Threadkv | Peer::ThreadkvSync | Peer::ThreadkvTokens | Peer::Cluster => {
                Api::Plain
            }
            Peer::Bare | Peer::Nginx => Api::Constant,
            Peer::Redis | Peer::RedisSync => Api::Webdis,
            Peer::Etcd | Peer::EtcdThree => Api::Etcd,
        }
    }

    /// The programs it takes, with Debian's packages of them.
    pub fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Peer::Threadkv | Peer::ThreadkvSync | Peer::ThreadkvTokens | Peer::Bare => &[],
            Peer::Nginx => &[("nginx", "nginx-light")],
            Peer::Redis | Peer::RedisSync => {
                &[("redis-server", "redis-server"), ("webdis", "webdis")]
            }
            Peer::Etcd | Peer::EtcdThree | Peer::Cluster => &[("etcd", "etcd-server")],
        }
    }

    /// Debian's package that is missing.
    pub fn missing_package(self) -> Option<&'static str> {
        let missing = |(program, _): &&(&str, &str)| find_program(program).is_none();
        let (_, package) = self.programs().iter().find(missing)?;
        Some(package)
    }

    /// Starts it on free ports and waits until it answers. It keeps its data in that directory.
    pub fn start(self, directory: &Path) -> Result<Running, String> {
        let mut running = self.spawn(directory)?;
        let request = self.api().put("start", "1", &running.headers[0]);
        running.wait_for_success(&request)?;
        Ok(running)
    }

    /// Starts it and does not wait.
    pub fn spawn(self, directory: &Path) -> Result<Running, String> {
        match self {
            Peer::Threadkv => threadkv(self, directory, &[]),
            Peer::ThreadkvSync => threadkv(self, directory, &["--working-dir", "data"]),
            Peer::ThreadkvTokens => {
                let tokens: Result<Vec<String>, String> =
                    (0..TOKENS).map(|number| token(directory, number)).collect();
                let options = ["--auth", "tokens", "--rate-limit", "1000000/s"];
                let mut running = threadkv(self, directory, &options)?;
                let header = |token: &String| format!("Authorization: Bearer {token}\r\n");
                running.headers = tokens?.iter().map(header).collect();
                Ok(running)
            }
            Peer::Bare => bare(directory),
            Peer::Nginx => nginx(directory),
            Peer::Redis => redis(self, directory, &["--appendonly", "no"]),
            Peer::RedisSync => {
                let always = ["--appendonly", "yes", "--appendfsync", "always"];
                // Left out, it would write its file anew from time to time, as it grows.
                let grow = ["--auto-aof-rewrite-percentage", "0"];
                redis(self, directory, &[&always[..], &grow].concat())
            }
            Peer::Etcd => etcd(directory),
            Peer::EtcdThree => cluster::etcds(directory),
            Peer::Cluster => cluster::nodes(directory),
        }
    }
}

fn threadkv(peer: Peer, directory: &Path, options: &[&str]) -> Result<Running, String> {
    let address = free_address()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command
        .args(["--port", &address.port().to_string()])
        .args(options);
    let server = Child::spawn("threadkv", command, directory)?;
    Ok(Running::new(peer, address, server))
}

/// Makes a token.
fn token(directory: &Path, number: usize) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command.args(["token", "create", "--file", "tokens"]);
    command.args(["--name", &format!("token-{number}")]);
    Child::spawn("token", command, directory)?.finish()
}

fn bare(directory: &Path) -> Result<Running, String> {
    let address = free_address()?;
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["--bare", &address.port().to_string()]);
    let server = Child::spawn("bare", command, directory)?;
    Ok(Running::new(Peer::Bare, address, server))
}

fn nginx(directory: &Path) -> Result<Running, String> {
    let address = free_address()?;
    let path = directory.display();
    let constant = api::value(0, 100);
    let settings = format!(
        "daemon off;
         master_process off;
         pid {path}/nginx.pid;
         error_log {path}/error.log crit;
         events {{ worker_connections 10000; }}
         http {{
             access_log off;
             keepalive_requests 1000000000;
             keepalive_timeout 1h;
             client_body_temp_path {path}/body;
             proxy_temp_path {path}/proxy;
             fastcgi_temp_path {path}/fastcgi;
             uwsgi_temp_path {path}/uwsgi;
             scgi_temp_path {path}/scgi;
             server {{
                 listen {address};
                 location / {{ return 200 {constant}; }}
             }}
         }}"
    );
    let file = write(directory, "nginx.conf", &settings)?;
    let mut command = program("nginx")?;
    command.arg("-e").arg(directory.join("error.log"));
    command.arg("-c").arg(file);
    let server = Child::spawn("nginx", command, directory)?;
    Ok(Running::new(Peer::Nginx, address, server))
}

fn redis(peer: Peer, directory: &Path, options: &[&str]) -> Result<Running, String> {
    let address = free_address()?;
    let mut command = program("redis-server")?;
    command
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--save", "", "--loglevel", "warning"])
        .args(options);
    let mut server = Child::spawn("redis-server", command, directory)?;
    server.wait_for("an answer", || {
        Redis::connect(address).ok()?.send(&["PING"]).ok()
    })?;

    let front = free_address()?;
    let settings = json!({
        "redis_host": "127.0.0.1",
        "redis_port": address.port(),
        "http_host": "127.0.0.1",
        "http_port": front.port(),
        "threads": 2,
        "pool_size": 2,
        "daemonize": false,
        "verbosity": 0,
        "logfile": "/dev/null",
    });
    let file = write(directory, "webdis.json", &settings.to_string())?;
    let mut command = program("webdis")?;
    command.arg(file);
    let webdis = Child::spawn("webdis", command, directory)?;
    let mut running = Running::new(peer, front, server);
    running.processes.push(webdis);
    running.redis = Some(address);
    Ok(running)
}

fn etcd(directory: &Path) -> Result<Running, String> {
    let (address, peers) = (free_address()?, free_address()?);
    let (clients, peers) = (format!("http://{address}"), format!("http://{peers}"));
    let mut command = program("etcd")?;
    command
        .args([
            "--data-dir",
            "data",
            "--logger",
            "zap",
            "--log-level",
            "error",
        ])
        .args([
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
        ])
        .args([
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
        ])
        .args(["--initial-cluster", &format!("default={peers}")]);
    let server = Child::spawn("etcd", command, directory)?;
    Ok(Running::new(Peer::Etcd, address, server))
}

pub fn program(name: &str) -> Result<Command, String> {
    let path = find_program(name).ok_or_else(|| format!("{name} is not installed"))?;
    Ok(Command::new(path))
}

fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf, String> {
    let path = directory.join(name);
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// An address that nobody listens on.
pub fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.map_err(|error| format!("no free port: {error}"))
}
