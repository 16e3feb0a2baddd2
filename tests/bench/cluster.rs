//! Three members of etcd, alone or with three nodes of threadkv, all on this machine.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::api;
use crate::child::Child;
use crate::client::Client;
use crate::peers::{Peer, free_address, program};
use crate::running::Running;

const NAMES: [&str; 3] = ["etcd-1", "etcd-2", "etcd-3"];
pub const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// Three members, of which the one that leads is asked.
pub fn etcds(directory: &Path) -> Result<Running, String> {
    let Members {
        processes,
        addresses,
    } = Members::start(directory)?;
    Ok(Running::of(Peer::EtcdThree, addresses[0], processes))
}

/// The same with three nodes, of which one is asked. All of them ask the member that leads.
pub fn nodes(directory: &Path) -> Result<Running, String> {
    let members = Members::start(directory)?;
    let nodes: Result<Vec<_>, String> = NODES
        .iter()
        .map(|name| start_node(name, &members, directory))
        .collect();
    let (addresses, mut processes): (Vec<_>, Vec<_>) = nodes?.into_iter().unzip();
    processes.extend(members.processes);
    Ok(Running::of(Peer::Cluster, addresses[0], processes))
}

/// Starts a node and waits until it has the whole map.
pub fn start_node(
    name: &'static str,
    members: &Members,
    directory: &Path,
) -> Result<(SocketAddr, Child), String> {
    let address = free_address()?;
    let urls = members.addresses.iter().map(|it| format!("http://{it}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command.args(["--port", &address.port().to_string()]);
    command.args(["--cluster", &urls.collect::<Vec<_>>().join(",")]);
    let mut node = Child::spawn(name, command, directory)?;
    node.wait_for("it to be ready", || {
        let request = api::request("GET", "/readyz", "", "");
        Client::connect(address).ok()?.send(&request).ok()
    })?;
    Ok((address, node))
}

/// Three members of etcd. The one that leads comes first.
pub struct Members {
    processes: Vec<Child>,
    addresses: Vec<SocketAddr>,
}

impl Members {
    /// Starts them and waits until they have a leader.
    pub fn start(directory: &Path) -> Result<Members, String> {
        let mut ports = Vec::new();
        for _ in NAMES {
            ports.push((free_address()?, free_address()?));
        }
        let all: Vec<String> = NAMES
            .iter()
            .zip(&ports)
            .map(|(name, (_, peers))| format!("{name}=http://{peers}"))
            .collect();
        let mut members = Vec::new();
        for (name, (clients, peers)) in NAMES.into_iter().zip(&ports) {
            let (clients_url, peers) = (format!("http://{clients}"), format!("http://{peers}"));
            let mut command = program("etcd")?;
            command.args(["--name", name, "--data-dir", name]);
            command.args(["--logger", "zap", "--log-level", "error"]);
            command.args(["--snapshot-count", "5000"]);
            command.args(["--listen-client-urls", &clients_url]);
            command.args(["--advertise-client-urls", &clients_url]);
            command.args([
                "--listen-peer-urls",
                &peers,
                "--initial-advertise-peer-urls",
                &peers,
            ]);
            command.args(["--initial-cluster", &all.join(",")]);
            members.push((*clients, Child::spawn(name, command, directory)?));
        }
        let mut leads = Vec::new();
        for (address, member) in &mut members {
            let is_leader = member.wait_for("a leader", || is_leader(*address))?;
            leads.push(is_leader);
        }
        let leader = leads
            .iter()
            .position(|it| *it)
            .ok_or("etcd has no leader")?;
        members.rotate_left(leader);
        let (addresses, processes) = members.into_iter().unzip();
        Ok(Members {
            processes,
            addresses,
        })
    }
}

/// Whether a member leads; `None` while there is no leader.
fn is_leader(address: SocketAddr) -> Option<bool> {
    let request = api::request("POST", "/v3/maintenance/status", "", "{}");
    let answer = Client::connect(address).ok()?.send(&request).ok()?;
    let status: Value = serde_json::from_slice(&answer).ok()?;
    let leader = status["leader"].as_str()?;
    Some(status["header"]["member_id"] == leader)
}
