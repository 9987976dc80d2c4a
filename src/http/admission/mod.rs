//! Admission control: rate limits, session admission, the origin policy, and the credentials of shops.
//!
//! The process has one instance of each.

pub mod client_address;
mod keyed_rates;
mod origin_policy;
mod rate_limits;
mod session_admission;
mod shop_credentials;

pub use origin_policy::OriginPolicy;
pub use rate_limits::{RateLimits, Refused};
pub use session_admission::SessionAdmission;
pub use shop_credentials::ShopCredentials;

use actix_web::http::header::HeaderMap;

/// Counts a request that a limit refused.
fn count_limited(limit: &'static str) {
    metrics::counter!("driver_tracker_rate_limited_total", "limit" => limit).increment(1);
}

/// The text of a header. `None` when the header is absent or not text.
pub fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
