//! Real etcds, and threadkv on them.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Client;
use crate::directory::Directory;
use crate::faults::library;
use crate::ports::free_address;
use crate::process::{Server, wait_for};
use crate::programs;

/// Whether etcd is there; says so if not.
pub fn has_etcd() -> bool {
    programs::has("etcd", "etcd-server", "a cluster")
        && programs::has("etcdctl", "etcd-client", "a cluster")
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
    sites: Vec<Site>,
    children: Vec<Child>,
    options: Vec<String>,
}

/// Where a member runs.
pub struct Site {
    /// What starts it, with its options, if that is not the test itself.
    pub wrapper: Vec<String>,
    /// Where it listens for clients.
    pub client: SocketAddr,
    /// Where it listens for other members.
    pub peer: SocketAddr,
    /// The directory of its data, which need not be there.
    pub data: PathBuf,
}

impl Etcds {
    /// Starts so many members, and waits until they have agreed on a leader.
    pub fn start(count: usize) -> Etcds {
        Etcds::start_with(count, &[])
    }

    /// The same with more options of etcd's.
    pub fn start_with(count: usize, options: &[&str]) -> Etcds {
        Etcds::start_where(count, |_, site| site, options)
    }

    /// The same, each member where `site` says, which gets the number of the member and a site on this machine.
    pub fn start_where(
        count: usize,
        site: impl Fn(usize, Site) -> Site,
        options: &[&str],
    ) -> Etcds {
        for _ in 0..20 {
            let directory = Directory::new();
            let near = |number| Site {
                wrapper: Vec::new(),
                client: free_address(),
                peer: free_address(),
                data: directory.path().join(format!("m{number}")),
            };
            let sites = (0..count).map(|it| site(it, near(it))).collect();
            if let Some(etcds) = Etcds::try_start(directory, sites, options) {
                return etcds;
            }
        }
        panic!("no ports for etcd");
    }

    /// The same; `None` if somebody else has taken one of the ports.
    fn try_start(directory: Directory, sites: Vec<Site>, options: &[&str]) -> Option<Etcds> {
        let options = options.iter().map(ToString::to_string).collect();
        let mut etcds = Etcds {
            directory,
            sites,
            children: Vec::new(),
            options,
        };
        for number in 0..etcds.sites.len() {
            let child = etcds.spawn(number);
            etcds.children.push(child);
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while !(0..etcds.len()).all(|it| etcds.is_healthy(it)) {
            let mut children = etcds.children.iter_mut();
            if children.any(|it| it.try_wait().unwrap().is_some()) {
                return None;
            }
            assert!(Instant::now() < deadline, "etcd does not come up");
            thread::sleep(Duration::from_millis(20));
        }
        Some(etcds)
    }

    /// For `--cluster`.
    pub fn urls(&self) -> String {
        let urls: Vec<String> = (0..self.len()).map(|it| self.url(it)).collect();
        urls.join(",")
    }

    /// For a node that talks to one member only.
    pub fn url(&self, number: usize) -> String {
        format!("http://{}", self.sites[number].client)
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

    /// The same with a clock that is so many seconds ahead.
    pub fn node_ahead(&self, seconds: u64) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
        command
            .args(["--port", "0", "--cluster", &*self.urls()])
            .env("LD_PRELOAD", library())
            .env("FAULTS_CLOCK_AHEAD", seconds.to_string());
        Server::spawn(command)
    }

    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Which member leads.
    pub fn leader(&self) -> usize {
        wait_for("etcd to have a leader", || {
            (0..self.len()).find(|it| {
                let status = self.post(*it, "/v3/maintenance/status", "{}");
                status.is_some_and(|it| it["header"]["member_id"] == it["leader"])
            })
        })
    }

    pub fn kill(&mut self, number: usize) {
        let child = &mut self.children[number];
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a member again that was killed.
    pub fn start_again(&mut self, number: usize) {
        self.children[number] = self.spawn(number);
    }

    /// The port on which a member listens for clients.
    pub fn port(&self, number: usize) -> u16 {
        self.sites[number].client.port()
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
        let Site { data, peer, .. } = &self.sites[0];
        fs::remove_dir_all(data).unwrap();
        let peer = format!("http://{peer}");
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
        let pid = self.children[number].id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Asks a member; `None` if it does not answer.
    pub fn post(&self, number: usize, path: &str, body: &str) -> Option<Value> {
        let mut client = Client::try_connect(self.sites[number].client).ok()?;
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

    fn spawn(&self, number: usize) -> Child {
        let url = |address| format!("http://{address}");
        let all: Vec<String> = (0..)
            .zip(&self.sites)
            .map(|(it, site)| format!("m{it}={}", url(site.peer)))
            .collect();
        let Site {
            wrapper,
            client,
            peer,
            data,
        } = &self.sites[number];
        let log = self.directory.path().join(format!("m{number}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        // It ends with whoever has started it, also where that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(wrapper);
        command.args(["etcd", "--name", &format!("m{number}"), "--data-dir"]);
        command.arg(data);
        command.args([
            "--listen-client-urls",
            &url(*client),
            "--advertise-client-urls",
            &url(*client),
        ]);
        command.args([
            "--listen-peer-urls",
            &url(*peer),
            "--initial-advertise-peer-urls",
            &url(*peer),
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
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command.spawn().unwrap()
    }
}

impl Drop for Etcds {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
