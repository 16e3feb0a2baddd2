//! A million keys on several nodes: how soon one more node is ready, and how long a clear makes others wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::api::{self, Api, request};
use crate::cluster::{Members, NODES, start_node};
use crate::directory::Directory;
use crate::interrupt;
use crate::options::Options;
use crate::pauses;
use crate::peers::Peer;
use crate::progress;
use crate::results::{Figure, Figures};
use crate::running::Running;

pub const NAME: &str = "cluster-million";

pub const READY: &str = "a node is ready after";
pub const CLEAR: &str = "longest write beside clear";

const KEYS: u32 = 1_000_000;

/// So long others are looked at before and after a clear.
const AROUND: Duration = Duration::from_secs(1);

/// Two nodes have the keys. A third one starts; all is cleared at the first, while somebody writes at the second.
pub fn measure(options: &Options) -> Result<Vec<Figures>, String> {
    Figures::of_each(NAME, &[Peer::Cluster], |_| {
        let directory = Directory::new(&options.work_directory)?;
        let members = Members::start(directory.path())?;
        let node = |number: usize| {
            let (address, process) = start_node(NODES[number], &members, directory.path())?;
            Ok::<Running, String>(Running::new(Peer::Cluster, address, process))
        };
        let (first, second) = (node(0)?, node(1)?);
        let [mut filled, mut ready, mut before, mut clear] = [const { Vec::new() }; 4];
        for round in 1..=options.rounds {
            progress::show(&format!("{NAME}: round {round}"));
            let started = Instant::now();
            first.fill(KEYS, 100)?;
            filled.push(started.elapsed().as_secs_f64());
            let started = Instant::now();
            let third = node(2)?;
            ready.push(started.elapsed().as_secs_f64());
            third.expect(Api::Plain, KEYS - 1, 100)?;
            third.stop()?;
            before.push(longest_write(&second, || {
                thread::sleep(AROUND);
                Ok(())
            })?);
            clear.push(longest_write(&second, || {
                let mut client = first.connect()?;
                let cleared = client.send(&request("DELETE", "/clear", "", ""));
                cleared.map_err(|error| first.error(error))?;
                thread::sleep(AROUND);
                Ok(())
            })?);
            interrupt::check()?;
        }
        let figure = |name, unit, rounds| Figure { name, unit, rounds };
        Ok(vec![
            figure("filled in", "s", filled),
            figure(READY, "s", ready),
            figure("longest write before", "ms", before),
            figure(CLEAR, "ms", clear),
        ])
    })
}

/// The longest time in milliseconds that a client waits for its writes while something is done.
fn longest_write(
    server: &Running,
    during: impl FnOnce() -> Result<(), String>,
) -> Result<f64, String> {
    let (address, done) = (server.address, &AtomicBool::new(false));
    let put = server.peer.api().put("other", &api::value(0, 100), "");
    let times = thread::scope(|scope| {
        let writer = scope.spawn(|| pauses::ask(address, &put, done));
        let result = during();
        done.store(true, Ordering::Relaxed);
        let times = writer.join().map_err(|_| "a client has panicked")?;
        result?;
        times.map_err(|error| server.error(error))
    })?;
    Ok(times.into_iter().fold(0.0, f64::max))
}
