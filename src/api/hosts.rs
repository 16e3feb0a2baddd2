//! Which hosts requests may name without `--auth` (contract, "Limits of memory, and who may ask").
//!
//! A browser lets a page read what its own host answers. So a page of `evil.example` could read and write everything here once its
//! owner makes `evil.example` resolve to 127.0.0.1, which is called DNS rebinding. Such requests still say `Host: evil.example`.
//! An IP address and `localhost` cannot be made to mean another machine.

use crate::host::Host;
use crate::origin::Origin;
use crate::server::Head;

/// The names that requests may be sent to.
pub(super) enum Hosts {
    /// Any name.
    Any,
    /// These names. IP addresses are always allowed.
    Named(Vec<Host>),
}

impl Hosts {
    /// Allows `localhost`, the hosts in `allowed`, and those of the origins. Pages of any origin may do what they like where `*` is one
    /// of the origins, so no host is refused then.
    pub(super) fn new(allowed: Vec<Host>, origins: &[Origin]) -> Hosts {
        let mut named = allowed;
        named.push(Host::Name("localhost".into()));
        for origin in origins {
            match origin {
                Origin::Any => return Hosts::Any,
                Origin::Exactly(_) => named.extend(origin.host()),
            }
        }
        Hosts::Named(named)
    }

    /// Whether a request is sent to an allowed host. HTTP/1.0 has no `Host`, and no browser leaves it out.
    pub(super) fn allow(&self, head: Head<'_>) -> bool {
        let Hosts::Named(named) = self else {
            return true;
        };
        head.headers("Host")
            .all(|text| match Host::of_header(text) {
                Some(Host::Address(_)) => true,
                Some(host) => named.contains(&host),
                None => false,
            })
    }
}
