//! A clock that costs nothing to look at: the guard sets it, several times a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a tick lasts.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// A moment: ticks since the guard was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u64);

static NOW: AtomicU64 = AtomicU64::new(0);

/// The present, or up to a tick before.
pub(super) fn now() -> Tick {
    Tick(NOW.load(Ordering::Relaxed))
}

/// For the guard: so long after its start.
pub(super) fn set(elapsed: Duration) {
    NOW.store(
        (elapsed.as_millis() / TICK.as_millis()) as u64,
        Ordering::Relaxed,
    );
}

impl Tick {
    /// How long ago this was, for certain: it may have been a tick more.
    pub(super) fn ago(self) -> Duration {
        let ticks = now().0.saturating_sub(self.0).saturating_sub(1);
        TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
    }
}
