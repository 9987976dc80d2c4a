//! What every request passes: credentials of shops, limits, origins. One for the process, shared by its workers.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;
use chrono::{DateTime, Utc};
use ipnet::IpNet;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client_address;
use super::limits::{Connections, KeyedRate, OrderRates, address_key};
use super::problem::Problem;
use crate::config::Config;
use crate::domain::ids::{DriverId, ShopName};
use crate::shops::ShopDirectory;
use crate::vendure::signature::{InboundHeaders, verify_unknown_shop};

/// How long a driver who comes may have to wait for others who came before.
const TURN_PATIENCE: Duration = Duration::from_secs(8);
/// Sessions that may be opening at once, for each connection of PostgreSQL's pool: enough to keep it busy, and few enough
/// that whoever waits for a connection waits for a fraction of a second.
const TURNS_A_CONNECTION: usize = 8;
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
    shops: Arc<ShopDirectory>,
    orders: OrderRates,
    frames: KeyedRate<DriverId>,
    auth_failures: KeyedRate<IpAddr>,
    connections: Connections,
    sessions: KeyedRate<DriverId>,
    /// Sessions that may be opening at once.
    turns: Arc<Semaphore>,
    trusted_proxies: Vec<IpNet>,
    /// `PUBLIC_URL`'s own.
    own_origin: String,
    allowed_origins: Vec<String>,
}

impl Gate {
    /// From the node's configuration.
    pub fn new(config: &Config, shops: Arc<ShopDirectory>, http_addr: SocketAddr) -> Self {
        let limits = &config.limits;
        Self {
            shops,
            orders: OrderRates::new(limits.orders_per_second),
            frames: KeyedRate::per_second(limits.frames_per_second),
            auth_failures: KeyedRate::per_minute(limits.auth_failures_per_minute),
            connections: Connections::new(limits.connections_per_address),
            sessions: KeyedRate::per_minute(limits.sessions_per_minute),
            turns: Arc::new(Semaphore::new(TURNS_A_CONNECTION * config.database.max_connections as usize)),
            trusted_proxies: config.trusted_proxies.clone(),
            own_origin: config.public_url(http_addr).origin().ascii_serialization(),
            allowed_origins: config.allowed_origins.clone(),
        }
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
        let judged = match self.shops.find(shop).zip(ShopName::parse(shop)) {
            Some((known, name)) => known.credentials.verify(&headers, body, now).map(|()| name),
            None => Err(verify_unknown_shop(&headers, body, now)),
        };
        judged.map_err(|refusal| {
            tracing::debug!(refusal = %refusal, "a webhook's credentials were refused");
            self.refuse(request, Refused::Webhook)
        })
    }

    /// Counts an order of a shop.
    pub fn admit_order(&self, shop: &ShopName) -> Result<(), Problem> {
        let own = self.shops.find(shop.as_str()).and_then(|known| known.orders_per_second);
        let counted = self.orders.count(shop.as_str(), own);
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

    /// Waits for a turn to open a session, which lasts until it is open: a fleet that comes back at once is let in as fast
    /// as PostgreSQL bears it, in order, and nobody else waits for a connection behind thousands of them.
    pub async fn await_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let turn = tokio::time::timeout(TURN_PATIENCE, self.turns.clone().acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            count_limited("turns");
            Problem::busy()
        })
    }

    /// Counts a session that a driver opens: each costs transactions, and ends the one before it.
    pub fn admit_session(&self, driver: DriverId) -> Result<(), Problem> {
        self.sessions.count(&driver).map_err(|seconds| {
            count_limited("sessions");
            Problem::too_many("too_many_sessions", seconds)
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::vendure::signature::InboundCredentials;
    use actix_web::ResponseError;
    use actix_web::test::TestRequest;

    /// A gate for the shop `vendure`, with one of each thing allowed and pages of `https://shop.example`.
    pub(in crate::http) fn gate() -> Gate {
        let shared = "a-shared-secret-that-is-long-enough".parse().ok();
        let credentials = InboundCredentials { signing: Vec::new(), shared };
        Gate {
            shops: Arc::new(ShopDirectory::of_one("vendure", credentials)),
            orders: OrderRates::new(1),
            frames: KeyedRate::per_minute(1),
            auth_failures: KeyedRate::per_minute(1),
            connections: Connections::new(1),
            sessions: KeyedRate::per_minute(1),
            turns: Arc::new(Semaphore::new(1)),
            trusted_proxies: Vec::new(),
            own_origin: "https://tracker.example".to_owned(),
            allowed_origins: vec!["https://shop.example".to_owned()],
        }
    }

    fn from(address: &str) -> TestRequest {
        TestRequest::default().peer_addr(format!("{address}:4711").parse().unwrap())
    }

    #[test]
    fn an_address_that_fails_often_is_told_to_wait_and_others_are_not() {
        let gate = gate();
        let refuse = |address: &str| gate.refuse(&from(address).to_http_request(), Refused::Key).status_code().as_u16();
        assert_eq!([refuse("198.51.100.1"), refuse("198.51.100.1"), refuse("198.51.100.2")], [401, 429, 401]);
    }

    #[test]
    fn a_shop_comes_in_by_its_secret_and_an_unknown_one_learns_nothing() {
        let gate = gate();
        let admit = |shop: &str, secret: &str, address: &str| {
            let request = from(address).insert_header(("x-webhook-secret", secret)).to_http_request();
            let admitted = gate.admit_shop(&request, shop, b"{}", Utc::now());
            admitted.map(|shop| shop.as_str().to_owned()).map_err(|problem| problem.code())
        };
        let right = "a-shared-secret-that-is-long-enough";
        assert_eq!(admit("vendure", right, "198.51.100.1"), Ok("vendure".to_owned()));
        assert_eq!(admit("vendure", "another", "198.51.100.2"), Err("unauthorized"));
        assert_eq!(admit("elsewhere", right, "198.51.100.3"), Err("unauthorized"));
        // Good credentials pass from wherever many failed.
        assert_eq!(admit("vendure", "another", "198.51.100.1"), Err("unauthorized"));
        assert_eq!(admit("vendure", "another", "198.51.100.1"), Err("too_many_failures"));
        assert_eq!(admit("vendure", right, "198.51.100.1"), Ok("vendure".to_owned()));
    }

    #[test]
    fn orders_frames_and_connections_have_their_limits() {
        let (gate, shop, driver) = (gate(), ShopName::vendure(), DriverId::new());
        assert!(gate.admit_order(&shop).is_ok());
        assert_eq!(gate.admit_order(&shop).unwrap_err().code(), "too_many_orders");
        assert!(gate.admit_frame(driver).is_ok() && gate.admit_frame(driver).is_err());
        assert!(gate.admit_frame(DriverId::new()).is_ok());
        assert!(gate.admit_session(driver).is_ok() && gate.admit_session(DriverId::new()).is_ok());
        assert_eq!(gate.admit_session(driver).unwrap_err().code(), "too_many_sessions");
        let request = from("198.51.100.1").to_http_request();
        let open = gate.admit_connection(&request).unwrap();
        assert_eq!(gate.admit_connection(&request).unwrap_err().code(), "too_many_connections");
        drop(open);
        assert!(gate.admit_connection(&request).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn drivers_come_in_one_after_the_other_and_nobody_waits_for_ever() {
        let gate = gate();
        let first = gate.await_turn().await.unwrap();
        assert_eq!(gate.await_turn().await.unwrap_err().code(), "busy");
        let (second, ()) = tokio::join!(gate.await_turn(), async { drop(first) });
        assert!(second.is_ok());
    }

    #[test]
    fn pages_of_its_own_and_of_listed_origins_are_let_in() {
        let gate = gate();
        assert!(gate.allows_origin("https://tracker.example") && gate.allows_origin("https://shop.example"));
        for foreign in ["null", "", "http://shop.example", "https://shop.example.net", "https://shop.example:8443"] {
            assert!(!gate.allows_origin(foreign), "{foreign}");
        }
    }
}
