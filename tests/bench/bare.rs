//! A server of tiny_http and nothing else, which answers everything with a constant: what there is to be had with the library.
//!
//! It hands requests on as threadkv does, a thread that takes up to 16 at a time and two workers. A process of its own, which is
//! this program called with `--bare PORT`.

use std::thread;

use crossbeam_channel::unbounded;
use threadkv::armour;
use tiny_http::{Request, Response, Server};

use crate::api;

const WORKERS: usize = 2;
const BATCH: usize = 16;

/// Serves until the process is killed.
pub fn serve(port: u16) -> Result<(), String> {
    armour::prefer_throughput();
    let server = Server::http(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    let (hand_over, batches) = unbounded::<Vec<Request>>();
    for _ in 0..WORKERS {
        let batches = batches.clone();
        thread::spawn(move || batches.into_iter().flatten().for_each(answer));
    }
    loop {
        let mut batch = vec![server.recv().map_err(|error| error.to_string())?];
        while batch.len() < BATCH
            && let Ok(Some(request)) = server.try_recv()
        {
            batch.push(request);
        }
        hand_over.send(batch).map_err(|error| error.to_string())?;
    }
}

fn answer(request: Request) {
    // It fails for a client that has gone.
    let _ = request.respond(Response::from_string(api::value(0, 100)));
}
