//! A server that runs: what it is asked beside the load.

use std::fmt::Display;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::api::{self, Api};
use crate::child::Child;
use crate::client::{Client, Redis};
use crate::interrupt;
use crate::peers::Peer;

/// Items of one request while filling.
const BATCH: u32 = 500;

/// As long as a server's memory is waited for that goes on growing or shrinking.
const LONGEST_SETTLING: Duration = Duration::from_secs(30);

/// A running server.
pub struct Running {
    pub peer: Peer,
    pub address: SocketAddr,
    /// What requests must say; they take turns.
    pub headers: Vec<String>,
    /// The one that keeps the data comes first.
    pub processes: Vec<Child>,
    /// Where Redis itself is, behind webdis.
    pub redis: Option<SocketAddr>,
}

impl Running {
    pub fn new(peer: Peer, address: SocketAddr, server: Child) -> Running {
        Running::of(peer, address, vec![server])
    }

    pub fn of(peer: Peer, address: SocketAddr, processes: Vec<Child>) -> Running {
        Running {
            peer,
            address,
            headers: vec![String::new()],
            processes,
            redis: None,
        }
    }

    pub fn connect(&self) -> Result<Client, String> {
        let client = Client::connect(self.address);
        client.map_err(|error| self.error(error))
    }

    /// What the server would not do.
    pub fn error(&self, error: impl Display) -> String {
        format!("{}: {error}", self.peer.name())
    }

    /// Sends a request until it is answered with success.
    pub fn wait_for_success(&mut self, request: &[u8]) -> Result<(), String> {
        let (address, last) = (self.address, self.processes.len() - 1);
        self.processes[last].wait_for("an answer", || {
            Client::connect(address).ok()?.send(request).ok()
        })?;
        Ok(())
    }

    /// Reads a key and compares its value with what it has to be.
    pub fn expect(&self, api: Api, index: u32, bytes: usize) -> Result<(), String> {
        let key = api::key(index);
        let request = api.get(&key, &self.headers[0]);
        let answer = self.connect()?.send(&request);
        let answer = answer.map_err(|error| self.error(format!("GET of {key}: {error}")))?;
        // A constant is that of the first key.
        let index = if api == Api::Constant { 0 } else { index };
        if api.value(&answer).as_deref() == Some(&api::value(index, bytes)) {
            return Ok(());
        }
        let start = String::from_utf8_lossy(&answer[..answer.len().min(100)]);
        let length = answer.len();
        Err(self.error(format!(
            "a wrong value for {key}: {start:?}, {length} bytes"
        )))
    }

    /// Puts the first so many keys, in the fastest way there is.
    pub fn fill(&self, keys: u32, value_bytes: usize) -> Result<(), String> {
        let batches = (0..keys).step_by(BATCH as usize);
        let batches = batches.map(|start| api::items(start..keys.min(start + BATCH), value_bytes));
        if let Some(address) = self.redis {
            let mut redis = Redis::connect(address).map_err(|error| self.error(error))?;
            for items in batches {
                let words = items.iter().flat_map(|(key, value)| [key.as_str(), value]);
                let words: Vec<&str> = ["MSET"].into_iter().chain(words).collect();
                redis.send(&words).map_err(|error| self.error(error))?;
            }
            return Ok(());
        }
        let (api, headers, mut client) = (self.peer.api(), &self.headers[0], self.connect()?);
        let put = |(key, value): &(String, String)| api.put(key, value, headers);
        for items in batches {
            interrupt::check()?;
            let requests = match api.put_many(&items, headers) {
                Some(request) => vec![request],
                None => items.iter().map(put).collect(),
            };
            for request in requests {
                client.send(&request).map_err(|error| self.error(error))?;
            }
        }
        Ok(())
    }

    /// Bytes that are resident, in all processes.
    pub fn resident(&self) -> Result<u64, String> {
        self.processes.iter().map(Child::resident).sum()
    }

    /// Waits until the memory of its processes stays as it is, for a second.
    pub fn settle(&self) -> Result<(), String> {
        let (started, mut since) = (Instant::now(), Instant::now());
        let mut resident = self.resident()?;
        while since.elapsed() < Duration::from_secs(1) && started.elapsed() < LONGEST_SETTLING {
            thread::sleep(Duration::from_millis(50));
            let now = self.resident()?;
            if now.abs_diff(resident) > resident / 200 {
                (resident, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Ends it in good order; what it keeps may be used again.
    pub fn stop(self) -> Result<(), String> {
        // Who stands before another one goes first.
        self.processes.into_iter().rev().try_for_each(Child::stop)
    }
}
