//! A node whose clock is wrong.

use serde_json::{Value, json};

use crate::etcd::{Etcds, has_etcd, wait_to_lead};
use crate::process::{Server, wait_for};

fn reason(node: &Server) -> Option<Value> {
    let health = node.get("/api/v1/health");
    (health.status == 503).then(|| health.json()["problem"].clone())
}

#[test]
fn a_node_whose_clock_is_ahead_takes_no_writes_and_no_key_expires_early() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let (right, other) = (etcds.node(), etcds.node());
    let lives = json!({"value": "v", "ttl": 1800}).to_string();
    assert_eq!(right.put("/api/v1/kv/lives", lives).status, 200);
    let wrong = etcds.node_ahead(3600);
    // From its first moment on.
    let refused = wrong.put("/kv/k", "v");
    assert_eq!(refused.status, 503, "{}", refused.text());
    let said = reason(&wrong).unwrap();
    assert!(said.to_string().contains("clock"), "{said}");
    // It reads, and the others write as before.
    wrong.get("/kv/none").expect(404, "key not found\n");
    other.put("/kv/k", "1").expect(200, "");
    wrong.get("/kv/k").expect(200, "1");
    for node in [&right, &other] {
        node.get("/kv/lives").expect(200, "v");
        assert_eq!(reason(node), None);
    }
    // Two that agree are not ahead, whoever is right.
    drop((right, other));
    let second = etcds.node_ahead(3600);
    wait_for("the two to take writes", || {
        let both = [&wrong, &second].map(|node| node.put("/kv/k", "2").status);
        (both == [200, 200]).then_some(())
    });
}

#[test]
fn a_node_that_leads_and_is_ahead_leaves_that_to_another_one() {
    if !has_etcd() {
        return;
    }
    let etcds = Etcds::start(1);
    let wrong = etcds.node_ahead(3600);
    // Alone, nobody knows better.
    assert_eq!(wrong.put("/kv/k", "v").status, 200);
    wait_to_lead(&wrong);
    let right = etcds.node();
    wait_for("the node to notice", || reason(&wrong));
    // Or nothing would be removed that has expired.
    wait_to_lead(&right);
    assert_eq!(right.put("/kv/k", "v").status, 200);
}
