//! Several nodes over etcd: each answers as one server would.

use std::thread;

use serde_json::{Value, json};

use crate::etcd::{Etcds, has_etcd, wait_to_lead};
use crate::process::{Server, wait_for};
use crate::revisions::revision;
use crate::watcher::Watcher;

fn nodes(etcds: &Etcds) -> [Server; 3] {
    [etcds.node(), etcds.node(), etcds.node()]
}

/// What a node says about its cluster.
fn cluster(node: &Server) -> Value {
    node.get("/api/v1/status").json()["data"]["cluster"].clone()
}

#[test]
fn what_one_node_has_taken_all_nodes_have() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(3);
    let [a, b, c] = nodes(&etcds);
    a.put("/kv/k", "Nairobi 🌍").expect(200, "");
    for node in [&a, &b, &c] {
        node.get("/kv/k").expect(200, "Nairobi 🌍");
    }
    // With the same revision everywhere.
    let tags = [&a, &b, &c].map(|node| revision(&node.get("/kv/k")));
    assert_eq!(tags, [tags[0]; 3]);
    // Outcomes are decided in the order of commits.
    assert_eq!(b.delete("/api/v1/kv/k").status, 200);
    let touch = json!({"ttl": 60}).to_string();
    assert_eq!(c.post("/api/v1/kv/k/touch", touch).status, 404);
    a.get("/kv/k").expect(404, "key not found\n");
    // Bulk, listing, prefix, clear.
    let operations: Vec<Value> = (0..100)
        .map(|it| json!({"key": format!("n:{it:03}"), "value": {"is": it}}))
        .collect();
    let body = json!({"operations": operations}).to_string();
    assert_eq!(c.post("/api/v1/kv/bulk", body).status, 200);
    let listed = a.get("/api/v1/kv?prefix=n:&limit=2").json();
    assert_eq!(
        listed["data"]["n:001"]["value"],
        json!({"is": 1}),
        "{listed}"
    );
    let keys = json!({"keys": ["n:007", "none"]}).to_string();
    let got = b.post("/api/v1/kv/bulk/get", keys).json();
    assert_eq!(got["data"]["n:007"]["value"], json!({"is": 7}), "{got}");
    b.delete("/api/v1/kv?prefix=n:00")
        .expect_data(json!({"deleted": 10}));
    let counted = c.get("/api/v1/kv?prefix=n:&count_only=true").json();
    assert_eq!(counted["data"]["count"], 90);
    a.delete("/clear").expect(200, "");
    let counted = b.get("/api/v1/kv?prefix=n:&count_only=true").json();
    assert_eq!(counted["data"]["count"], 0);
}

#[test]
fn of_those_who_replace_the_same_one_wins_on_whatever_node() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let nodes = nodes(&etcds);
    nodes[0].put("/kv/n", "0").expect(200, "");
    // Each adds to what it has read, as often as it takes.
    thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(move || {
                let mut client = node.connect();
                for _ in 0..20 {
                    loop {
                        let read = client.send("GET", "/kv/n", "");
                        let next = read.text().parse::<u32>().unwrap() + 1;
                        let tag = format!("If-Match: {}\r\n", read.header("etag").unwrap());
                        let put = client.send_with(&tag, "PUT", "/kv/n", next.to_string());
                        match put.status {
                            200 => break,
                            412 => {}
                            status => panic!("{status}: {}", put.text()),
                        }
                    }
                }
            });
        }
    });
    nodes[1].get("/kv/n").expect(200, "60");
}

#[test]
fn a_watcher_goes_on_at_another_node() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let [a, b, c] = nodes(&etcds);
    let mut watcher = Watcher::open(&a, "");
    watcher.next().json();
    let (mut revisions, mut seen) = (Vec::new(), Vec::new());
    for n in 0..30 {
        let node = [&a, &b, &c][n % 3];
        revisions.push(revision(&node.put(&format!("/kv/{n}"), "v")));
        let event = watcher.next();
        assert_eq!(event.name, "put");
        seen.push(event.revision());
        // At another node every few changes, with some changes in between.
        if n % 7 == 6 {
            watcher = Watcher::open([&b, &c, &a][n % 3], &format!("since={}", event.revision()));
        }
        if watcher.last_id.is_none() {
            assert_eq!(watcher.next().name, "ready");
        }
    }
    assert_eq!(seen, revisions);
    // What has expired is an event everywhere, at one revision.
    let before = revisions[29];
    let watchers = [&a, &b, &c].map(|node| Watcher::open(node, &format!("since={before}")));
    let body = json!({"value": 1, "ttl": 1}).to_string();
    assert_eq!(b.put("/api/v1/kv/brief", body).status, 200);
    let events = watchers.map(|mut watcher| {
        let mut events = [watcher.next(), watcher.next(), watcher.next()];
        events.sort_by_key(|it| it.name != "ready");
        events
    });
    assert_eq!(events[0][1].name, "put");
    assert_eq!(events[0][2].name, "expire");
    assert_eq!(events[0], events[1]);
    assert_eq!(events[1], events[2]);
    for node in [&a, &b, &c] {
        node.get("/kv/brief").expect(404, "key not found\n");
    }
}

#[test]
fn a_read_may_take_what_its_node_has_and_says_how_old_that_is() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let (a, b) = (etcds.node(), etcds.node());
    a.put("/kv/k", "v").expect(200, "");
    b.get("/kv/k").expect(200, "v");
    let local = b.get("/kv/k?consistency=local");
    local.expect(200, "v");
    let age = |header: Option<&str>| header.unwrap().parse::<u64>().unwrap();
    assert!(age(local.header("x-threadkv-age")) < 60_000);
    let header = "X-Threadkv-Consistency: local\r\n";
    let local = b
        .connect()
        .send_with(header, "GET", "/api/v1/kv?prefix=k", "");
    assert_eq!(local.status, 200);
    age(local.header("x-threadkv-age"));
    let other = b.get("/kv/k?consistency=linearizable");
    assert_eq!((other.status, other.header("x-threadkv-age")), (200, None));
    let details = json!({"parameter": "consistency", "value": "weak"});
    let wrong = b.get("/api/v1/kv/k?consistency=weak");
    wrong.expect_error(400, "VALIDATION_ERROR", details);
    let wrong = b.get("/kv/k?consistency=weak");
    wrong.expect(400, "consistency must be linearizable or local\n");
}

#[test]
fn one_node_alone_is_always_current() {
    let server = Server::start(&[]);
    server.put("/kv/k", "v").expect(200, "");
    for consistency in ["local", "linearizable"] {
        let answer = server.get(&format!("/kv/k?consistency={consistency}"));
        assert_eq!(
            (answer.status, answer.header("x-threadkv-age")),
            (200, None)
        );
    }
    assert_eq!(server.get("/kv/k?consistency=weak").status, 400);
}

#[test]
fn nodes_with_another_prefix_have_other_keys() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let (one, other) = (
        etcds.node(),
        etcds.node_with(&["--cluster-prefix", "other/"]),
    );
    one.put("/kv/k", "v").expect(200, "");
    other.get("/kv/k").expect(404, "key not found\n");
    other.delete("/clear").expect(200, "");
    one.get("/kv/k").expect(200, "v");
    wait_for("one node each", || {
        let alone = [&one, &other].iter().all(|it| cluster(it)["nodes"] == 1);
        alone.then_some(())
    });
}

#[test]
fn a_node_stops_at_what_a_newer_version_has_written() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let mut node = etcds.node();
    node.put("/kv/k", "v").expect(200, "");
    // "threadkv/log" and the byte 255, in base64.
    let record = r#"{"key": "dGhyZWFka3YvbG9n", "value": "/w=="}"#;
    assert!(etcds.post(0, "/v3/kv/put", record).is_some());
    node.wait_for_log("a record in etcd that this version does not know");
    let health = node.get("/api/v1/health");
    assert_eq!(health.status, 503);
    let problem = health.json()["problem"].clone();
    assert!(
        problem.as_str().unwrap().contains("upgrade this node"),
        "{problem}"
    );
    assert_eq!(node.put("/kv/k", "w").status, 503);
    assert_eq!(node.get("/kv/k").status, 503);
    node.get("/kv/k?consistency=local").expect(200, "v");
}

#[test]
fn what_etcd_would_not_take_is_refused_before() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let (a, b) = (etcds.node(), etcds.node());
    let largest = "v".repeat(1 << 20);
    a.put("/kv/large", &largest).expect(200, "");
    b.get("/kv/large").expect(200, &largest);
    assert_eq!(a.put("/kv/large", format!("{largest}v")).status, 413);
    // Together they are too large for one commit, and none of them is there.
    let operations: Vec<Value> = (0..5)
        .map(|it| json!({"key": format!("part:{it}"), "value": &largest[..1 << 18]}))
        .collect();
    let body = json!({"operations": operations}).to_string();
    let answer = b.post("/api/v1/kv/bulk", body);
    answer.expect_error(413, "PAYLOAD_TOO_LARGE", json!({"limit": (1 << 20) + 1024}));
    let counted = a.get("/api/v1/kv?prefix=part:&count_only=true").json();
    assert_eq!(counted["data"]["count"], 0);
    b.get("/kv/large").expect(200, &largest);
    // What many small operations take besides their keys counts as well.
    let c = etcds.node_with(&["--max-batch", "100000"]);
    let bulk = |count: u32| {
        let operations: Vec<Value> = (0..count)
            .map(|it| json!({"key": format!("{it}"), "value": ""}))
            .collect();
        let body = json!({"operations": operations}).to_string();
        c.post("/api/v1/kv/bulk", body).status
    };
    assert_eq!([bulk(80_000), bulk(20_000)], [413, 200]);
}

#[test]
fn a_new_node_begins_with_a_snapshot_and_one_that_has_slept_begins_again() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let options = ["--snapshot-after", "4096"];
    let mut sleeper = etcds.node_with(&options);
    let mut leader = etcds.node_with(&options);
    wait_for("two nodes", || {
        (cluster(&leader)["nodes"] == 2).then_some(())
    });
    // The first one led; now the other one has to.
    sleeper.signal("-STOP");
    wait_to_lead(&leader);
    for n in 0..200 {
        leader
            .put(&format!("/kv/{n}"), "v".repeat(100))
            .expect(200, "");
    }
    leader.delete("/kv/7").expect(200, "");
    let body = json!({"value": "x", "ttl": 1000}).to_string();
    assert_eq!(leader.put("/api/v1/kv/brief", body).status, 200);
    leader.wait_for_log("snapshot of ");
    leader.put("/kv/late", "v").expect(200, "");
    let mut late = etcds.node_with(&options);
    let export = |node: &Server| node.get("/api/v1/export").text().to_owned();
    assert_eq!(export(&late), export(&leader));
    assert!(late.has_logged("keys of a snapshot in etcd"));
    // etcd has forgotten what comes next for the one that has slept.
    sleeper.signal("-CONT");
    assert_eq!(export(&sleeper), export(&leader));
    sleeper.wait_for_log("everything is loaded again");
    sleeper.put("/kv/late", "w").expect(200, "");
    late.get("/kv/late").expect(200, "w");
    let ttl = late.get("/api/v1/kv/brief/ttl").json();
    assert!(ttl["data"]["ttl"].as_u64() > Some(900), "{ttl}");
}

#[test]
fn health_and_status_tell_of_the_cluster() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(3);
    let mut nodes = Vec::from(nodes(&etcds));
    wait_for("three nodes", || {
        let all = nodes.iter().all(|node| cluster(node)["nodes"] == 3);
        all.then_some(())
    });
    let roles = |nodes: &[Server]| {
        let mut roles: Vec<String> = nodes
            .iter()
            .map(|node| cluster(node)["status"].as_str().unwrap().to_owned())
            .collect();
        roles.sort();
        roles
    };
    wait_for("a leader", || {
        (roles(&nodes) == ["follower", "follower", "leader"]).then_some(())
    });
    for node in &nodes {
        let etcd = &cluster(node)["etcd"];
        assert_eq!(etcd["members"], etcds.len());
        assert!(etcd["version"].as_str().unwrap().starts_with("3."));
        let health = node.get("/api/v1/health");
        assert_eq!(
            (health.status, &health.json()["status"]),
            (200, &json!("healthy"))
        );
        assert_eq!(
            node.get("/api/v1/status").json()["data"]["durability"],
            "cluster"
        );
        node.get("/readyz").expect(200, "ok\n");
    }
    // One that leaves in order is not waited for.
    let leader = nodes
        .iter()
        .position(|node| cluster(node)["status"] == "leader");
    let mut leader = nodes.swap_remove(leader.unwrap());
    leader.signal("-TERM");
    assert!(leader.wait().0.success());
    wait_for("a leader", || {
        (roles(&nodes) == ["follower", "leader"]).then_some(())
    });
    wait_for("two nodes", || {
        (cluster(&nodes[0])["nodes"] == 2).then_some(())
    });
}
