//! Rate limits of orders, of frames over HTTP, and of refused credentials.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::HttpRequest;
use ipnet::IpNet;

use super::keyed_rates::{KeyedRate, OrderRates, address_key};
use super::{client_address, count_limited};
use crate::config::Config;
use crate::domain::ids::{DriverId, ShopName};
use crate::http::problem::Problem;
use crate::shops::ShopDirectory;

/// Whose credentials were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A shop's credentials in a webhook.
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

/// The rate limits. All workers of the process share them.
pub struct RateLimits {
    shops: Arc<ShopDirectory>,
    orders: OrderRates,
    frames: KeyedRate<DriverId>,
    auth_failures: KeyedRate<IpAddr>,
    trusted_proxies: Vec<IpNet>,
}

impl RateLimits {
    /// The limits of the configuration. A shop may have its own limit of orders.
    pub fn new(config: &Config, shops: Arc<ShopDirectory>) -> Self {
        let limits = &config.limits;
        Self {
            shops,
            orders: OrderRates::new(limits.orders_per_second),
            frames: KeyedRate::per_second(limits.frames_per_second),
            auth_failures: KeyedRate::per_minute(limits.auth_failures_per_minute),
            trusted_proxies: config.trusted_proxies.clone(),
        }
    }

    /// Limits of one order, one frame and one failure, for tests.
    #[cfg(test)]
    pub fn of_one(shops: Arc<ShopDirectory>) -> Self {
        Self {
            shops,
            orders: OrderRates::new(1),
            frames: KeyedRate::per_minute(1),
            auth_failures: KeyedRate::per_minute(1),
            trusted_proxies: Vec::new(),
        }
    }

    /// The answer to invalid credentials: 401, or 429 when the address has had too many failures. Valid credentials
    /// always pass, so that a client cannot lock out others who share its address.
    pub fn refuse(&self, request: &HttpRequest, what: Refused) -> Problem {
        metrics::counter!("driver_tracker_auth_failures_total", "kind" => what.label()).increment(1);
        let address = address_key(client_address::of(request, &self.trusted_proxies));
        match self.auth_failures.count(&address) {
            Ok(()) => Problem::unauthorized(),
            Err(seconds) => {
                count_limited("auth_failures");
                Problem::too_many("too_many_failures", seconds)
            }
        }
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

    /// Counts a frame that a driver sent over HTTP. Over the limit, the error is the time to wait, in seconds.
    pub fn admit_frame(&self, driver: DriverId) -> Result<(), u64> {
        self.frames.count(&driver).inspect_err(|_| count_limited("frames"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::signature::InboundCredentials;
    use actix_web::ResponseError;
    use actix_web::test::TestRequest;

    fn limits() -> RateLimits {
        RateLimits::of_one(Arc::new(ShopDirectory::of_one("vendure", InboundCredentials::default())))
    }

    #[test]
    fn an_address_that_fails_often_has_to_wait_and_others_do_not() {
        let limits = limits();
        let refuse = |address: &str| {
            let request = TestRequest::default().peer_addr(format!("{address}:4711").parse().unwrap());
            limits.refuse(&request.to_http_request(), Refused::Key).status_code().as_u16()
        };
        assert_eq!([refuse("198.51.100.1"), refuse("198.51.100.1"), refuse("198.51.100.2")], [401, 429, 401]);
    }

    #[test]
    fn orders_and_frames_have_their_limits() {
        let (limits, shop, driver) = (limits(), ShopName::vendure(), DriverId::new());
        assert!(limits.admit_order(&shop).is_ok());
        assert_eq!(limits.admit_order(&shop).unwrap_err().code(), "too_many_orders");
        assert!(limits.admit_frame(driver).is_ok() && limits.admit_frame(driver).is_err());
        assert!(limits.admit_frame(DriverId::new()).is_ok());
    }
}
