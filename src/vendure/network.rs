//! Where events may be posted: never into the operator's own network unless the configuration allows it.
//!
//! The rule is applied to addresses, at the moment of connecting: a name is resolved here, what is not permitted is left
//! out, and the connection goes to what is left, so that a name cannot answer one thing to a check and another to the
//! connection. A literal address in a URL never meets a resolver, so [`check_url`] must be asked before every use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Why nothing may be posted to a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefusal {
    /// Neither `http` nor `https`.
    #[error("the URL must start with http:// or https://")]
    Scheme,
    /// A user or password in it: they would end in logs, and secrets have their own settings.
    #[error("the URL must not hold a user or password")]
    Userinfo,
    /// No host.
    #[error("the URL has no host")]
    NoHost,
    /// An address that is not permitted.
    #[error(
        "{0} is inside the operator's network or reserved; to post there, name its network in EVENTS_ALLOWED_NETWORKS"
    )]
    Forbidden(IpAddr),
    /// A name whose every address is not permitted.
    #[error(
        "{name} resolves to {address}, which is inside the operator's network or reserved; to post there, name its network \
         in EVENTS_ALLOWED_NETWORKS"
    )]
    ResolvesToForbidden {
        /// The name.
        name: String,
        /// The first of its addresses.
        address: IpAddr,
    },
    /// A name without an address.
    #[error("{name} cannot be resolved: {error}")]
    Unresolved {
        /// The name.
        name: String,
        /// What the resolver said.
        error: String,
    },
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 that is not the public internet (IANA special-purpose registry, RFC 6890 and its successors).
const FORBIDDEN_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 0, 8),       // "this network", unspecified
    v4(10, 0, 0, 0, 8),      // private
    v4(100, 64, 0, 0, 10),   // carrier-grade NAT
    v4(127, 0, 0, 0, 8),     // loopback
    v4(169, 254, 0, 0, 16),  // link-local, cloud metadata
    v4(172, 16, 0, 0, 12),   // private
    v4(192, 0, 0, 0, 24),    // IETF protocol assignments
    v4(192, 0, 2, 0, 24),    // documentation
    v4(192, 88, 99, 0, 24),  // 6to4 relays
    v4(192, 168, 0, 0, 16),  // private
    v4(198, 18, 0, 0, 15),   // benchmarking
    v4(198, 51, 100, 0, 24), // documentation
    v4(203, 0, 113, 0, 24),  // documentation
    v4(224, 0, 0, 0, 4),     // multicast
    v4(240, 0, 0, 0, 4),     // reserved, broadcast
];

/// Global unicast: all else (loopback, ULA, link-local, multicast, discard, …) is not the public internet.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// What of global unicast is not the public internet either.
const FORBIDDEN_V6: [Ipv6Net; 3] = [
    v6(0x2001, 0, 0, 23),     // IETF protocol assignments: Teredo, benchmarking, ORCHID
    v6(0x2001, 0xdb8, 0, 32), // documentation
    v6(0x3fff, 0, 0, 20),     // documentation
];

/// Addresses that carry an IPv4 address in them.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16);
const COMPATIBLE: Ipv6Net = v6(0, 0, 0, 96);

/// Whether a connection to `ip` is permitted: public, or inside one of the `allowed` networks.
pub fn is_permitted(ip: IpAddr, allowed: &[IpNet]) -> bool {
    if allowed.iter().any(|net| net.contains(&ip)) {
        return true;
    }
    match ip {
        IpAddr::V4(ip) => !FORBIDDEN_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => match embedded_v4(ip) {
            Some(inner) => is_permitted(IpAddr::V4(inner), allowed),
            None => GLOBAL_V6.contains(&ip) && !FORBIDDEN_V6.iter().any(|net| net.contains(&ip)),
        },
    }
}

/// The IPv4 address that packets to `ip` end at. Teredo is forbidden as a whole instead.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    if ip == Ipv6Addr::LOCALHOST || ip == Ipv6Addr::UNSPECIFIED {
        return None;
    }
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return Some(mapped);
    }
    let [.., a, b, c, d] = ip.octets();
    if NAT64.contains(&ip) || COMPATIBLE.contains(&ip) {
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    let [_, _, a, b, c, d, ..] = ip.octets();
    SIX_TO_FOUR.contains(&ip).then(|| Ipv4Addr::new(a, b, c, d))
}

/// Checks what a URL shows without asking a resolver: scheme, no user, and a literal address that is permitted.
pub fn check_url(url: &Url, allowed: &[IpNet]) -> Result<(), UrlRefusal> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlRefusal::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlRefusal::Userinfo);
    }
    let ip = match url.host().ok_or(UrlRefusal::NoHost)? {
        Host::Domain(_) => return Ok(()),
        Host::Ipv4(ip) => IpAddr::V4(ip),
        Host::Ipv6(ip) => IpAddr::V6(ip),
    };
    if is_permitted(ip, allowed) { Ok(()) } else { Err(UrlRefusal::Forbidden(ip)) }
}

/// Resolves a name and keeps the addresses that are permitted; a refusal when none is.
pub async fn resolve_permitted(name: &str, port: u16, allowed: &[IpNet]) -> Result<Vec<SocketAddr>, UrlRefusal> {
    let unresolved = |error: String| UrlRefusal::Unresolved { name: name.to_owned(), error };
    let found = tokio::net::lookup_host((name, port)).await.map_err(|error| unresolved(error.to_string()))?;
    let found: Vec<SocketAddr> = found.collect();
    let first = found.first().ok_or_else(|| unresolved("it has no address".to_owned()))?.ip();
    let permitted: Vec<_> = found.into_iter().filter(|address| is_permitted(address.ip(), allowed)).collect();
    if permitted.is_empty() {
        return Err(UrlRefusal::ResolvesToForbidden { name: name.to_owned(), address: first });
    }
    Ok(permitted)
}

/// [`check_url`], and for a name also what it resolves to now. For a warning at start; the truth is asked per connection.
pub async fn check_url_resolving(url: &Url, allowed: &[IpNet]) -> Result<(), UrlRefusal> {
    check_url(url, allowed)?;
    match url.host() {
        Some(Host::Domain(name)) => resolve_permitted(name, 0, allowed).await.map(drop),
        _ => Ok(()),
    }
}

/// The resolver of the client that posts events: it only ever answers permitted addresses.
#[derive(Debug, Clone)]
pub(super) struct PermittedResolver {
    pub(super) allowed: std::sync::Arc<[IpNet]>,
}

impl Resolve for PermittedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.allowed.clone();
        Box::pin(async move {
            // Port 0: the client puts the URL's.
            let addresses = resolve_permitted(name.as_str(), 0, &allowed).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
