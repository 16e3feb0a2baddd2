//! Several nodes over etcd, when its disks do not get done.

use std::thread;

use crate::cluster_faults::{await_writes, export, wait_until_healthy};
use crate::directory::Directory;
use crate::etcd::{Etcds, Site, has_etcd};
use crate::process::{is_root, wait_for};
use crate::slow_disk::Disk;

#[test]
fn one_disk_that_stands_still_stops_nothing_and_two_lose_nothing() {
    if !has_etcd() || !is_root("mounting and freezing a file system") {
        return;
    }
    let directory = Directory::new();
    let disks = ["one", "other"].map(|name| Disk::new(&directory, name));
    let etcds = Etcds::start_where(
        3,
        |number, near| match disks.get(number) {
            Some(disk) => Site {
                data: disk.path().join(near.client.port().to_string()),
                ..near
            },
            None => near,
        },
        &[],
    );
    let nodes = [etcds.node(), etcds.node()];
    nodes[0].put("/kv/before", "v").expect(200, "");

    // If its member leads, another one has to.
    let one = disks[0].freeze();
    nodes.iter().for_each(await_writes);
    nodes.iter().for_each(wait_until_healthy);

    let other = disks[1].freeze();
    thread::scope(|scope| {
        let write = scope.spawn(|| nodes[0].put("/kv/meanwhile", "v"));
        for node in &nodes {
            wait_for("a node to notice", || {
                (node.get("/readyz").status == 503).then_some(())
            });
            node.get("/kv/before?consistency=local").expect(200, "v");
            let read = node.get("/kv/before");
            read.expect(503, "this node cannot tell whether it is current\n");
        }
        drop((one, other));
        let written = write.join().unwrap().status;
        nodes.iter().for_each(wait_until_healthy);
        // Who has got no answer in ten seconds was told that it is not known.
        let there = nodes[1].get("/kv/meanwhile").status;
        assert!([(200, 200), (504, 200), (504, 404)].contains(&(written, there)));
    });
    nodes.iter().for_each(await_writes);
    nodes[1].get("/kv/before").expect(200, "v");
    assert_eq!(export(&nodes[0]), export(&nodes[1]));
}
