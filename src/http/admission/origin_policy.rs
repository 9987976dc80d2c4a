//! The web origins whose pages may open sockets and call the API.

use std::net::SocketAddr;

use crate::config::Config;

/// The origin of `PUBLIC_URL`, and `ALLOWED_ORIGINS`.
pub struct OriginPolicy {
    own_origin: String,
    allowed_origins: Vec<String>,
}

impl OriginPolicy {
    /// `http_addr` is the address on which the API listens. It is the public address unless `PUBLIC_URL` names another.
    pub fn new(config: &Config, http_addr: SocketAddr) -> Self {
        Self {
            own_origin: config.public_url(http_addr).origin().ascii_serialization(),
            allowed_origins: config.allowed_origins.clone(),
        }
    }

    /// A policy that allows these two origins.
    #[cfg(test)]
    pub fn of(own_origin: &str, allowed_origin: &str) -> Self {
        Self { own_origin: own_origin.to_owned(), allowed_origins: vec![allowed_origin.to_owned()] }
    }

    /// Whether pages of this origin may open sockets and call the API.
    pub fn allows(&self, origin: &str) -> bool {
        origin == self.own_origin || self.allowed_origins.iter().any(|allowed| allowed == origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_its_own_and_of_listed_origins_are_allowed() {
        let policy = OriginPolicy::of("https://tracker.example", "https://shop.example");
        assert!(policy.allows("https://tracker.example") && policy.allows("https://shop.example"));
        for foreign in ["null", "", "http://shop.example", "https://shop.example.net", "https://shop.example:8443"] {
            assert!(!policy.allows(foreign), "{foreign}");
        }
    }
}
