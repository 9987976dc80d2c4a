//! Where events may be posted: never into the operator's own network unless the configuration allows it.
//!
//! The rule is applied to addresses, at the moment of connecting: a name is resolved here, what is not permitted is left
//! out, and the connection goes to what is left, so that a name cannot answer one thing to a check and another to the
//! connection. A literal address in a URL never meets a resolver, so [`check_url`] must be asked before every use.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::lookups::Lookups;
use crate::domain::network::is_permitted;

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
    permitted_of(name, found.collect(), allowed)
}

/// Of what a name resolved to, what may be connected to.
fn permitted_of(name: &str, found: Vec<SocketAddr>, allowed: &[IpNet]) -> Result<Vec<SocketAddr>, UrlRefusal> {
    let Some(first) = found.first().map(SocketAddr::ip) else {
        return Err(UrlRefusal::Unresolved { name: name.to_owned(), error: "it has no address".to_owned() });
    };
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
    pub(super) lookups: Lookups,
}

impl Resolve for PermittedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { allowed, lookups } = self.clone();
        Box::pin(async move {
            let name = name.as_str();
            let found = lookups.find(name).await;
            let unresolved =
                |error: std::io::Error| UrlRefusal::Unresolved { name: name.to_owned(), error: error.to_string() };
            // Port 0: the client puts the URL's.
            let addresses = permitted_of(name, found.map_err(unresolved)?, &allowed)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
