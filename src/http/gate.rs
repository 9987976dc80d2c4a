//! What every request passes: credentials of shops, limits, origins. One for the process, shared by its workers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;
use chrono::{DateTime, Utc};
use ipnet::IpNet;

use super::client_address;
use super::limits::{Connections, KeyedRate, address_key};
use super::problem::Problem;
use crate::config::Config;
use crate::domain::ids::{DriverId, ShopName};
use crate::vendure::signature::{InboundCredentials, SignatureError};

/// Shared by every worker of the process.
pub struct Gate {
    shops: HashMap<String, InboundCredentials>,
    orders: KeyedRate<String>,
    frames: KeyedRate<DriverId>,
    auth_failures: KeyedRate<IpAddr>,
    connections: Connections,
    trusted_proxies: Vec<IpNet>,
    /// `PUBLIC_URL`'s own.
    own_origin: String,
    allowed_origins: Vec<String>,
    listen: SocketAddr,
    metrics_listen: SocketAddr,
}

impl Gate {
    /// From the configuration and the addresses of the open listeners.
    pub fn new(config: &Config, listen: SocketAddr, metrics_listen: SocketAddr) -> Result<Self, SignatureError> {
        let webhook = &config.webhook;
        let secrets: Vec<&str> = webhook.secrets.iter().map(|secret| secret.expose().as_str()).collect();
        let shared = webhook.shared.as_ref().map(|secret| secret.expose().as_str());
        let credentials = InboundCredentials::new(&secrets, shared)?;
        let limits = &config.limits;
        Ok(Self {
            shops: HashMap::from([(ShopName::vendure().as_str().to_owned(), credentials)]),
            orders: KeyedRate::per_second(limits.orders_per_second),
            frames: KeyedRate::per_second(limits.frames_per_second),
            auth_failures: KeyedRate::per_minute(limits.auth_failures_per_minute),
            connections: Connections::new(limits.connections_per_address),
            trusted_proxies: config.trusted_proxies.clone(),
            own_origin: config.public_url(listen).origin().ascii_serialization(),
            allowed_origins: config.allowed_origins.clone(),
            listen,
            metrics_listen,
        })
    }

    /// The address of the client.
    pub fn client_address(&self, request: &HttpRequest) -> IpAddr {
        client_address::of(request, &self.trusted_proxies)
    }

    /// The answer to bad credentials: 401, or 429 when the address has had too many. Good credentials always pass, so
    /// that nobody can lock others out from behind an address that they share.
    pub fn refuse(&self, request: &HttpRequest) -> Problem {
        let address = address_key(self.client_address(request));
        match self.auth_failures.count(&address) {
            Ok(()) => Problem::unauthorized(),
            Err(seconds) => Problem::too_many("too_many_failures", seconds),
        }
    }

    /// Checks a shop's credentials over the raw body. An unknown shop is told what a wrong secret is told.
    pub fn admit_shop(
        &self,
        request: &HttpRequest,
        shop: &str,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<ShopName, Problem> {
        let known = self.shops.get(shop).zip(ShopName::parse(shop));
        let Some((credentials, name)) = known else { return Err(self.refuse(request)) };
        let header = |name: &str| header_text(request.headers(), name);
        credentials.verify(header, body, now).map_err(|error| {
            tracing::debug!(shop = %name, error = %error, "an order's credentials were refused");
            self.refuse(request)
        })?;
        Ok(name)
    }

    /// Counts an order of a shop.
    pub fn admit_order(&self, shop: &ShopName) -> Result<(), Problem> {
        let counted = self.orders.count(&shop.as_str().to_owned());
        counted.map_err(|seconds| Problem::too_many("too_many_orders", seconds))
    }

    /// Counts a frame of a driver's that came over HTTP; over the limit: how long to wait, in seconds.
    pub fn admit_frame(&self, driver: DriverId) -> Result<(), u64> {
        self.frames.count(&driver)
    }

    /// Open connections by address.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Whether a page of this origin may open sockets and call the API.
    pub fn allows_origin(&self, origin: &str) -> bool {
        origin == self.own_origin || self.allowed_origins.iter().any(|allowed| allowed == origin)
    }

    /// Where the service listens.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where the metrics are.
    pub fn metrics_listen(&self) -> SocketAddr {
        self.metrics_listen
    }
}

/// A header that is text, if it is there.
pub(super) fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
