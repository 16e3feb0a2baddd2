//! Health and status.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer;
use crate::api::{Api, RETRY_AFTER};
use crate::server::Response;
use crate::store::{Revision, Role};

#[derive(Serialize)]
struct Health {
    status: &'static str,
    timestamp: String,
    cluster: Cluster,
    /// What is wrong, in words. With `healthy`, it needs a person, but requests are answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Status<'a> {
    cluster: Cluster,
    storage: StorageAndMemory,
    node: String,
    version: &'a str,
    /// Seconds.
    uptime: u64,
    durability: &'a str,
    workers: usize,
    connections: usize,
    watchers: usize,
    requests: Requests,
}

#[derive(Serialize)]
struct Cluster {
    status: &'static str,
    nodes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<Storage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd: Option<Etcd>,
}

/// What agrees on the writes of a cluster.
#[derive(Serialize)]
struct Etcd {
    members: usize,
    version: String,
    /// Bytes of the database of the member that is asked.
    db_size: i64,
    /// For how many milliseconds this node may be without what others have committed; `null` if it has never been current.
    age: Option<u64>,
}

#[derive(Serialize)]
struct Storage {
    /// Keys.
    size: usize,
    /// Bytes of keys and values.
    memory: usize,
}

#[derive(Serialize)]
struct StorageAndMemory {
    #[serde(flatten)]
    storage: Storage,
    /// Bytes of memory that the data takes, all that it needs included.
    used: u64,
    /// Bytes of memory that the data may take.
    limit: u64,
    /// That of the last commit.
    revision: Revision,
    /// The earliest one from which a watcher can go on.
    oldest_revision: Revision,
}

/// Answers since the start, by class of status.
#[derive(Serialize)]
struct Requests {
    #[serde(rename = "2xx")]
    successes: u64,
    #[serde(rename = "3xx")]
    unmodified: u64,
    #[serde(rename = "4xx")]
    mistakes: u64,
    #[serde(rename = "5xx")]
    failures: u64,
}

/// `GET /api/v1/health`: 503 while the store has a problem or the server drains, else 200. An unreadable token file is named in
/// `problem`, but leaves the status at 200: requests are answered, so a load balancer should not send clients elsewhere.
pub(super) fn health(api: &Api) -> Response {
    let problem = api.unready();
    let now = OffsetDateTime::now_utc();
    let now = now.replace_nanosecond(0).unwrap_or(now);
    let healthy = problem.is_none();
    let problem = problem.or_else(|| api.auth.as_ref()?.problem());
    let health = Health {
        status: if healthy { "healthy" } else { "unhealthy" },
        timestamp: now.format(&Rfc3339).unwrap_or_default(), // fails beyond the year 9999
        cluster: cluster(api, Some(storage(api))),
        problem,
    };
    if healthy {
        answer::json(200, &health)
    } else {
        answer::json(503, &health).with_header("Retry-After", RETRY_AFTER)
    }
}

/// `GET /api/v1/status`
pub(super) fn status(api: &Api) -> Response {
    let (about, monitor) = (&api.about, &api.about.monitor);
    let (budget, past) = (api.store.budget(), api.store.past());
    let system = rustix::system::uname();
    let status = Status {
        cluster: cluster(api, None),
        storage: StorageAndMemory {
            storage: storage(api),
            used: budget.stored(),
            limit: budget.data_limit(),
            revision: past.latest,
            oldest_revision: past.oldest,
        },
        node: format!("threadkv@{}", system.nodename().to_string_lossy()),
        version: env!("CARGO_PKG_VERSION"),
        uptime: about.started.elapsed().as_secs(),
        durability: &about.durability,
        workers: about.workers,
        connections: monitor.connections(),
        watchers: api.hub.watchers(),
        requests: Requests {
            successes: monitor.answers(2),
            unmodified: monitor.answers(3),
            mistakes: monitor.answers(4),
            failures: monitor.answers(5),
        },
    };
    answer::data(&status, None)
}

/// The cluster that this is a node of, or a cluster of one. Health tells of the storage as well, and status of etcd.
fn cluster(api: &Api, storage: Option<Storage>) -> Cluster {
    let Some(known) = api.store.cluster() else {
        return Cluster {
            status: "leader",
            nodes: 1,
            storage,
            etcd: None,
        };
    };
    let etcd = storage.is_none().then(|| Etcd {
        members: known.members,
        version: known.version,
        db_size: known.db_size,
        age: api.store.age().map(|age| age.as_millis() as u64),
    });
    Cluster {
        status: match known.role {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::NoQuorum => "no_quorum",
        },
        nodes: known.nodes,
        storage,
        etcd,
    }
}

fn storage(api: &Api) -> Storage {
    let size = api.store.size();
    Storage {
        size: size.keys,
        memory: size.bytes,
    }
}
