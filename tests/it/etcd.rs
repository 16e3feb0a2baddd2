//! Real etcds, and threadkv on them.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Client;
use crate::directory::Directory;
use crate::ports::free_address;
use crate::process::{Server, wait_for};
use crate::programs;

/// Whether etcd is there; says so if not.
pub fn has_etcd() -> bool {
    programs::has("etcd", "etcd-server", "a cluster")
}

/// Whether a node does what one of them has to do, such as snapshots.
pub fn leads(node: &Server) -> bool {
    node.get("/api/v1/status").json()["data"]["cluster"]["status"] == "leader"
}

pub fn wait_to_lead(node: &Server) {
    wait_for("a node to lead", || leads(node).then_some(()));
}

/// The members of one etcd. Killed when dropped.
pub struct Etcds {
    directory: Directory,
    members: Vec<Member>,
    options: Vec<String>,
}

struct Member {
    client: u16,
    peer: u16,
    child: Child,
}

impl Etcds {
    /// Starts so many members, and waits until they have agreed on a leader.
    pub fn start(count: usize) -> Etcds {
        Etcds::start_with(count, &[])
    }

    /// The same with more options of etcd's.
    pub fn start_with(count: usize, options: &[&str]) -> Etcds {
        for _ in 0..20 {
            if let Some(etcds) = Etcds::try_start(count, options) {
                return etcds;
            }
        }
        panic!("no ports for etcd");
    }

    /// The same; `None` if somebody else has taken one of the ports.
    fn try_start(count: usize, options: &[&str]) -> Option<Etcds> {
        let directory = Directory::new();
        let ports: Vec<(u16, u16)> = (0..count)
            .map(|_| (free_address().port(), free_address().port()))
            .collect();
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let start = |number| {
            let child = spawn(&directory, &ports, number, &options);
            let (client, peer) = ports[number];
            Member {
                client,
                peer,
                child,
            }
        };
        let members = (0..count).map(start).collect();
        let mut etcds = Etcds {
            directory,
            members,
            options,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !(0..count).all(|it| etcds.is_healthy(it)) {
            let mut members = etcds.members.iter_mut();
            if members.any(|it| it.child.try_wait().unwrap().is_some()) {
                return None;
            }
            assert!(Instant::now() < deadline, "etcd does not come up");
            thread::sleep(Duration::from_millis(20));
        }
        Some(etcds)
    }

    /// For `--cluster`.
    pub fn urls(&self) -> String {
        let urls = self.members.iter();
        let urls: Vec<String> = urls
            .map(|it| format!("http://127.0.0.1:{}", it.client))
            .collect();
        urls.join(",")
    }

    /// Starts a node on these etcds.
    pub fn node(&self) -> Server {
        self.node_with(&[])
    }

    /// The same with more options.
    pub fn node_with(&self, options: &[&str]) -> Server {
        let urls = self.urls();
        Server::start(&[&["--cluster", &*urls], options].concat())
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Which member leads.
    pub fn leader(&self) -> usize {
        wait_for("etcd to have a leader", || {
            (0..self.members.len()).find(|it| {
                let status = self.post(*it, "/v3/maintenance/status", "{}");
                status.is_some_and(|it| it["header"]["member_id"] == it["leader"])
            })
        })
    }

    pub fn kill(&mut self, number: usize) {
        let child = &mut self.members[number].child;
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a member again that was killed.
    pub fn start_again(&mut self, number: usize) {
        let ports: Vec<_> = self.members.iter().map(|it| (it.client, it.peer)).collect();
        self.members[number].child = spawn(&self.directory, &ports, number, &self.options);
    }

    /// The port on which a member listens for clients.
    pub fn port(&self, number: usize) -> u16 {
        self.members[number].client
    }

    /// Where this may leave files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs etcdctl, which must succeed. Returns what it says.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3");
        command.args(["--endpoints", &self.urls()]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// etcd's revision.
    pub fn revision(&self) -> String {
        let answer = self.post(0, "/v3/kv/range", r#"{"key": "YQ=="}"#);
        let revision = &answer.unwrap()["header"]["revision"];
        revision.as_str().unwrap().into()
    }

    /// Saves a copy of what etcd has.
    pub fn save(&self) {
        let file = self.directory.path().join("backup");
        self.ctl(&["snapshot", "save", file.to_str().unwrap()]);
    }

    /// Stops the only member, and starts it again with what was saved.
    pub fn restore(&mut self) {
        self.kill(0);
        let data = self.directory.path().join("m0");
        fs::remove_dir_all(&data).unwrap();
        let peer = format!("http://127.0.0.1:{}", self.members[0].peer);
        let file = self.directory.path().join("backup");
        self.ctl(&[
            "snapshot",
            "restore",
            file.to_str().unwrap(),
            "--data-dir",
            data.to_str().unwrap(),
            "--name",
            "m0",
            "--initial-cluster",
            &format!("m0={peer}"),
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        self.start_again(0);
    }

    pub fn signal(&self, number: usize, signal: &str) {
        let pid = self.members[number].child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Asks a member; `None` if it does not answer.
    pub fn post(&self, number: usize, path: &str, body: &str) -> Option<Value> {
        let address = (Ipv4Addr::LOCALHOST, self.members[number].client).into();
        let mut client = Client::try_connect(address).ok()?;
        client.set_patience(Duration::from_secs(2));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        client.try_write(head).ok()?;
        let answer = client.try_read("POST").ok()?;
        serde_json::from_slice(&answer.body).ok()
    }

    fn is_healthy(&self, number: usize) -> bool {
        let status = self.post(number, "/v3/kv/range", r#"{"key": "YQ=="}"#);
        status.is_some_and(|it| it["header"]["revision"].is_string())
    }
}

impl Drop for Etcds {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

fn spawn(directory: &Directory, ports: &[(u16, u16)], number: usize, options: &[String]) -> Child {
    let url = |port| format!("http://127.0.0.1:{port}");
    let all: Vec<String> = (0..)
        .zip(ports)
        .map(|(it, (_, peer))| format!("m{it}={}", url(*peer)))
        .collect();
    let (client, peer) = ports[number];
    let log = directory.path().join(format!("m{number}.log"));
    let log = File::options().create(true).append(true).open(log).unwrap();
    // It ends with whoever has started it, also where that is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "etcd"]);
    command.args(["--name", &format!("m{number}"), "--data-dir"]);
    command.arg(directory.path().join(format!("m{number}")));
    command.args([
        "--listen-client-urls",
        &url(client),
        "--advertise-client-urls",
        &url(client),
    ]);
    command.args([
        "--listen-peer-urls",
        &url(peer),
        "--initial-advertise-peer-urls",
        &url(peer),
    ]);
    command.args([
        "--initial-cluster",
        &all.join(","),
        "--snapshot-count",
        "5000",
    ]);
    command.args([
        "--heartbeat-interval",
        "100",
        "--election-timeout",
        "1000",
        "--log-level",
        "error",
    ]);
    command
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command.spawn().unwrap()
}
