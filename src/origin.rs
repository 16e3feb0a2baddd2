//! Origins of web pages, as options name them and browsers send them.

use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::host::Host;

/// Whose web pages may use the APIs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Everybody's pages.
    Any,
    /// The pages of this origin, as browsers write it: scheme, host, and a port other than the scheme's own.
    Exactly(String),
}

impl Origin {
    /// The host of its pages; `None` for any.
    pub fn host(&self) -> Option<Host> {
        match self {
            Origin::Any => None,
            Origin::Exactly(origin) => Host::of_header(origin.split_once("://")?.1),
        }
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Origin, String> {
        if text == "*" {
            return Ok(Origin::Any);
        }
        read_origin(&text.to_ascii_lowercase())
            .map(Origin::Exactly)
            .ok_or_else(|| {
                format!(
                    "{text:?}: expected an origin as browsers send it, such as https://example.com \
                     or https://xn--bcher-kva.example:8443, or *"
                )
            })
    }
}

/// An origin in lower case, as browsers write it.
fn read_origin(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse::<u16>().ok()?)),
        _ => (rest, None),
    };
    let all = |text: &str, others: &[u8]| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
        !text.is_empty() && text.bytes().all(allowed)
    };
    let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let host = match bracketed {
        Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().ok()?),
        None => host.to_owned(),
    };
    let well_formed = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && all(scheme, b"+-.")
        && (bracketed.is_some() || all(&host, b"-._"));
    // Browsers leave the scheme's own port out.
    let port = match (scheme, port) {
        ("http", Some(80)) | ("https", Some(443)) | (_, None) => String::new(),
        (_, Some(port)) => format!(":{port}"),
    };
    well_formed.then(|| format!("{scheme}://{host}{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_as_browsers_write_it() {
        for (text, origin) in [
            ("https://example.com", "https://example.com"),
            ("HTTPS://Example.COM:443", "https://example.com"),
            ("http://example.com:80", "http://example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[0::1]", "http://[::1]"),
            ("https://example.com:80", "https://example.com:80"),
            ("app://threadkv", "app://threadkv"),
        ] {
            assert_eq!(text.parse(), Ok(Origin::Exactly(origin.into())));
            assert!(text.parse::<Origin>().unwrap().host().is_some(), "{text}");
        }
        assert_eq!("*".parse(), Ok(Origin::Any));
        for text in [
            "",
            "null",
            "example.com",
            "https://",
            "://example.com",
            "https://example.com/",
            "https://user@example.com",
            "https://*.example.com",
            "https://example.com, https://example.org",
            "https://exämple.com",
            "https://example.com:",
            "https://example.com:65536",
            "http://:80",
            "http://a:b:c",
            "https://[::1",
            "https://::1",
        ] {
            let error = text.parse::<Origin>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?}")), "{error}");
        }
    }
}
