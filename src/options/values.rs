//! The values of options, each parsed and checked. An error names the option and says what was expected.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::MAX_SECONDS;
use crate::logging::Format;
use crate::store::Durability;

/// The value of an option whose error says what is wrong with the value.
pub(super) fn parsed<T: FromStr<Err = String>>(option: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{option} {error}"))
}

pub(super) fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "sync" => Ok(Durability::Sync),
        "os" => Ok(Durability::Os),
        "none" => Ok(Durability::None),
        _ => Err(format!("--durability {text:?}: expected sync, os or none")),
    }
}

pub(super) fn log_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("--log-format {text:?}: expected text or json")),
    }
}

pub(super) fn host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .map_err(|_| format!("--host {text:?}: expected an IP address or localhost"))
}

pub(super) fn seconds(option: &str, text: &str) -> Result<Duration, String> {
    number(option, text, 1..=MAX_SECONDS).map(Duration::from_secs)
}

/// A number of bytes, such as `1048576` or `1MiB`.
pub(super) fn bytes(option: &str, text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units.iter().find_map(|(unit, shift)| {
        let number = text.strip_suffix(unit)?;
        Some((number, *shift))
    });
    let (number, shift) = unit.unwrap_or((text, 0));
    let number = number.parse::<u64>().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        format!(
            "{option} {text:?}: expected bytes from {} to {}, or KiB, MiB, GiB as in 512MiB",
            range.start(),
            range.end()
        )
    })
}

pub(super) fn number<N: FromStr + PartialOrd + Display>(
    option: &str,
    text: &str,
    range: RangeInclusive<N>,
) -> Result<N, String> {
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            format!(
                "{option} {text:?}: expected a number from {} to {}",
                range.start(),
                range.end()
            )
        })
}
