//! How long servers take to start with many keys on disk.

use std::time::Instant;

use crate::api;
use crate::directory::Directory;
use crate::options::Options;
use crate::peers::Peer;
use crate::progress;
use crate::results::{Figure, Figures};

pub const NAME: &str = "start";

const KEYS: u32 = 1_000_000;

/// From the start of the process to the first answered GET. The files are in the page cache.
pub fn measure(options: &Options) -> Result<Vec<Figures>, String> {
    let peers = [Peer::ThreadkvSync, Peer::RedisSync];
    Figures::of_each(NAME, &peers, |peer| {
        let directory = Directory::new(&options.work_directory)?;
        let server = peer.start(directory.path())?;
        server.fill(KEYS, 100)?;
        server.stop()?;
        let mut seconds = Vec::new();
        for round in 1..=options.rounds {
            progress::show(&format!("{NAME}: {}, round {round}", peer.name()));
            let started = Instant::now();
            let mut server = peer.spawn(directory.path())?;
            server.wait_for_success(&peer.api().get(&api::key(KEYS - 1), ""))?;
            seconds.push(started.elapsed().as_secs_f64());
            server.expect(peer.api(), KEYS - 1, 100)?;
            server.stop()?;
        }
        Ok(vec![Figure {
            name: "with a million keys",
            unit: "s",
            rounds: seconds,
        }])
    })
}
