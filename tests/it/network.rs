//! A network for one test, in which packets between two places can be dropped. Each place is a network namespace of Linux with one link to
//! the test, which forwards what they send to each other. Namespaces end with their processes, so nothing is left, whatever happens.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::etcd::Site;
use crate::process::{Server, is_root};
use crate::programs;

/// Whether there can be such networks; says so if not.
pub fn has_networks() -> bool {
    is_root("a network with links that can be cut")
        && programs::has("ip", "iproute2", "a network with links that can be cut")
}

/// The place of the test itself, which can talk to all others.
pub struct Network(());

/// Runs a test in a network of its own.
pub fn in_network(test: impl FnOnce(&Network) + Send) {
    // A thread of its own, since the one of the caller may go on with other tests.
    let run = || {
        let holder = Holder::start();
        let namespace = File::open(holder.namespace()).unwrap();
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).unwrap();
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        test(&Network(()));
    };
    let ended = thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| resume_unwind(panic));
}

impl Network {
    /// A place with this number, which no other one has.
    pub fn place(&self, number: u8) -> Place {
        let holder = Holder::start();
        let link = format!("to{number}");
        let (pid, near) = (holder.0.id().to_string(), format!("10.77.{number}.1"));
        let far = Ipv4Addr::new(10, 77, number, 2);
        ip(&[
            "link", "add", "name", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid,
        ]);
        ip(&["address", "add", &format!("{near}/24"), "dev", &link]);
        ip(&["link", "set", &link, "up"]);
        let place = Place {
            holder,
            address: far,
        };
        place.ip(&["address", "add", &format!("{far}/24"), "dev", "eth0"]);
        place.ip(&["link", "set", "eth0", "up"]);
        place.ip(&["route", "add", "default", "via", &near]);
        place
    }

    /// From now on, what these places send to each other is lost without a word.
    pub fn cut(&self, one: &Place, other: &Place) {
        self.cut_way(one, other);
        self.cut_way(other, one);
    }

    /// The same for one direction.
    pub fn cut_way(&self, from: &Place, to: &Place) {
        rule("add", from, to);
    }

    /// Ends what [`Network::cut`] has begun.
    pub fn mend(&self, one: &Place, other: &Place) {
        rule("del", one, other);
        rule("del", other, one);
    }
}

/// Adds or removes a rule that drops packets.
fn rule(what: &str, from: &Place, to: &Place) {
    let [from, to] = [from, to].map(|it| it.address.to_string());
    ip(&["rule", what, "from", &from, "to", &to, "blackhole"]);
}

/// A place in a network. It can talk to the test, and to other places.
pub struct Place {
    holder: Holder,
    pub address: Ipv4Addr,
}

impl Place {
    /// What runs a program there.
    fn wrapper(&self) -> Vec<String> {
        vec![
            "nsenter".into(),
            format!("--net={}", self.holder.namespace()),
        ]
    }

    /// For a member of etcd there.
    pub fn site(&self, near: Site) -> Site {
        let at = |port| SocketAddr::from((self.address, port));
        Site {
            wrapper: self.wrapper(),
            client: at(2379),
            peer: at(2380),
            data: near.data,
        }
    }

    /// Starts a server there.
    pub fn server(&self, options: &[&str]) -> Server {
        let mut command = self.command(env!("CARGO_BIN_EXE_threadkv"));
        let host = self.address.to_string();
        command
            .args(["--port", "0", "--no-auth", "--host", &host])
            .args(options);
        Server::spawn(command)
    }

    fn command(&self, program: &str) -> Command {
        let wrapper = self.wrapper();
        let mut command = Command::new(&wrapper[0]);
        command.args(&wrapper[1..]).arg(program);
        command
    }

    fn ip(&self, arguments: &[&str]) {
        run(self.command("ip").args(arguments));
    }
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// A process that does nothing but keep a namespace. Killed when dropped, or when the test is.
struct Holder(Child);

impl Holder {
    fn start() -> Holder {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c"]);
        command.arg("ip link set lo up && echo there && exec sleep infinity");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut holder = Holder(command.spawn().unwrap());
        let mut said = String::new();
        let mut stdout = BufReader::new(holder.0.stdout.take().unwrap());
        stdout.read_line(&mut said).unwrap();
        assert_eq!(said, "there\n");
        holder
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
