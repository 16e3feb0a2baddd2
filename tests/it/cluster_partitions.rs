//! Several nodes over etcd, on a network that falls apart: packets between some of them are lost without a word.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster_faults::{
    await_writes, export, keys_without_order, use_while, wait_until_healthy,
};
use crate::etcd::{Etcds, has_etcd};
use crate::network::{Network, Place, has_networks, in_network};
use crate::process::{Server, wait_for};

/// The longest that a node may take to be back when the network is. It takes about a second; the rest is for the machine.
const BACK: Duration = Duration::from_secs(20);

/// Three members of etcd, each in a place of its own.
fn etcds_in(network: &Network) -> (Etcds, [Place; 3]) {
    let places = [1, 2, 3].map(|it| network.place(it));
    let etcds = Etcds::start_where(3, |number, near| places[number].site(near), &[]);
    (etcds, places)
}

/// Waits until a node says that it is not current, and sees that it does so everywhere: it must not answer from what it has unless
/// it is asked for that.
fn expect_cut_off(node: &Server) {
    wait_for("a node to notice that it is cut off", || {
        (node.get("/readyz").status == 503).then_some(())
    });
    let health = node.get("/api/v1/health");
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["cluster"]["status"], "no_quorum");
    let local = node.get("/kv/before?consistency=local");
    local.expect(200, "v");
    let age: u64 = local.header("x-threadkv-age").unwrap().parse().unwrap();
    assert!(age >= 2000, "{age}");
    let read = node.get("/kv/before");
    read.expect(503, "this node cannot tell whether it is current\n");
    assert_eq!(read.header("retry-after"), Some("5"));
}

/// Waits until a node takes part again, and not for long.
fn expect_back(node: &Server) {
    let began = Instant::now();
    wait_until_healthy(node);
    await_writes(node);
    assert!(began.elapsed() < BACK, "{:?}", began.elapsed());
}

fn addresses(nodes: &[&Server]) -> Vec<SocketAddr> {
    nodes.iter().map(|it| it.address).collect()
}

fn expect_equal(nodes: &[&Server]) {
    let exports: Vec<String> = nodes.iter().map(|it| export(it)).collect();
    assert!(exports.iter().all(|it| *it == exports[0]));
}

#[test]
fn a_node_without_a_way_to_etcd_answers_nothing_old_and_comes_back() {
    if !has_etcd() || !has_networks() {
        return;
    }
    in_network(|network| {
        let (etcds, places) = etcds_in(network);
        let far = network.place(9);
        let nodes = [&etcds.node(), &etcds.node()];
        let cut_off = &far.server(&["--cluster", &etcds.urls()]);
        nodes[0].put("/kv/before", "v").expect(200, "");
        cut_off.get("/kv/before").expect(200, "v");
        let (connected, all) = (addresses(&nodes), addresses(&[nodes[0], nodes[1], cut_off]));
        let (histories, answered) = use_while(&[&connected, &all], "", || {
            await_writes(cut_off);
            // At first only answers are lost, so that what it has written is there and it does not know.
            places.iter().for_each(|it| network.cut_way(it, &far));
            await_writes(nodes[0]);
            places.iter().for_each(|it| network.cut_way(&far, it));
            thread::scope(|scope| {
                scope.spawn(|| expect_cut_off(cut_off));
                await_writes(nodes[1]);
            });
            nodes
                .iter()
                .for_each(|it| it.get("/readyz").expect(200, "ok\n"));
            places.iter().for_each(|it| network.mend(it, &far));
            expect_back(cut_off);
        });
        assert_eq!(keys_without_order(&histories), [0; 0]);
        assert!(answered > 500, "{answered}");
        expect_equal(&[nodes[0], nodes[1], cut_off]);
    });
}

#[test]
fn a_leader_of_etcd_without_the_others_confirms_nothing() {
    if !has_etcd() || !has_networks() {
        return;
    }
    in_network(|network| {
        let (etcds, places) = etcds_in(network);
        let leader = etcds.leader();
        let others: Vec<usize> = (0..3).filter(|it| *it != leader).collect();
        // One talks only to the leader, one asks it first, and one asks the others.
        let only = &Server::start(&["--cluster", &etcds.url(leader)]);
        let url = |it: usize| etcds.url(it);
        let first = [url(leader), url(others[0]), url(others[1])].join(",");
        let first = &Server::start(&["--cluster", &first]);
        let never = [url(others[0]), url(others[1])].join(",");
        let never = &Server::start(&["--cluster", &never]);
        first.put("/kv/before", "v").expect(200, "");
        only.get("/kv/before").expect(200, "v");
        let (connected, all) = (addresses(&[first, never]), addresses(&[first, never, only]));
        let (histories, answered) = use_while(&[&connected, &all], "", || {
            await_writes(only);
            for other in &others {
                network.cut(&places[leader], &places[*other]);
            }
            thread::scope(|scope| {
                scope.spawn(|| expect_cut_off(only));
                await_writes(never);
                await_writes(first);
            });
            [first, never].iter().for_each(|it| wait_until_healthy(it));
            for other in &others {
                network.mend(&places[leader], &places[*other]);
            }
            expect_back(only);
        });
        assert_eq!(keys_without_order(&histories), [0; 0]);
        assert!(answered > 500, "{answered}");
        expect_equal(&[first, never, only]);
    });
}
