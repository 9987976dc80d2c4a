//! Posts events to a shop, and says what the answer means. One post, one answer: retries belong to the caller.
//!
//! Invariants: only permitted addresses are connected to (see [`super::network`]); redirects are never followed, and no
//! proxy of the environment is used, since both would connect elsewhere; a post ends within its timeout; of an answer's
//! body at most a few KiB are read, and none kept.
//!
//! Connections are not kept for reuse: the client is shared by several single-threaded runtimes, a kept connection lives
//! on the runtime that opened it, and would die with it under another's request.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, NaiveDateTime, Utc};
use ipnet::IpNet;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, InvalidHeaderValue, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Response, StatusCode};
use url::Url;

use super::lookups::Lookups;
use super::network::{PermittedResolver, check_url};
use super::signature::SharedSecret;

/// How long a post may take in all, answer included.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest wait that a receiver may ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How much of an answer's body is read, so that well-behaved receivers see their answer taken.
const MAX_BODY_BYTES: usize = 8 * 1_024;

/// How long the answer's body is waited for once its status is known.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// How many characters of an error are kept.
const MAX_ERROR_CHARS: usize = 300;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("the client for outgoing events cannot be made")]
pub struct ClientError(#[from] reqwest::Error);

/// What the client is made from.
#[derive(Debug, Clone)]
pub struct EventsClientSettings {
    /// Networks that events may be posted to although they are not public.
    pub allowed_networks: Vec<IpNet>,
    /// How long a post may take in all.
    pub timeout: Duration,
    /// The `User-Agent`.
    pub user_agent: String,
}

impl Default for EventsClientSettings {
    fn default() -> Self {
        Self {
            allowed_networks: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
            user_agent: concat!("driver-tracker/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// The headers of one attempt.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingHeaders<'a> {
    /// `webhook-id`: the event's id, the same on every attempt.
    pub webhook_id: &'a str,
    /// `webhook-timestamp`: the attempt's time in seconds, the one that was signed.
    pub timestamp: i64,
    /// `webhook-signature`, as [`super::signature::sign`] makes it; left out when empty.
    pub signatures: &'a str,
    /// `x-webhook-secret`, where one is configured.
    pub shared_secret: Option<&'a SharedSecret>,
}

/// What became of one post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostOutcome {
    /// 2xx: the shop has it.
    Delivered {
        /// The answer.
        status: u16,
    },
    /// 400 or 422: the shop will never take it.
    Rejected {
        /// The answer.
        status: u16,
    },
    /// 410: the endpoint is no more.
    Gone,
    /// Anything else: worth another try.
    Retry {
        /// The answer, if there was one.
        status: Option<u16>,
        /// What went wrong, in words, without secrets.
        error: String,
        /// How long the receiver asked to wait, at most [`MAX_RETRY_AFTER`].
        retry_after: Option<Duration>,
    },
}

/// Posts events. Cheap to clone.
#[derive(Clone)]
pub struct EventsClient {
    client: Client,
    allowed: Arc<[IpNet]>,
    timeout: Duration,
}

impl fmt::Debug for EventsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventsClient").field("allowed", &self.allowed).field("timeout", &self.timeout).finish()
    }
}

impl EventsClient {
    /// Makes a client. A machine without root certificates still gets one, which can post over `http` only.
    pub fn new(settings: EventsClientSettings) -> Result<Self, ClientError> {
        // A no-op where the process installed its provider already; without one the client cannot be made at all.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let allowed: Arc<[IpNet]> = settings.allowed_networks.clone().into();
        let client = match builder(&settings, allowed.clone()).build() {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(
                    error = %describe(error),
                    "no root certificates of the system can be used; events cannot be posted over https"
                );
                builder(&settings, allowed.clone()).tls_certs_only([]).build()?
            }
        };
        Ok(Self { client, allowed, timeout: settings.timeout })
    }

    /// Posts `body` once. Never fails: every failure is an outcome.
    pub async fn post(&self, url: &Url, headers: OutgoingHeaders<'_>, body: Bytes) -> PostOutcome {
        if let Err(refusal) = check_url(url, &self.allowed) {
            return failed(refusal.to_string());
        }
        let headers = match header_map(headers) {
            Ok(headers) => headers,
            Err(_) => return failed("a header of the event cannot be sent".to_owned()),
        };
        let request = self.client.post(url.clone()).headers(headers).body(body);
        match request.send().await {
            Ok(response) => {
                let outcome = judge(response.status(), response.headers(), Utc::now());
                drain(response).await;
                outcome
            }
            Err(error) if error.is_timeout() => failed(format!("no answer within {} ms", self.timeout.as_millis())),
            Err(error) => failed(describe(error)),
        }
    }
}

fn builder(settings: &EventsClientSettings, allowed: Arc<[IpNet]>) -> ClientBuilder {
    Client::builder()
        .user_agent(settings.user_agent.clone())
        .timeout(settings.timeout)
        // Shared by a name's addresses, so that one that swallows packets leaves time for the next.
        .connect_timeout(settings.timeout.mul_f64(0.6))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(0)
        .dns_resolver(PermittedResolver { allowed, lookups: Lookups::default() })
}

fn header_map(headers: OutgoingHeaders<'_>) -> Result<HeaderMap, InvalidHeaderValue> {
    let mut map = HeaderMap::new();
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    map.insert("webhook-id", HeaderValue::from_str(headers.webhook_id)?);
    map.insert("webhook-timestamp", HeaderValue::from(headers.timestamp));
    if !headers.signatures.is_empty() {
        map.insert("webhook-signature", HeaderValue::from_str(headers.signatures)?);
    }
    if let Some(secret) = headers.shared_secret {
        let mut value = HeaderValue::from_str(secret.expose())?;
        value.set_sensitive(true);
        map.insert("x-webhook-secret", value);
    }
    Ok(map)
}

fn failed(error: String) -> PostOutcome {
    PostOutcome::Retry { status: None, error: error.chars().take(MAX_ERROR_CHARS).collect(), retry_after: None }
}

/// What an answer means.
fn judge(status: StatusCode, headers: &HeaderMap, now: DateTime<Utc>) -> PostOutcome {
    let code = status.as_u16();
    match code {
        200..=299 => PostOutcome::Delivered { status: code },
        400 | 422 => PostOutcome::Rejected { status: code },
        410 => PostOutcome::Gone,
        _ => {
            let error = match code {
                300..=399 => format!("answered {code}; redirects are not followed"),
                _ => format!("answered {code}"),
            };
            let retry_after = headers.get(RETRY_AFTER).and_then(|value| parse_retry_after(value.to_str().ok()?, now));
            PostOutcome::Retry { status: Some(code), error, retry_after }
        }
    }
}

/// Seconds or an HTTP date (RFC 9110, section 10.2.3), at most [`MAX_RETRY_AFTER`]; a date that has passed asks for nothing.
fn parse_retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a u64 holds still ask for long.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        (http_date(value)? - now).to_std().unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// An HTTP date in any of the three forms that a recipient must accept (RFC 9110, section 5.6.7).
fn http_date(value: &str) -> Option<DateTime<Utc>> {
    if let Ok(date) = DateTime::parse_from_rfc2822(value) {
        return Some(date.with_timezone(&Utc));
    }
    let obsolete = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    obsolete.iter().find_map(|form| NaiveDateTime::parse_from_str(value, form).ok()).map(|date| date.and_utc())
}

/// Reads a little of the body and drops it. The status was all that mattered, so nothing here can fail a post.
async fn drain(mut response: Response) {
    let read = async {
        let mut left = MAX_BODY_BYTES;
        while let Ok(Some(chunk)) = response.chunk().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(BODY_TIMEOUT, read).await;
}

/// The error and its causes in one line, without the URL (its path or query may hold a secret).
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
