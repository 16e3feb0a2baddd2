//! How often somebody may ask: `10/s` or `600/m`, on the command line and in files of tokens.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most requests that can be asked for, in either unit.
const MAX_REQUESTS: u32 = 1_000_000;

/// So many requests in a time. That many may come at once; after that, each of them comes back after its part of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    /// How many requests.
    pub requests: NonZeroU32,
    /// In which time.
    pub per: Period,
}

/// The time that a rate counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let read = || {
            let (requests, period) = text.split_once('/')?;
            let digits = requests.bytes().all(|byte| byte.is_ascii_digit());
            let requests: NonZeroU32 = requests.parse().ok().filter(|_| digits)?;
            let per = match period {
                "s" => Period::Second,
                "m" => Period::Minute,
                _ => return None,
            };
            (requests.get() <= MAX_REQUESTS).then_some(Rate { requests, per })
        };
        read().ok_or_else(|| {
            format!("{text:?}: expected N/s or N/m, requests a second or a minute, N from 1 to {MAX_REQUESTS}")
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per {
            Period::Second => "s",
            Period::Minute => "m",
        };
        write!(f, "{}/{unit}", self.requests)
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Rate, String> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_requests_in_a_time() {
        for text in ["1/s", "600/m", "1000000/s"] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string(), text);
        }
        for text in [
            "",
            "10",
            "/s",
            "10/",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "1000001/m",
            "10/h",
            "10/S",
            "10 /s",
            "10/s/m",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?}")), "{error}");
        }
    }
}
