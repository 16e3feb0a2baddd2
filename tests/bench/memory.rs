//! What servers take of the machine: for many keys, and for many connections that do nothing.

use crate::api;
use crate::client::Client;
use crate::directory::Directory;
use crate::interrupt;
use crate::options::Options;
use crate::peers::Peer;
use crate::results::{Figure, Figures};
use crate::running::Running;

pub const KEYS: &str = "memory-keys";
pub const IDLE: &str = "memory-idle";

/// A figure of [`KEYS`].
pub const WITH_KEYS: &str = "with a million keys";
/// Of [`IDLE`].
pub const WITH_CONNECTIONS: &str = "with 5,000 connections";
pub const A_CONNECTION: &str = "a connection";

const MILLION: u32 = 1_000_000;
const CONNECTIONS: u32 = 5_000;

/// Resident memory with a million keys of 16 bytes and values of 100.
pub fn of_keys(options: &Options) -> Result<Vec<Figures>, String> {
    let peers = [
        Peer::Threadkv,
        Peer::ThreadkvSync,
        Peer::Redis,
        Peer::RedisSync,
    ];
    Figures::of_each(KEYS, &peers, |peer| {
        let directory = Directory::new(&options.work_directory)?;
        let server = peer.start(directory.path())?;
        // Without webdis, which keeps nothing.
        let store = &server.processes[0];
        let empty = store.resident()?;
        server.fill(MILLION, 100)?;
        server.settle()?;
        let full = store.resident()?;
        server.expect(peer.api(), MILLION - 1, 100)?;
        let a_key = full.saturating_sub(empty) as f64 / f64::from(MILLION);
        Ok(vec![
            Figure::once("empty", "MB", empty as f64 / 1e6),
            Figure::once(WITH_KEYS, "MB", full as f64 / 1e6),
            Figure::once("a key", "B", a_key),
        ])
    })
}

/// Resident memory with thousands of connections, each of which has had one request.
pub fn of_idle_connections(options: &Options) -> Result<Vec<Figures>, String> {
    let peers = [Peer::Threadkv, Peer::Bare, Peer::Nginx, Peer::Redis];
    Figures::of_each(IDLE, &peers, |peer| {
        let directory = Directory::new(&options.work_directory)?;
        let server = peer.start(directory.path())?;
        let empty = server.resident()?;
        let connections = connect(&server)?;
        server.settle()?;
        let full = server.resident()?;
        let threads: Result<u64, String> = server.processes.iter().map(|it| it.threads()).sum();
        let a_connection = full.saturating_sub(empty) as f64 / connections.len() as f64;
        Ok(vec![
            Figure::once("without connections", "MB", empty as f64 / 1e6),
            Figure::once(WITH_CONNECTIONS, "MB", full as f64 / 1e6),
            Figure::once(A_CONNECTION, "kB", a_connection / 1e3),
            Figure::once("threads", "", threads? as f64),
        ])
    })
}

fn connect(server: &Running) -> Result<Vec<Client>, String> {
    server.fill(1, 100)?;
    let request = server.peer.api().get(&api::key(0), "");
    let connect = |_| {
        interrupt::check()?;
        let mut client = server.connect()?;
        client.send(&request).map_err(|error| server.error(error))?;
        Ok(client)
    };
    (0..CONNECTIONS).map(connect).collect()
}
