//! Checks the credentials of shops over the raw body of a webhook.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;
use chrono::{DateTime, Utc};

use super::{RateLimits, Refused, header_text};
use crate::domain::ids::ShopName;
use crate::http::problem::Problem;
use crate::shops::ShopDirectory;
use crate::webhooks::signature::{InboundHeaders, verify_unknown_shop};

/// Checks webhooks against the secrets of their shops.
pub struct ShopCredentials {
    shops: Arc<ShopDirectory>,
}

impl ShopCredentials {
    /// Checks against the shops of this directory.
    pub fn new(shops: Arc<ShopDirectory>) -> Self {
        Self { shops }
    }

    /// Returns the shop of a webhook with valid credentials. An unknown shop gets the same answer as a wrong secret.
    pub fn check(
        &self,
        limits: &RateLimits,
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
            limits.refuse(request, Refused::Webhook)
        })
    }
}

/// The headers that carry credentials. A signature that is not text counts as an invalid signature, not as an absent
/// one.
fn inbound_headers(headers: &HeaderMap) -> InboundHeaders<'_> {
    InboundHeaders {
        webhook_id: header_text(headers, "webhook-id"),
        webhook_timestamp: header_text(headers, "webhook-timestamp"),
        webhook_signature: headers.get("webhook-signature").map(|value| value.to_str().unwrap_or_default()),
        shared_secret: header_text(headers, "x-webhook-secret"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::signature::InboundCredentials;
    use actix_web::test::TestRequest;

    #[test]
    fn a_shop_is_admitted_by_its_secret_and_an_unknown_one_learns_nothing() {
        let right = "a-shared-secret-that-is-long-enough";
        let credentials = InboundCredentials { signing: Vec::new(), shared: right.parse().ok() };
        let shops = Arc::new(ShopDirectory::of_one("vendure", credentials));
        let (shop_credentials, limits) = (ShopCredentials::new(shops.clone()), RateLimits::of_one(shops));
        let check = |shop: &str, secret: &str, address: &str| {
            let request = TestRequest::default().peer_addr(format!("{address}:4711").parse().unwrap());
            let request = request.insert_header(("x-webhook-secret", secret)).to_http_request();
            let admitted = shop_credentials.check(&limits, &request, shop, b"{}", Utc::now());
            admitted.map(|shop| shop.as_str().to_owned()).map_err(|problem| problem.code())
        };
        assert_eq!(check("vendure", right, "198.51.100.1"), Ok("vendure".to_owned()));
        assert_eq!(check("vendure", "another", "198.51.100.2"), Err("unauthorized"));
        assert_eq!(check("elsewhere", right, "198.51.100.3"), Err("unauthorized"));
        // Valid credentials pass also from an address with too many failures.
        assert_eq!(check("vendure", "another", "198.51.100.1"), Err("unauthorized"));
        assert_eq!(check("vendure", "another", "198.51.100.1"), Err("too_many_failures"));
        assert_eq!(check("vendure", right, "198.51.100.1"), Ok("vendure".to_owned()));
    }
}
