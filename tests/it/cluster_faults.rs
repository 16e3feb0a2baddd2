//! Several nodes over etcd, while nodes and members of etcd die, stand still and come back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, Response};
use crate::etcd::{Etcds, has_etcd};
use crate::order::{Operation, is_linearizable};
use crate::process::{Server, wait_for};

const KEYS: u64 = 8;

/// What a request has shown of a key, or done to it.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Read(Option<u64>),
    Written(Option<u64>),
}

/// What a key has, after an event.
fn after(now: Option<u64>, event: Event) -> Option<Option<u64>> {
    match event {
        Event::Read(value) => (value == now).then_some(now),
        Event::Written(value) => Some(value),
    }
}

/// What a user has seen of each key.
pub type History = BTreeMap<u64, Vec<Operation<Event>>>;

/// Somebody who reads and writes at one node after the other.
struct User<'a> {
    nodes: &'a [SocketAddr],
    client: Option<Client>,
    random: u64,
    /// For values that nobody else writes.
    values: &'a AtomicU64,
    /// What reads ask for.
    query: &'a str,
    history: History,
    answered: u64,
}

impl User<'_> {
    fn step(&mut self) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let (key, kind) = (self.random >> 8 & (KEYS - 1), self.random >> 20 & 7);
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        let (method, query, body) = match kind {
            0..=3 => ("GET", self.query, String::new()),
            4 => ("DELETE", "", String::new()),
            _ => ("PUT", "", value.to_string()),
        };
        let start = Instant::now();
        let answer = self.ask(method, &format!("/kv/{key}{query}"), &body);
        let end = Some(Instant::now());
        let status = answer.as_ref().map(|it| it.status);
        let event = match (method, status) {
            ("GET", Some(200)) => Event::Read(answer.unwrap().text().parse().ok()),
            ("GET", Some(404)) => Event::Read(None),
            // Nothing was seen, or nothing has happened.
            ("GET", _) | (_, Some(503)) => return,
            ("PUT", _) => Event::Written(Some(value)),
            _ => Event::Written(None),
        };
        let end = match status {
            Some(200 | 404) => end,
            // It may have happened.
            Some(504) | None => None,
            Some(status) => panic!("{method}: {status}"),
        };
        self.answered += u64::from(end.is_some());
        let operation = Operation { start, end, event };
        self.history.entry(key).or_default().push(operation);
    }

    /// Asks a node; `None` if no answer has come.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> Option<Response> {
        // Another node now and then, and where one does not answer.
        if self.random & 15 == 0 {
            self.client = None;
        }
        if self.client.is_none() {
            let node = self.nodes[(self.random >> 30) as usize % self.nodes.len()];
            self.client = Client::try_connect(node).ok();
        }
        let client = self.client.as_mut()?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let answer = client
            .try_write(head)
            .and_then(|()| client.try_read(method));
        if answer.is_err() {
            self.client = None;
        }
        answer.ok()
    }
}

/// Lets users loose on nodes while something is done to them, by turns on those of each list. Returns what each has seen, and how many
/// requests were answered.
pub fn use_while(
    lists: &[&[SocketAddr]],
    query: &str,
    done_to_them: impl FnOnce(),
) -> (Vec<History>, u64) {
    let (over, values) = (AtomicBool::new(false), AtomicU64::new(1));
    let run = |number: u64| {
        let mut user = User {
            nodes: lists[number as usize % lists.len()],
            client: None,
            random: (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            values: &values,
            query,
            history: History::new(),
            answered: 0,
        };
        while !over.load(Ordering::Relaxed) {
            user.step();
        }
        (user.history, user.answered)
    };
    thread::scope(|scope| {
        let run = &run;
        let users: Vec<_> = (0..12).map(|it| scope.spawn(move || run(it))).collect();
        done_to_them();
        over.store(true, Ordering::Relaxed);
        let seen = users.into_iter().map(|it| it.join().unwrap());
        let (histories, answered): (Vec<_>, Vec<u64>) = seen.unzip();
        (histories, answered.iter().sum())
    })
}

/// The keys for which no order explains what was seen.
pub fn keys_without_order(histories: &[History]) -> Vec<u64> {
    let of = |key: &u64| -> Vec<_> {
        let of_key = histories.iter().map(|it| it.get(key).cloned());
        of_key.map(Option::unwrap_or_default).collect()
    };
    (0..KEYS)
        .filter(|key| !is_linearizable(&of(key), after))
        .collect()
}

pub fn export(node: &Server) -> String {
    let answer = node.get("/api/v1/export");
    assert_eq!(answer.status, 200);
    answer.text().to_owned()
}

pub fn wait_until_healthy(node: &Server) {
    wait_for("a node to be healthy", || {
        (node.get("/readyz").status == 200).then_some(())
    });
}

/// Waits until a user has got so many more answers to writes. For what must go on.
pub fn await_writes(node: &Server) {
    let mut client = node.connect();
    for _ in 0..20 {
        wait_for("a write", || {
            (client.send("PUT", "/kv/sign", "of life").status == 200).then_some(())
        });
    }
}

#[test]
fn what_clients_see_has_an_order_whatever_dies() {
    if !has_etcd() {
        return;
    }
    let mut etcds = Etcds::start(3);
    let options = ["--snapshot-after", "65536"];
    let mut nodes: Vec<Server> = (0..3).map(|_| etcds.node_with(&options)).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    let (histories, answered) = use_while(&[&addresses], "", || {
        await_writes(&nodes[0]);
        // The leader of etcd dies.
        let leader = etcds.leader();
        etcds.kill(leader);
        await_writes(&nodes[0]);
        etcds.start_again(leader);
        await_writes(&nodes[1]);
        // It stands still, and goes on when another one leads.
        let leader = etcds.leader();
        etcds.signal(leader, "-STOP");
        await_writes(&nodes[1]);
        etcds.signal(leader, "-CONT");
        await_writes(&nodes[2]);
        // A node stands still, and one dies.
        nodes[1].signal("-STOP");
        await_writes(&nodes[0]);
        nodes[1].signal("-CONT");
        nodes[2].kill();
        await_writes(&nodes[1]);
        // There is no quorum for a while.
        etcds.kill(0);
        etcds.kill(1);
        let etcds = &mut etcds;
        thread::scope(|scope| {
            let node = &nodes[0];
            scope.spawn(|| await_writes(node));
            wait_for("no quorum", || {
                (node.get("/readyz").status == 503).then_some(())
            });
            etcds.start_again(0);
            etcds.start_again(1);
        });
        await_writes(&nodes[1]);
    });
    assert_eq!(keys_without_order(&histories), [0; 0]);
    assert!(answered > 500, "{answered}");
    nodes.remove(2);
    nodes.push(etcds.node_with(&options));
    nodes.iter().for_each(wait_until_healthy);
    let exports: Vec<String> = nodes.iter().map(export).collect();
    assert!(exports.iter().all(|it| *it == exports[0]));
}

#[test]
fn reads_that_need_not_be_current_are_found_out() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let nodes = [etcds.node(), etcds.node(), etcds.node()];
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    let mut found = Vec::new();
    wait_for("a read of something old", || {
        let (histories, _) = use_while(&[&addresses], "?consistency=local", || {
            nodes.iter().for_each(await_writes);
        });
        // Begin anew, as the histories do.
        nodes[0].delete("/clear").expect(200, "");
        found = keys_without_order(&histories);
        (!found.is_empty()).then_some(())
    });
}

#[test]
fn without_a_quorum_nobody_is_told_anything_that_may_be_wrong() {
    if !has_etcd() {
        return;
    }
    let mut etcds = Etcds::start(3);
    let nodes = [etcds.node(), etcds.node()];
    nodes[0].put("/kv/k", "v").expect(200, "");
    nodes[1].get("/kv/k").expect(200, "v");
    etcds.kill(1);
    etcds.kill(2);
    let unavailable = nodes[0].get("/kv/k");
    unavailable.expect(503, "this node cannot tell whether it is current\n");
    assert_eq!(unavailable.header("retry-after"), Some("5"));
    let health = nodes[1].get("/api/v1/health");
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["cluster"]["status"], "no_quorum");
    // What is here can be read by whoever asks for that.
    let local = nodes[1].get("/kv/k?consistency=local");
    local.expect(200, "v");
    let age: u64 = local.header("x-threadkv-age").unwrap().parse().unwrap();
    assert!(age > 1000, "{age}");
    // It may happen, once there is a quorum again.
    let answer = nodes[0].put("/kv/k", "w");
    answer.expect(
        504,
        "the store did not answer in time; the write may or may not have happened\n",
    );
    // From now on it is known at once.
    let began = Instant::now();
    let refused = nodes[0].put("/kv/k", "x");
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("5"))
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    etcds.start_again(1);
    etcds.start_again(2);
    nodes.iter().for_each(wait_until_healthy);
    wait_for("a write", || {
        (nodes[0].put("/kv/k", "y").status == 200).then_some(())
    });
    nodes[1].get("/kv/k").expect(200, "y");
    assert_eq!(export(&nodes[0]), export(&nodes[1]));
}
