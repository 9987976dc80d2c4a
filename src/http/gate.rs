//! What every request passes: credentials of shops, limits, origins. One for the process, shared by its workers.

use std::any::Any;
use std::collections::HashMap;
use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;
use chrono::{DateTime, Utc};
use ipnet::IpNet;

use super::client_address;
use super::limits::{Connections, KeyedRate, address_key};
use super::problem::Problem;
use crate::actors::Node;
use crate::domain::ids::{DriverId, ShopName};
use crate::vendure::signature::{
    InboundCredentials, InboundHeaders, SecretError, SharedSecret, SigningSecret, verify_unknown_shop,
};

/// When an address that has too many connections may come back, in seconds.
const CONNECTION_RETRY_S: u64 = 5;

/// Whose credentials were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A shop's, of a webhook.
    Webhook,
    /// An API key.
    Key,
    /// A driver's token or ticket.
    Driver,
}

impl Refused {
    fn label(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Key => "key",
            Self::Driver => "driver",
        }
    }
}

fn count_limited(limit: &'static str) {
    metrics::counter!("driver_tracker_rate_limited_total", "limit" => limit).increment(1);
}

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
}

impl Gate {
    /// From the node's configuration.
    pub fn new(node: &Node) -> Result<Self, SecretError> {
        let config = node.config();
        let signing: Result<Vec<SigningSecret>, _> =
            config.webhook.secrets.iter().map(|s| s.expose().parse()).collect();
        let shared = config.webhook.shared.as_ref().map(|s| s.expose().parse::<SharedSecret>()).transpose()?;
        let credentials = InboundCredentials { signing: signing?, shared };
        let limits = &config.limits;
        Ok(Self {
            shops: HashMap::from([(ShopName::vendure().as_str().to_owned(), credentials)]),
            orders: KeyedRate::per_second(limits.orders_per_second),
            frames: KeyedRate::per_second(limits.frames_per_second),
            auth_failures: KeyedRate::per_minute(limits.auth_failures_per_minute),
            connections: Connections::new(limits.connections_per_address),
            trusted_proxies: config.trusted_proxies.clone(),
            own_origin: config.public_url(node.http_addr()).origin().ascii_serialization(),
            allowed_origins: config.allowed_origins.clone(),
        })
    }

    /// The address of the client.
    fn client_address(&self, request: &HttpRequest) -> IpAddr {
        client_address::of(request, &self.trusted_proxies)
    }

    /// The answer to bad credentials: 401, or 429 when the address has had too many. Good credentials always pass, so
    /// that nobody can lock others out from behind an address that they share.
    pub fn refuse(&self, request: &HttpRequest, what: Refused) -> Problem {
        metrics::counter!("driver_tracker_auth_failures_total", "kind" => what.label()).increment(1);
        let address = address_key(self.client_address(request));
        match self.auth_failures.count(&address) {
            Ok(()) => Problem::unauthorized(),
            Err(seconds) => {
                count_limited("auth_failures");
                Problem::too_many("too_many_failures", seconds)
            }
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
        let headers = inbound_headers(request.headers());
        let judged = match self.shops.get(shop).zip(ShopName::parse(shop)) {
            Some((credentials, name)) => credentials.verify(&headers, body, now).map(|()| name),
            None => Err(verify_unknown_shop(&headers, body, now)),
        };
        judged.map_err(|refusal| {
            tracing::debug!(refusal = %refusal, "a webhook's credentials were refused");
            self.refuse(request, Refused::Webhook)
        })
    }

    /// Counts an order of a shop.
    pub fn admit_order(&self, shop: &ShopName) -> Result<(), Problem> {
        let counted = self.orders.count(&shop.as_str().to_owned());
        counted.map_err(|seconds| {
            count_limited("orders");
            Problem::too_many("too_many_orders", seconds)
        })
    }

    /// Counts a frame of a driver's that came over HTTP; over the limit: how long to wait, in seconds.
    pub fn admit_frame(&self, driver: DriverId) -> Result<(), u64> {
        self.frames.count(&driver).inspect_err(|_| count_limited("frames"))
    }

    /// Counts a connection of the request's address for as long as what is given lives.
    pub fn admit_connection(&self, request: &HttpRequest) -> Result<Box<dyn Any>, Problem> {
        self.connections.open(self.client_address(request)).ok_or_else(|| {
            count_limited("connections");
            Problem::too_many("too_many_connections", CONNECTION_RETRY_S)
        })
    }

    /// Whether a page of this origin may open sockets and call the API.
    pub fn allows_origin(&self, origin: &str) -> bool {
        origin == self.own_origin || self.allowed_origins.iter().any(|allowed| allowed == origin)
    }
}

/// A header that is text, if it is there.
pub(super) fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The headers by which a shop is judged. A signature that is not text is still a signature.
fn inbound_headers(headers: &HeaderMap) -> InboundHeaders<'_> {
    InboundHeaders {
        webhook_id: header_text(headers, "webhook-id"),
        webhook_timestamp: header_text(headers, "webhook-timestamp"),
        webhook_signature: headers.get("webhook-signature").map(|value| value.to_str().unwrap_or_default()),
        shared_secret: header_text(headers, "x-webhook-secret"),
    }
}
