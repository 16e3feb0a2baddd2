//! Health and status.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer;
use crate::api::{Api, RETRY_AFTER};
use crate::server::Response;
use crate::store::Revision;

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
    nodes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<Storage>,
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
        cluster: cluster(Some(storage(api))),
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
        cluster: cluster(None),
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

/// A cluster of one.
fn cluster(storage: Option<Storage>) -> Cluster {
    Cluster {
        status: "leader",
        nodes: 1,
        storage,
    }
}

fn storage(api: &Api) -> Storage {
    let size = api.store.size();
    Storage {
        size: size.keys,
        memory: size.bytes,
    }
}
