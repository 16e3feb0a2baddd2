//! How long others have to wait while something large is done: clients that GET and PUT one key each, all the time.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::{self, Api, request};
use crate::client::Client;
use crate::directory::Directory;
use crate::interrupt;
use crate::options::Options;
use crate::peers::Peer;
use crate::progress;
use crate::results::{Figure, Figures};
use crate::running::Running;

pub const NAME: &str = "pauses";

const IDLE: &str = "pauses-idle";
const LOADING: &str = "pauses-loading";
const PAGE: &str = "pauses-page";
const LISTING: &str = "pauses-listing";
const CLEAR: &str = "pauses-clear";
pub const EXPIRY: &str = "pauses-expiry";

/// What must not make others wait for long.
pub const BOUNDED: [&str; 2] = [CLEAR, EXPIRY];

/// A figure of [`EXPIRY`]: from the end of the last key's time to live.
pub const GONE: &str = "gone after";

const GET: &str = "GET worst";
const PUT: &str = "PUT worst";

/// Between the answer to a client and its next request, so that it leaves the processors to what it is to measure.
const PACE: Duration = Duration::from_micros(500);

/// What has been answered may go on being done for so long.
const AFTERMATH: Duration = Duration::from_secs(10);

/// Items of one request while loading.
const BATCH: u32 = 500;

/// What must not be long. Where writes are synced, a PUT waits for the disk, however fast it is.
pub fn bounded_figures(synced: bool) -> &'static [&'static str] {
    if synced { &[GET] } else { &[GET, PUT] }
}

pub fn measure(options: &Options) -> Result<Vec<Figures>, String> {
    let mut all = Vec::new();
    for peer in [Peer::Threadkv, Peer::ThreadkvSync] {
        let result = measure_one(peer, options, &mut all);
        interrupt::check()?;
        if let Err(error) = result {
            all.push(Figures {
                load: NAME,
                server: peer.name(),
                ours: true,
                figures: Vec::new(),
                error: Some(error),
            });
        }
    }
    Ok(all)
}

fn measure_one(peer: Peer, options: &Options, all: &mut Vec<Figures>) -> Result<(), String> {
    let directory = Directory::new(&options.work_directory)?;
    let server = &peer.start(directory.path())?;
    let keys = options.pause_keys;
    let mut probe = |phase, during: &dyn Fn() -> Result<(), String>| {
        progress::show(&format!("{phase}: {}", peer.name()));
        let (figures, took) = probe(server, during)?;
        all.push(Figures {
            load: phase,
            server: peer.name(),
            ours: true,
            figures,
            error: None,
        });
        Ok::<Duration, String>(took)
    };
    let took = probe(LOADING, &|| load(server, keys, None))?;
    server.expect(Api::Json, keys - 1, 100)?;
    // What the machine itself is good for.
    probe(IDLE, &|| {
        thread::sleep(Duration::from_secs(5));
        Ok(())
    })?;
    probe(PAGE, &|| skip(server, "GET", "/api/v1/kv?limit=1000"))?;
    probe(LISTING, &|| skip(server, "GET", "/api/v1/kv"))?;
    probe(CLEAR, &|| {
        skip(server, "DELETE", "/clear")?;
        thread::sleep(AFTERMATH);
        Ok(())
    })?;
    // Loading takes about as long as before.
    let deadline = Instant::now() + took.mul_f64(1.5) + Duration::from_secs(10);
    load(server, keys, Some(deadline))?;
    let early = deadline.checked_duration_since(Instant::now() + Duration::from_secs(3));
    thread::sleep(early.ok_or("loading took so long that keys have expired")?);
    let gone = Cell::new(Duration::ZERO);
    probe(EXPIRY, &|| {
        wait_for_expiry(server)?;
        gone.set(deadline.elapsed());
        thread::sleep(AFTERMATH);
        Ok(())
    })?;
    let figure = Figure::once(GONE, "s", gone.get().as_secs_f64());
    if let Some(expiry) = all.last_mut() {
        expiry.figures.push(figure);
    }
    Ok(())
}

/// Puts keys. With a deadline, they expire in the second before it.
fn load(server: &Running, keys: u32, deadline: Option<Instant>) -> Result<(), String> {
    let mut client = server.connect()?;
    for start in (0..keys).step_by(BATCH as usize) {
        interrupt::check()?;
        let items = api::items(start..keys.min(start + BATCH), 100);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let ttl = left.map(|left| left.as_secs().max(1));
        let request = api::put_many_for(&items, ttl, "");
        client.send(&request).map_err(|error| server.error(error))?;
    }
    Ok(())
}

/// Waits until the keys are gone and their memory is given back, to the server's own mind.
fn wait_for_expiry(server: &Running) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(600);
    let mut client = server.connect()?;
    while Instant::now() < deadline {
        interrupt::check()?;
        let health = client.send(&request("GET", "/api/v1/health", "", ""));
        let health: Value = serde_json::from_slice(&health.map_err(|error| server.error(error))?)
            .map_err(|error| server.error(error))?;
        let figure = |name| health.pointer(name).and_then(Value::as_u64);
        let [size, memory] = ["/cluster/storage/size", "/cluster/storage/memory"].map(figure);
        // Those that are asked for all the time stay.
        if size.is_some_and(|size| size < 10) && memory.is_some_and(|memory| memory < 10_000) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(server.error("keys that have expired are there ten minutes later"))
}

/// A request whose answer is not looked at, but for its status.
fn skip(server: &Running, method: &str, path: &str) -> Result<(), String> {
    let status = server
        .connect()?
        .send_and_skip(&request(method, path, "", ""));
    match status.map_err(|error| server.error(error))? {
        200 => Ok(()),
        status => Err(server.error(format!("{method} {path}: status {status}"))),
    }
}

/// How long others wait while something is done; and how long that takes.
fn probe(
    server: &Running,
    during: &dyn Fn() -> Result<(), String>,
) -> Result<(Vec<Figure>, Duration), String> {
    let get = Api::Plain.get("probe:get", "");
    let put = Api::Plain.put("probe:put", "value", "");
    let (address, done) = (server.address, &AtomicBool::new(false));
    let started = Instant::now();
    let (result, took, [get, put]) = thread::scope(|scope| {
        let probes = [get, put].map(|request| scope.spawn(move || ask(address, &request, done)));
        let result = during();
        let took = started.elapsed();
        done.store(true, Ordering::Relaxed);
        (result, took, probes.map(|probe| probe.join()))
    });
    result?;
    let mut figures = vec![Figure::once("took", "s", took.as_secs_f64())];
    for (times, quantile, worst) in [(get, "GET p99.9", GET), (put, "PUT p99.9", PUT)] {
        let times = times.map_err(|_| "a client has panicked")?;
        let mut times = times.map_err(|error| server.error(error))?;
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get(((times.len() - 1) as f64 * part) as usize);
        let [slow, slowest] = [at(0.999), at(1.0)].map(|time| time.copied().unwrap_or(f64::NAN));
        figures.push(Figure::once(quantile, "ms", slow));
        figures.push(Figure::once(worst, "ms", slowest));
    }
    Ok((figures, took))
}

/// Sends a request again and again until it is done. Returns the response times, at least one, in milliseconds.
pub fn ask(address: SocketAddr, request: &[u8], done: &AtomicBool) -> io::Result<Vec<f64>> {
    let mut client = Client::connect(address)?;
    let mut times = Vec::new();
    loop {
        let started = Instant::now();
        // The key may have been cleared away.
        match client.send_and_skip(request)? {
            200 | 404 => times.push(started.elapsed().as_secs_f64() * 1e3),
            status => return Err(io::Error::other(format!("status {status}"))),
        }
        if done.load(Ordering::Relaxed) {
            return Ok(times);
        }
        thread::sleep(PACE);
    }
}
