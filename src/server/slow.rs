//! Logs requests that took long, with where the time went (`--slow-log`).

use std::fmt;
use std::time::{Duration, Instant};

use super::line::{Line, millis};

/// A request that may turn out to be slow, from its answer until that is written.
pub(super) struct Slow {
    /// The request, for the log.
    pub(super) line: Line,
    /// The time from which on it is slow.
    pub(super) from: Duration,
    /// When its head had been read, when a worker took it, and when its answer was ready.
    pub(super) arrived: Instant,
    pub(super) begun: Instant,
    pub(super) answered: Instant,
    /// For how long its body has been waited for.
    pub(super) body: Duration,
    /// How long the disk took over it.
    pub(super) disk: Duration,
}

/// Where the time of a request went.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    /// Waiting for a worker.
    queue: Duration,
    /// Being looked at, and waiting for other commits.
    store: Duration,
    /// Being written to disk.
    disk: Duration,
    /// Waiting for the client: for its body, and until it took the answer.
    client: Duration,
}

impl Slow {
    /// The answer has been written, or will not be.
    pub(super) fn end(self) {
        let total = self.arrived.elapsed();
        if total >= self.from {
            let (line, parts) = (&self.line, self.parts(total));
            log::warn!(
                client:% = line.client, method = line.method, path = line.path, status = line.status,
                request_id = line.id, token = line.token.as_deref(), duration_ms = millis(total),
                queue_ms = millis(parts.queue), store_ms = millis(parts.store),
                disk_ms = millis(parts.disk), client_ms = millis(parts.client);
                "slow: {line} {total:.1?}: {parts}"
            );
        }
    }

    fn parts(&self, total: Duration) -> Parts {
        let queue = self.begun - self.arrived;
        let client = self.body + total.saturating_sub(self.answered - self.arrived);
        let store = total.saturating_sub(queue + client + self.disk);
        Parts {
            queue,
            store,
            disk: self.disk,
            client,
        }
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "queue {:.1?}, store {:.1?}, disk {:.1?}, client {:.1?}",
            self.queue, self.store, self.disk, self.client
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_to_the_whole() {
        let (arrived, ms) = (Instant::now(), Duration::from_millis);
        let slow = Slow {
            line: Line {
                client: ([127, 0, 0, 1], 1).into(),
                method: "GET".into(),
                path: "/".into(),
                status: 200,
                id: "1".into(),
                token: None,
            },
            from: ms(0),
            arrived,
            begun: arrived + ms(5),
            answered: arrived + ms(80),
            body: ms(40),
            disk: ms(20),
        };
        let parts = Parts {
            queue: ms(5),
            store: ms(15),
            disk: ms(20),
            client: ms(60),
        };
        assert_eq!(slow.parts(ms(100)), parts);
        let line = "queue 5.0ms, store 15.0ms, disk 20.0ms, client 60.0ms";
        assert_eq!(parts.to_string(), line);
    }
}
