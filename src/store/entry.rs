//! What the store keeps under a key: a value, and perhaps the time at which it expires.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A value: UTF-8 text that is never changed, only replaced. Cloning it is cheap: the map and whoever reads share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(Arc<str>);

impl Value {
    /// A value that was put as text.
    pub fn text(text: &str) -> Value {
        Value(text.into())
    }

    /// The value as the plain API returns it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// When a key expires: milliseconds of wall-clock time since 1970, so that it means the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(u64);

impl Expiry {
    /// That many milliseconds after the beginning of 1970.
    pub fn at_millis(millis: u64) -> Expiry {
        Expiry(millis)
    }

    /// Milliseconds since the beginning of 1970.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// Whether that time has come.
    pub fn has_passed(self) -> bool {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since_1970.unwrap_or_default() >= Duration::from_millis(self.0)
    }
}

/// What the store keeps under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// When it ceases to be there; `None` for never.
    pub expiry: Option<Expiry>,
}

impl Entry {
    /// Whether the entry counts as there.
    pub fn is_live(&self) -> bool {
        !self.expiry.is_some_and(Expiry::has_passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lives_until_its_expiry() {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let live = |expiry| {
            Entry {
                value: Value::text("v"),
                expiry,
            }
            .is_live()
        };
        let at = |time: Duration| Some(Expiry::at_millis(time.as_millis() as u64));
        assert!(live(None));
        assert!(live(at(now + Duration::from_secs(60))));
        assert!(!live(at(now)));
        assert!(!live(at(Duration::ZERO)));
    }
}
