//! What threadkv is to reach, compared with what was found.

use std::fmt;

use serde::Serialize;

use crate::memory;
use crate::pauses;
use crate::peers::Peer;
use crate::results::Results;
use crate::watch;

/// The longest time in milliseconds that others may be made to wait for.
const LONGEST_PAUSE: f64 = 20.0;

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

    fn is_met(&self) -> Option<bool> {
        let figure = self.figure?;
        Some(if self.at_least {
            figure >= self.limit
        } else {
            figure <= self.limit
        })
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = self.figure.map(|figure| format!("{figure:.2}"));
        let sign = if self.at_least { "≥" } else { "≤" };
        let verdict = match self.is_met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
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
    let [threadkv, sync, nginx, redis, redis_sync] = [
        Peer::Threadkv,
        Peer::ThreadkvSync,
        Peer::Nginx,
        Peer::Redis,
        Peer::RedisSync,
    ]
    .map(Peer::name);
    let rate = |load: &str, server| results.speed(load, server)?.median(|it| it.rate);
    let mut bars = Vec::new();
    for connections in [64, 256] {
        let load = format!("get-{connections}");
        let what = |of: &str| format!("GET at {connections} connections, {of}");
        let by_nginx = results.speed_ratio(&load, [threadkv, nginx], |it| it.rate);
        let by_redis = results.speed_ratio(&load, [threadkv, redis], |it| it.rate);
        let by_nginx_p99 = results.speed_ratio(&load, [threadkv, nginx], |it| it.p99);
        bars.push(Bar::at_least(0.7, what("req/s by nginx's"), by_nginx));
        bars.push(Bar::at_least(
            1.4,
            what("req/s by Redis/webdis's"),
            by_redis,
        ));
        bars.push(Bar::at_most(1.0, what("p99 by nginx's"), by_nginx_p99));
    }
    let by_nginx = results.speed_ratio("get-1", [threadkv, nginx], |it| it.p50);
    bars.push(Bar::at_most(
        1.5,
        "GET at one connection, p50 by nginx's",
        by_nginx,
    ));
    let by_get = ratio(rate("put-64", threadkv), rate("get-64", threadkv));
    let what = "PUT in memory at 64 connections, req/s by GET's";
    bars.push(Bar::at_least(0.85, what, by_get));
    let by_memory = results.speed_ratio("durable-put-64", [sync, threadkv], |it| it.rate);
    let what = "durable PUT at 64 connections, req/s by that in memory";
    bars.push(Bar::at_least(0.7, what, by_memory));
    let by_redis = results.speed_ratio("durable-put-64", [sync, redis_sync], |it| it.rate);
    let what = "durable PUT at 64 connections, req/s by Redis always/webdis's";
    bars.push(Bar::at_least(1.5, what, by_redis));
    let resident = |server| results.figure(memory::KEYS, server, memory::WITH_KEYS);
    let by_redis = ratio(resident(threadkv), resident(redis));
    bars.push(Bar::at_most(
        1.0,
        "memory at a million keys by Redis's",
        by_redis,
    ));
    for server in [threadkv, sync] {
        for phase in pauses::BOUNDED {
            for name in pauses::bounded_figures(server == sync) {
                let what = format!("{server}: {phase}, {name} in ms");
                let figure = results.figure(phase, server, name);
                bars.push(Bar::at_most(LONGEST_PAUSE, what, figure));
            }
        }
    }
    let figure = |load, name| results.figure(load, threadkv, name);
    for (limit, name) in [(1.0, watch::P50), (10.0, watch::P99)] {
        let what = format!("one of a thousand watchers, {name} in ms");
        bars.push(Bar::at_most(limit, what, figure(watch::LATENCY, name)));
    }
    for (limit, name) in [(0.0, watch::MISSING), (0.7, watch::KEPT)] {
        let what = format!("a thousand watchers of one key, {name}");
        let figure = figure(watch::FANOUT, name);
        bars.push(match name {
            watch::KEPT => Bar::at_least(limit, what, figure),
            _ => Bar::at_most(limit, what, figure),
        });
    }
    bars.extend(of_cluster(results));
    bars
}

/// Those of several nodes.
fn of_cluster(results: &Results) -> Vec<Bar> {
    let [cluster, etcd, sync] =
        [Peer::Cluster, Peer::EtcdThree, Peer::ThreadkvSync].map(Peer::name);
    let rates = |load, servers| results.speed_ratio(load, servers, |it| it.rate);
    let latency = results.speed_ratio("cluster-put-1", [cluster, etcd], |it| it.p50);
    vec![
        Bar::at_least(
            2.2,
            "cluster, PUT at 64 connections, req/s by etcd's",
            rates("cluster-put-64", [cluster, etcd]),
        ),
        Bar::at_least(
            3.0,
            "cluster, PUT at 256 connections, req/s by etcd's",
            rates("cluster-put-256", [cluster, etcd]),
        ),
        Bar::at_least(
            0.4,
            "cluster, PUT at 64 connections, req/s by one node's, durable",
            rates("cluster-put-64", [cluster, sync]),
        ),
        Bar::at_least(
            2.5,
            "cluster, GET at 64 connections, req/s by etcd's",
            rates("cluster-get-64", [cluster, etcd]),
        ),
        Bar::at_least(
            0.45,
            "cluster, GET at 64 connections, req/s by one node's",
            rates("cluster-get-64", [cluster, sync]),
        ),
        Bar::at_most(
            1.6,
            "cluster, PUT at one connection, p50 by etcd's",
            latency,
        ),
    ]
}

fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Option<f64> {
    Some(ours? / theirs?)
}
