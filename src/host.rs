//! Host names, as `--allow-host` gives them and clients send them in `Host`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The longest name that DNS has, in bytes.
const MAX_BYTES: usize = 253;

/// A host, without its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An IP address.
    Address(IpAddr),
    /// A name, in lower case and without the dot at its end.
    Name(String),
}

impl Host {
    /// Reads a `Host` header: a name or an address, with or without a port. `None` for anything else.
    pub fn of_header(text: &str) -> Option<Host> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            // Some clients send the zone of a link-local address, as in `[fe80::1%eth0]`.
            let address = address.split('%').next()?;
            let address: Ipv6Addr = address.parse().ok()?;
            let port = port.is_empty() || is_port(port.strip_prefix(':')?);
            return port.then_some(Host::Address(address.into()));
        }
        let name = match text.split_once(':') {
            Some((name, port)) if is_port(port) => name,
            Some(_) => return None,
            None => text,
        };
        match name.parse::<Ipv4Addr>() {
            Ok(address) => Some(Host::Address(address.into())),
            Err(_) => read_name(name).map(Host::Name),
        }
    }
}

impl FromStr for Host {
    type Err = String;

    /// Reads what `--allow-host` was given.
    fn from_str(text: &str) -> Result<Host, String> {
        if let Ok(address) = text.parse() {
            return Ok(Host::Address(address));
        }
        read_name(text).map(Host::Name).ok_or_else(|| {
            format!(
                "{text:?}: expected the name of a host such as kv.example.com, without scheme and port"
            )
        })
    }
}

/// `Host: name:` is allowed, and means the usual port (RFC 3986 section 3.2.3).
fn is_port(text: &str) -> bool {
    text.is_empty() || text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn read_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let named = (1..=MAX_BYTES).contains(&name.len())
        && name.bytes().all(allowed)
        && name.split('.').all(|label| !label.is_empty());
    named.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_header_is_a_name_or_an_address_with_or_without_a_port() {
        for (text, host) in [
            ("localhost", "localhost"),
            ("LocalHost:4000", "localhost"),
            ("kv.example.com.:80", "kv.example.com"),
            ("my_box:", "my_box"),
            // No address, so it is a name that nobody has allowed.
            ("127.0.0.1.evil.example", "127.0.0.1.evil.example"),
            ("127.1", "127.1"),
        ] {
            assert_eq!(Host::of_header(text), Some(Host::Name(host.into())));
        }
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1"),
            (" 192.168.1.2:8001 ", "192.168.1.2"),
            ("[::1]", "::1"),
            ("[fe80::1%eth0]:4000", "fe80::1"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(Host::of_header(text), Some(Host::Address(address)));
        }
        for text in [
            "",
            ":",
            ":80",
            ".",
            "a..b",
            "a b",
            "a,b",
            "a/b",
            "user@a",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:+80",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[127.0.0.1]",
            "[]",
            "é",
            "a\0",
        ] {
            assert_eq!(Host::of_header(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_to_allow_has_no_scheme_and_no_port() {
        assert_eq!("Kv.Example".parse(), Ok(Host::Name("kv.example".into())));
        assert!(matches!("::1".parse(), Ok(Host::Address(_))));
        for text in [
            "",
            "*",
            "*.example",
            "http://a",
            "a:80",
            "a/",
            &"a".repeat(254),
        ] {
            let error = text.parse::<Host>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?}")), "{error}");
        }
    }
}
