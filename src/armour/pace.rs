//! How fast a client must be.

use std::time::{Duration, Instant};

use crate::server::Timeouts;

/// How long a transfer may take to come up to its rate.
const GRACE: Duration = Duration::from_secs(5);

/// How long a transfer may have taken of which so many bytes have come.
pub(super) fn allowed(timeouts: &Timeouts, bytes: u64) -> Duration {
    allowed_for(timeouts, earned_by(timeouts, bytes))
}

fn allowed_for(timeouts: &Timeouts, earned: Duration) -> Duration {
    if timeouts.min_rate == 0 {
        return timeouts.transfer;
    }
    earned.max(GRACE).min(timeouts.transfer)
}

/// The time that so many bytes may take at the minimum rate.
fn earned_by(timeouts: &Timeouts, bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / timeouts.min_rate.max(1))
}

/// A transfer and its deadlines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    timeouts: Timeouts,
    started: Instant,
    earned: Duration,
}

impl Pace {
    /// A transfer that begins now.
    pub(super) fn new(timeouts: Timeouts) -> Pace {
        Pace {
            timeouts,
            started: Instant::now(),
            earned: Duration::ZERO,
        }
    }

    /// So many more bytes of a body have come.
    pub(super) fn came(&mut self, bytes: u64) {
        self.earned = self.earned.saturating_add(earned_by(&self.timeouts, bytes));
    }

    /// So many more bytes of an answer are gone. Where they only went from one buffer to another, as the first megabytes
    /// always do, that says little: nobody gets far ahead by it.
    pub(super) fn went(&mut self, bytes: u64) {
        self.came(bytes);
        self.earned = self.earned.min(self.started.elapsed() + GRACE);
    }

    /// How long it may go on if nothing more goes through; zero if it has been too slow.
    pub(super) fn left(&self) -> Duration {
        let allowed = allowed_for(&self.timeouts, self.earned);
        allowed.saturating_sub(self.started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        idle: Duration::ZERO,
        head: Duration::ZERO,
        transfer: Duration::from_secs(60),
        min_rate: 100,
    };

    /// Seconds that are left, half a minute after the start.
    fn left(timeouts: Timeouts, bytes: u64, transfer: fn(&mut Pace, u64)) -> u64 {
        let mut pace = Pace::new(timeouts);
        pace.started -= Duration::from_secs(30);
        transfer(&mut pace, bytes);
        (pace.left() + Duration::from_millis(500)).as_secs()
    }

    #[test]
    fn a_transfer_must_make_its_rate_and_end_in_time() {
        for transfer in [Pace::came, Pace::went] {
            assert_eq!(left(TIMEOUTS, 0, transfer), 0);
            assert_eq!(left(TIMEOUTS, 2_900, transfer), 0);
            assert_eq!(left(TIMEOUTS, 3_200, transfer), 2);
            let never = Timeouts {
                min_rate: 0,
                ..TIMEOUTS
            };
            assert_eq!(left(never, 0, transfer), 30);
        }
        assert_eq!(left(TIMEOUTS, u64::MAX, Pace::came), 30);
        assert_eq!(left(TIMEOUTS, u64::MAX, Pace::went), 5);
    }

    #[test]
    fn the_grace_is_shorter_where_the_whole_time_is() {
        let short = Timeouts {
            transfer: Duration::from_secs(2),
            ..TIMEOUTS
        };
        assert!(Pace::new(TIMEOUTS).left() > Duration::from_secs(4));
        assert!(Pace::new(short).left() <= Duration::from_secs(2));
    }
}
