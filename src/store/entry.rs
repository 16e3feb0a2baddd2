//! What the store keeps under a key: a value, and perhaps the time at which it expires.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A value: text or JSON that is never changed, only replaced. Cloning it is cheap: the map and whoever reads share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text, put through the plain API or as a JSON string.
    Text(Arc<str>),
    /// Any JSON but a string, exactly as it was sent.
    Json(Arc<str>),
}

impl Value {
    /// A value that is text.
    pub fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    /// A value that is JSON other than a string; `json` must be valid.
    pub fn json(json: &str) -> Value {
        Value::Json(json.into())
    }

    /// The value as the plain API returns it.
    pub fn as_str(&self) -> &str {
        match self {
            Value::Text(text) | Value::Json(text) => text,
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

/// When a key expires: milliseconds of wall-clock time since 1970, so that it means the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(NonZeroU64);

impl Expiry {
    /// That many milliseconds after the beginning of 1970; of 0 and 1 it makes the same.
    pub fn at_millis(millis: u64) -> Expiry {
        Expiry(NonZeroU64::new(millis).unwrap_or(NonZeroU64::MIN))
    }

    /// The present.
    pub fn now() -> Expiry {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Expiry::at_millis(
            u64::try_from(since_1970.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
        )
    }

    /// So much later.
    pub fn plus(self, time: Duration) -> Expiry {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Expiry::at_millis(self.millis().saturating_add(millis))
    }

    /// Milliseconds since the beginning of 1970.
    pub fn millis(self) -> u64 {
        self.0.get()
    }

    /// Whether that time has come.
    pub fn has_passed(self) -> bool {
        self <= Expiry::now()
    }

    /// Whole seconds until then, rounded up, so that what was just set to an hour reads an hour.
    pub fn seconds_left(self) -> u64 {
        self.millis()
            .saturating_sub(Expiry::now().millis())
            .div_ceil(1000)
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
        let live = |expiry| {
            Entry {
                value: Value::text("v"),
                expiry,
            }
            .is_live()
        };
        assert!(live(None));
        assert!(live(Some(Expiry::now().plus(Duration::from_secs(60)))));
        assert!(!live(Some(Expiry::now())));
        assert!(!live(Some(Expiry::at_millis(0))));
        assert!(live(Some(Expiry::now().plus(Duration::MAX))));
    }

    #[test]
    fn seconds_left_are_rounded_up() {
        assert_eq!(
            Expiry::now().plus(Duration::from_secs(3600)).seconds_left(),
            3600
        );
        assert_eq!(
            Expiry::now()
                .plus(Duration::from_millis(3_599_500))
                .seconds_left(),
            3600
        );
        assert_eq!(Expiry::at_millis(1).seconds_left(), 0);
    }
}
