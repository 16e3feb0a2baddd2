//! Several nodes over etcd, when etcd is full, restarted, restored or compacted, and when a node is behind or cut off.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster_faults::{export, wait_until_healthy};
use crate::etcd::{Etcds, has_etcd, leads, wait_to_lead};
use crate::process::{Server, wait_for};
use crate::watcher::Watcher;

/// Waits until a write is taken.
fn await_write(node: &Server) {
    wait_for("a write", || {
        (node.put("/kv/sign", "of life").status == 200).then_some(())
    });
}

#[test]
fn a_full_etcd_refuses_writes_until_there_is_room() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start_with(1, &["--quota-backend-bytes", "8000000"]);
    let (mut a, b) = (etcds.node(), etcds.node());
    let value = "v".repeat(500_000);
    let mut written = 0;
    let refused = wait_for("a full etcd", || {
        written += 1;
        let answer = a.put(&format!("/kv/{}", written % 3), &value);
        (answer.status != 200).then_some(answer)
    });
    refused.expect(503, "the store cannot be written to\n");
    let health = a.get("/api/v1/health");
    assert_eq!(health.status, 503);
    assert_eq!(
        health.json()["problem"],
        "etcd has no room, writes are refused"
    );
    // Reads go on, and see what was answered.
    b.get("/kv/1").expect(200, &value);
    // The nodes go on to look after it.
    let size = |node: &Server| {
        let status = node.get("/api/v1/status").json();
        status["data"]["cluster"]["etcd"]["db_size"]
            .as_u64()
            .unwrap()
    };
    for node in [&a, &b] {
        wait_for("its size", || (size(node) > 4_000_000).then_some(()));
    }
    // Whoever makes room may well have etcd forget all that the nodes have not put into a snapshot yet.
    etcds.ctl(&["compact", &etcds.revision()]);
    etcds.ctl(&["defrag"]);
    for node in [&a, &b] {
        wait_for("its new size", || (size(node) < 4_000_000).then_some(()));
    }
    etcds.ctl(&["alarm", "disarm"]);
    await_write(&a);
    a.get("/readyz").expect(200, "ok\n");
    // A node that does not have it can start all the same.
    let late = etcds.node();
    assert_eq!(export(&late), export(&a));
    assert_eq!(export(&b), export(&a));
    assert!(a.has_logged("etcd has no room left"));
}

#[test]
fn all_members_of_etcd_may_start_again_at_once() {
    if !has_etcd() {
        return;
    }
    let mut etcds = Etcds::start(3);
    let nodes = [etcds.node(), etcds.node()];
    for n in 0..50 {
        nodes[n % 2].put(&format!("/kv/{n}"), "v").expect(200, "");
    }
    for member in 0..3 {
        etcds.kill(member);
    }
    for member in 0..3 {
        etcds.start_again(member);
    }
    nodes.iter().for_each(await_write);
    nodes.iter().for_each(wait_until_healthy);
    let counted = nodes[1].get("/api/v1/kv?count_only=true").json();
    assert_eq!(counted["data"]["count"], 51);
    assert_eq!(export(&nodes[0]), export(&nodes[1]));
}

#[test]
fn a_member_that_ends_in_order_is_not_taken_for_a_refusal() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(3);
    let node = etcds.node();
    let statuses = thread::scope(|scope| {
        let writes = |number: u32| {
            let mut client = node.connect();
            let write = |n| client.send("PUT", &format!("/kv/{number}-{n}"), "v").status;
            (0..300).map(write).collect::<Vec<u16>>()
        };
        let users: Vec<_> = (0..8)
            .map(|number| scope.spawn(move || writes(number)))
            .collect();
        // The one that is asked.
        etcds.signal(0, "-TERM");
        let statuses = users.into_iter().map(|it| it.join().unwrap());
        statuses.flatten().collect::<Vec<u16>>()
    });
    assert_eq!(statuses, [200; 2400]);
}

#[test]
fn a_node_catches_up_that_is_behind_by_a_million_writes() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let (a, b) = (etcds.node_with(&["--max-batch", "1000"]), etcds.node());
    b.signal("-STOP");
    let mut client = a.connect();
    for batch in 0..1000 {
        let operations: Vec<Value> = (0..1000)
            .map(|it| json!({"key": format!("{:07}", batch * 1000 + it), "value": "v"}))
            .collect();
        let body = json!({"operations": operations}).to_string();
        assert_eq!(client.send("POST", "/api/v1/kv/bulk", body).status, 200);
    }
    b.signal("-CONT");
    // A read that would wait for too long is refused, and none tells of less.
    let counted = wait_for("the node to have caught up", || {
        let counted = b.get("/api/v1/kv?prefix=0&count_only=true");
        assert!([200, 503].contains(&counted.status), "{}", counted.text());
        (counted.status == 200).then(|| counted.json())
    });
    assert_eq!(counted["data"]["count"], 1_000_000);
    assert!(export(&b) == export(&a));
}

#[test]
fn a_token_of_etcd_that_has_expired_is_replaced() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start_with(1, &["--auth-token-ttl", "1"]);
    etcds.ctl(&["user", "add", "root:secret"]);
    etcds.ctl(&["user", "add", "node:word"]);
    etcds.ctl(&["role", "add", "node"]);
    etcds.ctl(&[
        "role",
        "grant-permission",
        "--prefix=true",
        "node",
        "readwrite",
        "threadkv/",
    ]);
    etcds.ctl(&["user", "grant-role", "node", "node"]);
    etcds.ctl(&["user", "grant-role", "root", "root"]);
    etcds.ctl(&["auth", "enable"]);
    let file = etcds.directory().join("password");
    fs::write(&file, "word\n").unwrap();
    let file = file.to_str().unwrap();
    let options = ["--cluster-user", "node", "--cluster-password-file", file];
    let nodes = [etcds.node_with(&options), etcds.node_with(&options)];
    // On a busy machine a new token may be too old before it is used, and then once more.
    let expect_agreement = |value: &str| {
        wait_for("both to be let in", || {
            let written = nodes[0].put("/kv/k", value).status == 200;
            let read = nodes[1].get("/kv/k");
            (written && read.status == 200).then(|| assert_eq!(read.text(), value))
        });
    };
    expect_agreement("v");
    // A token lives on while it is used.
    nodes.iter().for_each(|node| node.signal("-STOP"));
    thread::sleep(Duration::from_millis(2500));
    nodes.iter().for_each(|node| node.signal("-CONT"));
    expect_agreement("w");
    wait_for("a leader", || nodes.iter().any(leads).then_some(()));
}

/// Stands between a node and etcd.
struct Relay {
    port: u16,
    stalled: Arc<AtomicBool>,
}

impl Relay {
    fn to(port: u16) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay = Relay {
            port: listener.local_addr().unwrap().port(),
            stalled: Arc::default(),
        };
        let stalled = Arc::clone(&relay.stalled);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                    continue;
                };
                let ways = [
                    (near.try_clone().unwrap(), far.try_clone().unwrap()),
                    (far, near),
                ];
                for (from, to) in ways {
                    let stalled = Arc::clone(&stalled);
                    thread::spawn(move || forward(from, to, &stalled));
                }
            }
        });
        relay
    }
}

/// Moves bytes, but none while it is stalled.
fn forward(mut from: TcpStream, mut to: TcpStream, stalled: &AtomicBool) {
    let mut buffer = [0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        while stalled.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn a_node_that_is_cut_off_says_so_and_comes_back() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let relay = Relay::to(etcds.port(0));
    let url = format!("http://127.0.0.1:{}", relay.port);
    let cut_off = Server::start(&["--cluster", &url]);
    let other = etcds.node();
    other.put("/kv/k", "old").expect(200, "");
    cut_off.get("/kv/k").expect(200, "old");
    relay.stalled.store(true, Ordering::Relaxed);
    wait_for("a node that is cut off", || {
        (cut_off.get("/readyz").status == 503).then_some(())
    });
    for n in 0..100 {
        other.put("/kv/k", n.to_string()).expect(200, "");
    }
    cut_off
        .get("/kv/k")
        .expect(503, "this node cannot tell whether it is current\n");
    cut_off.get("/kv/k?consistency=local").expect(200, "old");
    relay.stalled.store(false, Ordering::Relaxed);
    wait_until_healthy(&cut_off);
    cut_off.get("/kv/k").expect(200, "99");
    cut_off.put("/kv/k", "new").expect(200, "");
    other.get("/kv/k").expect(200, "new");
}

#[test]
fn an_etcd_that_was_restored_takes_all_nodes_back() {
    if !has_etcd() {
        return;
    }
    let mut etcds = Etcds::start(1);
    let nodes = [etcds.node(), etcds.node()];
    nodes[0].put("/kv/k", "kept").expect(200, "");
    etcds.save();
    nodes[1].put("/kv/k", "lost").expect(200, "");
    nodes[0].get("/kv/k").expect(200, "lost");
    // It stands still while the other one makes as many records as are lost.
    nodes[0].signal("-STOP");
    let mut watcher = Watcher::open(&nodes[1], "");
    watcher.next().json();
    etcds.restore();
    wait_until_healthy(&nodes[1]);
    wait_for("the state of before", || {
        (nodes[1].get("/kv/k").text() == "kept").then_some(())
    });
    nodes[1].put("/kv/other", "new").expect(200, "");
    // Whoever watches has seen what has never been.
    watcher.expect_end();
    nodes[0].signal("-CONT");
    wait_for("the state of before", || {
        (nodes[0].get("/kv/k").text() == "kept").then_some(())
    });
    nodes[0].get("/kv/other").expect(200, "new");
    assert_eq!(export(&nodes[0]), export(&nodes[1]));
}

#[test]
fn a_deleted_log_begins_anew_behind_the_snapshot() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let options = ["--snapshot-after", "4096"];
    let mut a = etcds.node_with(&options);
    wait_to_lead(&a);
    let b = etcds.node();
    for n in 0..50 {
        a.put(&format!("/kv/{n}"), "v".repeat(100)).expect(200, "");
    }
    a.wait_for_log("snapshot of ");
    etcds.ctl(&["del", "threadkv/log"]);
    a.wait_for_log("the log in etcd was deleted");
    await_write(&a);
    await_write(&b);
    let late = etcds.node();
    assert_eq!(export(&a), export(&b));
    assert_eq!(export(&late), export(&b));
}

#[test]
fn a_node_starts_behind_a_snapshot_whatever_else_etcd_has_forgotten() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let mut a = etcds.node_with(&["--snapshot-after", "4096"]);
    for n in 0..50 {
        a.put(&format!("/kv/{n}"), "v".repeat(100)).expect(200, "");
    }
    a.wait_for_log("snapshot of ");
    // Reads move etcd's revision as well, and so the nodes have it forgotten without a new snapshot.
    for _ in 0..50 {
        a.get("/kv/1");
    }
    etcds.ctl(&["compact", &etcds.revision()]);
    a.put("/kv/late", "v").expect(200, "");
    let expected = export(&a);
    a.kill();
    assert_eq!(export(&etcds.node()), expected);
}
