//! The loads: what is asked of whom, over how many connections.

use crate::api::{self, Api};
use crate::peers::Peer;
use crate::running::Running;

/// Requests that are made beforehand at most: enough to find little of a million keys in the processor's caches.
const MOST_REQUESTS: u32 = 200_000;

/// Items of a bulk request.
pub const BULK: u32 = 500;

/// Requests that set many keys at once.
const BULK_REQUESTS: u32 = 64;

/// The key that the first request is about, so that it is there in the end.
pub const FIRST_KEY: u32 = 0;

/// Connections at which GET and PUT are measured, and synced PUT.
pub const CONNECTIONS: [u32; 5] = [1, 16, 64, 256, 1000];
pub const DURABLE_CONNECTIONS: [u32; 3] = [1, 64, 256];
pub const CLUSTER_CONNECTIONS: [u32; 3] = [1, 64, 256];

/// GETs in one write to the connection, where they are pipelined.
const PIPELINED: usize = 16;

/// What requests do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Get,
    Put,
    /// Nine GETs for each PUT.
    Mix,
    /// Puts of many keys.
    Bulk,
    BulkGet,
    /// A bulk put and a bulk delete of the same keys in turn.
    BulkDelete,
    /// GETs, each over a connection of its own.
    NewConnections,
    /// Several GETs, and then their answers.
    Pipelined,
}

/// A server under a load.
#[derive(Clone, Copy)]
pub struct Contender {
    pub name: &'static str,
    pub peer: Peer,
    pub api: Api,
}

/// A load, and the servers that are put under it.
pub struct Load {
    pub name: String,
    pub work: Work,
    pub keys: u32,
    pub value_bytes: usize,
    pub connections: u32,
    pub contenders: Vec<Contender>,
}

impl Load {
    fn new(name: &str, work: Work, connections: u32, peers: &[Peer]) -> Load {
        let contender = |&peer: &Peer| Contender {
            name: peer.name(),
            peer,
            api: peer.api(),
        };
        Load {
            name: format!("{name}-{connections}"),
            work,
            keys: 10_000,
            value_bytes: 100,
            connections,
            contenders: peers.iter().map(contender).collect(),
        }
    }

    fn keys(self, keys: u32) -> Load {
        Load { keys, ..self }
    }

    fn value_bytes(self, value_bytes: usize) -> Load {
        Load {
            value_bytes,
            ..self
        }
    }

    /// The same over threadkv's JSON API, beside the plain one.
    fn and_json(mut self) -> Load {
        self.contenders.push(Contender {
            name: "threadkv, JSON API",
            peer: Peer::Threadkv,
            api: Api::Json,
        });
        self
    }

    /// Whether keys have to be there before.
    pub fn needs_keys(&self) -> bool {
        !matches!(self.work, Work::Put | Work::Bulk | Work::BulkDelete)
    }

    /// The requests to a server, in the order in which they are sent, over and over.
    pub fn requests(&self, api: Api, server: &Running) -> impl Iterator<Item = Vec<u8>> {
        let count = match self.work {
            Work::Bulk | Work::BulkGet | Work::BulkDelete => BULK_REQUESTS,
            _ => self.keys.min(MOST_REQUESTS),
        };
        let tokens = server.headers.iter().cycle();
        (0..count).zip(tokens).map(move |(number, headers)| {
            let index = scatter(number, self.keys);
            let key = api::key(index);
            let put = || api.put(&key, &api::value(index, self.value_bytes), headers);
            let get = || api.get(&key, headers);
            let many = |part: u32| api::items(part * BULK..(part + 1) * BULK, self.value_bytes);
            let names = |part| {
                many(part)
                    .into_iter()
                    .map(|(key, _)| key)
                    .collect::<Vec<_>>()
            };
            let of_many = match self.work {
                Work::Put => return put(),
                Work::Mix if number % 10 == 0 => return put(),
                Work::Get | Work::Mix => return get(),
                Work::NewConnections => {
                    return api.get(&key, &format!("{headers}Connection: close\r\n"));
                }
                Work::Pipelined => return get().repeat(PIPELINED),
                Work::BulkGet => api.get_many(&names(number), headers),
                Work::BulkDelete if number % 2 == 1 => api.delete_many(&names(number / 2), headers),
                Work::BulkDelete => api.put_many(&many(number / 2), headers),
                Work::Bulk => api.put_many(&many(number), headers),
            };
            of_many.unwrap_or_default()
        })
    }
}

/// A key for each number: numbers that follow each other lead far apart, and the first one to [`FIRST_KEY`]. The factor
/// is a prime, so that no key comes twice where there are as many numbers as keys.
fn scatter(number: u32, keys: u32) -> u32 {
    (u64::from(number) * 2_654_435_761 % u64::from(keys)) as u32
}

/// All loads that are measured with wrk.
pub fn all() -> Vec<Load> {
    use Peer::{
        Bare, Cluster, Etcd, EtcdThree, Nginx, Redis, RedisSync, Threadkv, ThreadkvSync,
        ThreadkvTokens,
    };
    let mut loads = Vec::new();
    for (name, work) in [("get", Work::Get), ("put", Work::Put)] {
        for connections in CONNECTIONS {
            let peers = match connections {
                64 => &[Threadkv, Bare, Nginx, Redis, Etcd][..],
                _ => &[Threadkv, Bare, Nginx, Redis],
            };
            loads.push(Load::new(name, work, connections, peers));
        }
    }
    for connections in DURABLE_CONNECTIONS {
        let peers = [ThreadkvSync, Threadkv, RedisSync, Etcd];
        loads.push(Load::new("durable-put", Work::Put, connections, &peers));
    }
    let clusters = [Cluster, EtcdThree, ThreadkvSync];
    for connections in CLUSTER_CONNECTIONS {
        for (name, work) in [("cluster-put", Work::Put), ("cluster-get", Work::Get)] {
            loads.push(Load::new(name, work, connections, &clusters));
        }
    }
    loads.push(Load::new("cluster-bulk", Work::Bulk, 16, &clusters[..2]));
    let all = [Threadkv, Bare, Nginx, Redis];
    loads.push(Load::new("new-connections", Work::NewConnections, 64, &all));
    loads.push(Load::new("pipelined", Work::Pipelined, 64, &all));
    let both = [Threadkv, Redis];
    loads.push(Load::new("mix", Work::Mix, 64, &both).keys(1_000_000));
    for (name, value_bytes, keys, connections) in
        [("10k", 10_000, 1_000, 64), ("1m", 1_000_000, 16, 16)]
    {
        for (verb, work) in [("get", Work::Get), ("put", Work::Put)] {
            let load = Load::new(&format!("{verb}-{name}"), work, connections, &both);
            loads.push(load.keys(keys).value_bytes(value_bytes));
        }
    }
    for (name, work) in [
        ("bulk", Work::Bulk),
        ("bulk-get", Work::BulkGet),
        ("bulk-delete", Work::BulkDelete),
    ] {
        loads.push(Load::new(name, work, 16, &both).keys(BULK * BULK_REQUESTS));
    }
    loads.push(Load::new("json-get", Work::Get, 64, &[Threadkv]).and_json());
    loads.push(Load::new("json-put", Work::Put, 64, &[Threadkv]).and_json());
    loads.push(Load::new(
        "tokens-get",
        Work::Get,
        64,
        &[Threadkv, ThreadkvTokens],
    ));
    loads
}
