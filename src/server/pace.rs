//! How fast a client must be.

use std::time::{Duration, Instant};

/// How long a transfer may take to come up to its rate.
const GRACE: Duration = Duration::from_secs(5);

/// How long clients may take, as the options say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A connection on which nothing happens.
    pub idle: Duration,
    /// A head, from its first byte on.
    pub head: Duration,
    /// A body that comes, or an answer that goes, altogether.
    pub transfer: Duration,
    /// Bytes a second that these must make on average; 0 if there is no minimum.
    pub min_rate: u64,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            idle: Duration::from_secs(75),
            head: Duration::from_secs(10),
            transfer: Duration::from_secs(300),
            min_rate: 1024,
        }
    }
}

impl Patience {
    /// How long a transfer may have taken that has earned so much time.
    pub(super) fn for_transfer(&self, earned: Duration) -> Duration {
        if self.min_rate == 0 {
            return self.transfer;
        }
        earned.max(GRACE).min(self.transfer)
    }

    /// The time that these bytes may take.
    pub(super) fn earned_by(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1000) / self.min_rate.max(1))
    }
}

/// A transfer and its deadlines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    patience: Patience,
    started: Instant,
    earned: Duration,
}

impl Pace {
    /// A transfer that begins now.
    pub(super) fn new(patience: Patience) -> Pace {
        Pace {
            patience,
            started: Instant::now(),
            earned: Duration::ZERO,
        }
    }

    /// So many more bytes of a body have come.
    pub(super) fn came(&mut self, bytes: u64) {
        self.earned = self.earned.saturating_add(self.patience.earned_by(bytes));
    }

    /// So many more bytes of an answer are gone. Where they only went from one buffer to another, as the first megabytes
    /// always do, that says little: nobody gets far ahead by it.
    pub(super) fn went(&mut self, bytes: u64) {
        self.came(bytes);
        self.earned = self.earned.min(self.started.elapsed() + GRACE);
    }

    /// How long it may go on if nothing more goes through; zero if it has been too slow.
    pub(super) fn left(&self) -> Duration {
        let may_take = self.patience.for_transfer(self.earned);
        may_take.saturating_sub(self.started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        idle: Duration::ZERO,
        head: Duration::ZERO,
        transfer: Duration::from_secs(60),
        min_rate: 100,
    };

    /// Seconds that are left, half a minute after the start.
    fn left(patience: Patience, bytes: u64, transfer: fn(&mut Pace, u64)) -> u64 {
        let mut pace = Pace::new(patience);
        pace.started -= Duration::from_secs(30);
        transfer(&mut pace, bytes);
        (pace.left() + Duration::from_millis(500)).as_secs()
    }

    #[test]
    fn a_transfer_must_make_its_rate_and_end_in_time() {
        for transfer in [Pace::came, Pace::went] {
            assert_eq!(left(PATIENCE, 0, transfer), 0);
            assert_eq!(left(PATIENCE, 2_900, transfer), 0);
            assert_eq!(left(PATIENCE, 3_200, transfer), 2);
            let never = Patience {
                min_rate: 0,
                ..PATIENCE
            };
            assert_eq!(left(never, 0, transfer), 30);
        }
        assert_eq!(left(PATIENCE, u64::MAX, Pace::came), 30);
        assert_eq!(left(PATIENCE, u64::MAX, Pace::went), 5);
    }

    #[test]
    fn the_grace_is_shorter_where_the_whole_time_is() {
        let short = Patience {
            transfer: Duration::from_secs(2),
            ..PATIENCE
        };
        assert!(Pace::new(PATIENCE).left() > Duration::from_secs(4));
        assert!(Pace::new(short).left() <= Duration::from_secs(2));
    }
}
