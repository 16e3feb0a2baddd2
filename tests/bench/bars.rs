//! What threadkv is to reach, compared with what was found.

use std::fmt;

use serde::Serialize;

use crate::many;
use crate::memory;
use crate::pauses;
use crate::peers::Peer;
use crate::results::Results;
use crate::watch;

/// The longest time in milliseconds that others may be made to wait for.
const LONGEST_PAUSE: f64 = 10.0;

/// One thing to reach.
#[derive(Serialize)]
pub struct Bar {
    pub what: String,
    /// What was found; none if it was not measured.
    pub figure: Option<f64>,
    pub limit: f64,
    /// Whether the figure has to be the limit or more, rather than the limit or less.
    pub at_least: bool,
}

impl Bar {
    fn at_least(limit: f64, what: impl Into<String>, figure: Option<f64>) -> Bar {
        Bar {
            what: what.into(),
            figure,
            limit,
            at_least: true,
        }
    }

    fn at_most(limit: f64, what: impl Into<String>, figure: Option<f64>) -> Bar {
        Bar {
            at_least: false,
            ..Bar::at_least(limit, what, figure)
        }
    }

    fn is_met(&self) -> bool {
        let met = |figure| match self.at_least {
            true => figure >= self.limit,
            false => figure <= self.limit,
        };
        self.figure.is_some_and(met)
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = self.figure.map(|figure| format!("{figure:.2}"));
        let sign = if self.at_least { "≥" } else { "≤" };
        let verdict = if self.is_met() { "met" } else { "MISSED" };
        let (what, figure) = (&self.what, figure.unwrap_or_default());
        write!(
            f,
            "{what:<66} {figure:>8} {sign} {:<5.2} {verdict}",
            self.limit
        )
    }
}

/// All of them.
pub fn all(results: &Results) -> Vec<Bar> {
    let mut bars = in_memory(results);
    bars.extend(on_disk(results));
    bars.extend(at_rest(results));
    bars.extend(of_pauses(results));
    bars.extend(of_watching(results));
    bars.extend(of_cluster(results));
    bars
}

/// Requests a second by another server's, and p99 by its.
fn in_memory(results: &Results) -> Vec<Bar> {
    let [threadkv, bare, redis, etcd] =
        [Peer::Threadkv, Peer::Bare, Peer::Redis, Peer::Etcd].map(Peer::name);
    let rates = |load: &str, other| results.speed_ratio(load, [threadkv, other], |it| it.rate);
    let p99s = |load: &str, other| results.speed_ratio(load, [threadkv, other], |it| it.p99);
    let mut bars = Vec::new();
    for (verb, by_redis) in [("get", [1.4, 1.2, 1.0]), ("put", [1.2, 1.1, 1.0])] {
        for connections in [16, 64, 256, 1000] {
            let load = format!("{verb}-{connections}");
            let what = format!("{load}: req/s by bare tiny_http's");
            bars.push(Bar::at_least(0.95, what, rates(&load, bare)));
            let what = format!("{load}: p99 by bare tiny_http's");
            bars.push(Bar::at_most(1.3, what, p99s(&load, bare)));
            let what = format!("{load}: p99 by Redis/webdis's");
            bars.push(Bar::at_most(1.0, what, p99s(&load, redis)));
        }
        for (connections, limit) in [64, 256, 1000].into_iter().zip(by_redis) {
            let load = format!("{verb}-{connections}");
            let what = format!("{load}: req/s by Redis/webdis's");
            bars.push(Bar::at_least(limit, what, rates(&load, redis)));
        }
        let load = format!("{verb}-64");
        let what = format!("{load}: req/s by etcd's");
        bars.push(Bar::at_least(5.0, what, rates(&load, etcd)));
    }
    let what = "bulk-16: puts of 500 keys, req/s by Redis/webdis's";
    bars.push(Bar::at_least(1.5, what, rates("bulk-16", redis)));
    bars
}

fn on_disk(results: &Results) -> Vec<Bar> {
    let [sync, redis] = [Peer::ThreadkvSync, Peer::RedisSync].map(Peer::name);
    let bar = |(connections, limit)| {
        let load = format!("durable-put-{connections}");
        let figure = results.speed_ratio(&load, [sync, redis], |it| it.rate);
        Bar::at_least(
            limit,
            format!("{load}: req/s by Redis always/webdis's"),
            figure,
        )
    };
    [(64, 1.4), (256, 1.2)].map(bar).into()
}

fn at_rest(results: &Results) -> Vec<Bar> {
    let [threadkv, redis] = [Peer::Threadkv, Peer::Redis].map(Peer::name);
    let resident = |server| results.figure(memory::KEYS, server, memory::WITH_KEYS);
    let by_redis = ratio(resident(threadkv), resident(redis));
    let connection = results.figure(memory::IDLE, threadkv, memory::A_CONNECTION);
    vec![
        Bar::at_most(0.95, "memory of a million keys by Redis's", by_redis),
        Bar::at_most(14.0, "memory of an idle connection in kB", connection),
    ]
}

fn of_pauses(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    for peer in [Peer::Threadkv, Peer::ThreadkvSync] {
        let server = peer.name();
        for phase in pauses::BOUNDED {
            for name in pauses::bounded_figures(peer == Peer::ThreadkvSync) {
                let what = format!("{server}: {phase}, {name} in ms");
                let figure = results.figure(phase, server, name);
                bars.push(Bar::at_most(LONGEST_PAUSE, what, figure));
            }
        }
        let what = format!("{server}: ten million keys have expired and are gone after s");
        let figure = results.figure(pauses::EXPIRY, server, pauses::GONE);
        bars.push(Bar::at_most(15.0, what, figure));
    }
    bars
}

fn of_watching(results: &Results) -> Vec<Bar> {
    let figure = |load, name| results.figure(load, Peer::Threadkv.name(), name);
    let [p50, p99] = [watch::P50, watch::P99].map(|name| figure(watch::LATENCY, name));
    let [missing, kept] = [watch::MISSING, watch::KEPT].map(|name| figure(watch::FANOUT, name));
    vec![
        Bar::at_most(1.0, "watch-latency: p50 in ms", p50),
        Bar::at_most(10.0, "watch-latency: p99 in ms", p99),
        Bar::at_most(0.0, "watch-1000: events missing", missing),
        Bar::at_least(0.7, "watch-1000: GETs by those without watchers", kept),
    ]
}

/// Those of several nodes.
fn of_cluster(results: &Results) -> Vec<Bar> {
    let [cluster, etcd, sync] =
        [Peer::Cluster, Peer::EtcdThree, Peer::ThreadkvSync].map(Peer::name);
    let rate = |limit, load: &str, other, whose| {
        let figure = results.speed_ratio(load, [cluster, other], |it| it.rate);
        Bar::at_least(limit, format!("{load}: req/s by {whose}"), figure)
    };
    let latency = results.speed_ratio("cluster-put-1", [cluster, etcd], |it| it.p50);
    let figure = |load, name| results.figure(load, cluster, name);
    let [ready, clear] = [many::READY, many::CLEAR].map(|name| figure(many::NAME, name));
    vec![
        rate(2.2, "cluster-put-64", etcd, "etcd's"),
        rate(3.0, "cluster-put-256", etcd, "etcd's"),
        rate(0.4, "cluster-put-64", sync, "one durable node's"),
        rate(2.5, "cluster-get-64", etcd, "etcd's"),
        rate(0.45, "cluster-get-64", sync, "one node's"),
        Bar::at_most(1.6, "cluster-put-1: p50 by etcd's", latency),
        rate(2.5, "cluster-bulk-16", etcd, "etcd's"),
        Bar::at_most(
            30.0,
            "cluster-watch: p99 in ms",
            figure(watch::ELSEWHERE, watch::P99),
        ),
        Bar::at_most(5.0, "cluster-million: a node is ready after s", ready),
        Bar::at_most(
            50.0,
            "cluster-million: longest write beside clear in ms",
            clear,
        ),
    ]
}

fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Option<f64> {
    Some(ours? / theirs?)
}
