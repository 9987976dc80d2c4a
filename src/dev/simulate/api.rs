//! The HTTP client of the simulator: drivers and tokens by REST, orders by the signed webhook.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use url::Url;

use super::SimulateError;

/// The fields of a listed delivery that the simulator reads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedDelivery {
    pub(super) id: String,
    pub(super) seller_order_id: String,
    #[serde(default)]
    pub(super) metadata: Value,
}

/// The webhook of the shop that the configuration defines.
const WEBHOOK_PATH: &str = "webhooks/vendure/seller-order-ready";
const HTTP_TIMEOUT: Duration = Duration::from_secs(15);
const TRIES: u32 = 5;
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(10);

/// How the simulator authenticates as the shop.
#[derive(Clone)]
pub enum WebhookAuth {
    /// A Standard Webhooks signature with this secret (`whsec_…`). Of several joined by commas, the first one signs.
    Signed(String),
    /// The plain `X-Webhook-Secret` header with this value.
    Shared(String),
}

enum Credential {
    Key(Vec<u8>),
    Header(HeaderValue),
}

impl Credential {
    fn parse(auth: &WebhookAuth) -> Result<Self, SimulateError> {
        match auth {
            WebhookAuth::Signed(text) => {
                let first = text.split(',').next().unwrap_or_default().trim();
                let key = BASE64_STANDARD.decode(first.strip_prefix("whsec_").unwrap_or(first)).ok();
                key.filter(|key| !key.is_empty()).map(Self::Key).ok_or(SimulateError::BadSecret)
            }
            WebhookAuth::Shared(text) => {
                let mut value = HeaderValue::from_str(text.trim()).map_err(|_| SimulateError::BadSecret)?;
                value.set_sensitive(true);
                Ok(Self::Header(value))
            }
        }
    }

    fn apply(&self, request: RequestBuilder, id: &str, body: &[u8]) -> RequestBuilder {
        match self {
            Self::Header(value) => request.header("x-webhook-secret", value),
            Self::Key(key) => {
                let at = Utc::now().timestamp();
                request
                    .header("webhook-id", id)
                    .header("webhook-timestamp", at)
                    .header("webhook-signature", signature(key, id, at, body))
            }
        }
    }
}

/// Returns `v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body` (Standard Webhooks 1.0).
fn signature(key: &[u8], id: &str, at: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{at}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// The body of a 2xx answer of the webhook.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Accepted {
    pub(super) driver_id: Option<String>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is no readable answer.
    #[error("no answer: {}", kind_of(.0))]
    Transport(#[from] reqwest::Error),
    /// The answer is not 2xx.
    #[error("{status}{}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Status {
        /// The HTTP status.
        status: u16,
        /// The stable code of the problem.
        code: Option<String>,
        /// The wait that `Retry-After` requests.
        retry_after: Option<Duration>,
    },
}

impl ApiError {
    /// Returns a short name that errors are counted by.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Transport(error) => kind_of(error).to_owned(),
            Self::Status { status, .. } => status.to_string(),
        }
    }

    /// Returns the wait before a retry, or `None` when a retry cannot help.
    pub(super) fn retry_in(&self, attempt: u32) -> Option<Duration> {
        let doubling = Duration::from_millis(500) * 2u32.pow(attempt.min(5));
        match self {
            Self::Transport(_) => Some(doubling),
            Self::Status { status: 429 | 500..=599, retry_after, .. } => {
                Some(retry_after.unwrap_or(doubling).min(LONGEST_RETRY_AFTER))
            }
            Self::Status { .. } => None,
        }
    }
}

fn kind_of(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "cannot connect"
    } else if error.is_decode() {
        "unreadable answer"
    } else {
        "connection lost"
    }
}

/// See the module.
pub(super) struct Api {
    client: Client,
    base: Url,
    bearer: Option<HeaderValue>,
    credential: Credential,
}

impl Api {
    pub(super) fn new(http_url: &str, api_key: Option<&str>, auth: &WebhookAuth) -> Result<Self, SimulateError> {
        let mut base = Url::parse(http_url.trim()).map_err(|_| SimulateError::BadUrl)?;
        if base.scheme() != "http" || base.host_str().is_none() {
            return Err(SimulateError::BadUrl);
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let bearer = api_key.map(|key| HeaderValue::from_str(&format!("Bearer {}", key.trim()))).transpose();
        let mut bearer = bearer.map_err(|_| SimulateError::BadKey)?;
        bearer.iter_mut().for_each(|bearer| bearer.set_sensitive(true));
        let client = Client::builder().timeout(HTTP_TIMEOUT).no_proxy().build().map_err(SimulateError::Client)?;
        Ok(Self { client, base, bearer, credential: Credential::parse(auth)? })
    }

    /// Returns the URL that drivers connect to.
    pub(super) fn ws_url(&self) -> Result<String, SimulateError> {
        let mut url = self.url("ws/driver")?;
        url.set_scheme("ws").map_err(|()| SimulateError::BadUrl)?;
        Ok(url.into())
    }

    pub(super) fn has_key(&self) -> bool {
        self.bearer.is_some()
    }

    /// Creates a driver and a token. Returns the driver's id and the token.
    pub(super) async fn create_driver(&self, name: &str, phone: &str) -> Result<(String, String), SimulateError> {
        #[derive(Deserialize)]
        struct Created {
            id: String,
        }
        #[derive(Deserialize)]
        struct Token {
            token: String,
        }
        let driver: Created = self.rest("api/v1/drivers", json!({"name": name, "phone": phone})).await?;
        let token: Token = self.rest(&format!("api/v1/drivers/{}/tokens", driver.id), json!({})).await?;
        Ok((driver.id, token.token))
    }

    /// Returns all deliveries with this status.
    pub(super) async fn deliveries(&self, status: &str) -> Result<Vec<ListedDelivery>, SimulateError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            items: Vec<ListedDelivery>,
            next_cursor: Option<String>,
        }
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut url = self.url("api/v1/deliveries")?;
            url.query_pairs_mut().append_pair("status", status).append_pair("limit", "200");
            if let Some(cursor) = &cursor {
                url.query_pairs_mut().append_pair("cursor", cursor);
            }
            let request = self.authorized(self.client.get(url));
            let page = async { Ok(good(request.send().await?).await?.json::<Page>().await?) };
            let page: Page = page.await.map_err(SimulateError::Rest)?;
            found.extend(page.items);
            let Some(next) = page.next_cursor else { return Ok(found) };
            cursor = Some(next);
        }
    }

    /// Cancels a delivery.
    pub(super) async fn cancel(&self, id: &str, reason: &str) -> Result<(), SimulateError> {
        let request = self.client.post(self.url(&format!("api/v1/deliveries/{id}/cancel"))?);
        let request = self.authorized(request).json(&json!({"reason": reason}));
        let answer = request.send().await.map_err(ApiError::from).map_err(SimulateError::Rest)?;
        good(answer).await.map(drop).map_err(SimulateError::Rest)
    }

    /// Deactivates a driver. The service refuses this for a driver with an open delivery.
    pub(super) async fn deactivate_driver(&self, id: &str) -> Result<(), SimulateError> {
        let request = self.authorized(self.client.delete(self.url(&format!("api/v1/drivers/{id}"))?));
        let answer = request.send().await.map_err(ApiError::from).map_err(SimulateError::Rest)?;
        good(answer).await.map(drop).map_err(SimulateError::Rest)
    }

    /// Posts one order without a retry.
    pub(super) async fn post_order(&self, id: &str, body: &[u8]) -> Result<(StatusCode, Accepted), ApiError> {
        // Joining a constant path to this base URL cannot fail. If it did, the post to the base would get a 404.
        let url = self.url(WEBHOOK_PATH).unwrap_or_else(|_| self.base.clone());
        let request = self.client.post(url).header("content-type", "application/json");
        let answer = self.credential.apply(request, id, body).body(body.to_vec()).send().await?;
        let answer = good(answer).await?;
        Ok((answer.status(), answer.json().await?))
    }

    fn url(&self, path: &str) -> Result<Url, SimulateError> {
        self.base.join(path).map_err(|_| SimulateError::BadUrl)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.bearer {
            Some(bearer) => request.header(AUTHORIZATION, bearer),
            None => request,
        }
    }

    /// Posts and retries while the service is busy. The `Idempotency-Key` prevents a retry from creating a second resource.
    async fn rest<T: serde::de::DeserializeOwned>(&self, path: &str, body: Value) -> Result<T, SimulateError> {
        let url = self.url(path)?;
        let key = uuid::Uuid::now_v7().to_string();
        let mut attempt = 0;
        loop {
            let request = self.client.post(url.clone()).header("idempotency-key", &key).json(&body);
            let result = async { Ok(good(self.authorized(request).send().await?).await?.json::<T>().await?) }.await;
            let error: ApiError = match result {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            attempt += 1;
            match error.retry_in(attempt).filter(|_| attempt < TRIES) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(SimulateError::Rest(error)),
            }
        }
    }
}

/// Returns the answer if it is 2xx, or an error.
async fn good(answer: Response) -> Result<Response, ApiError> {
    #[derive(Deserialize)]
    struct Problem {
        code: Option<String>,
    }
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status().as_u16();
    let retry_after = retry_after(answer.headers());
    let code = answer.json::<Problem>().await.ok().and_then(|problem| problem.code);
    Err(ApiError::Status { status, code, retry_after })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_equals_the_one_of_an_independent_library() {
        let text = format!("whsec_{}", BASE64_STANDARD.encode([7u8; 32]));
        let Ok(Credential::Key(key)) = Credential::parse(&WebhookAuth::Signed(format!("{text}, whsec_other"))) else {
            panic!("a good secret")
        };
        let oracle = standardwebhooks::Webhook::new(&text).unwrap();
        let body = r#"{"a":"é"}"#.as_bytes();
        assert_eq!(signature(&key, "msg_1", 1_700_000_000, body), oracle.sign("msg_1", 1_700_000_000, body).unwrap());
        assert!(Credential::parse(&WebhookAuth::Signed("whsec_".to_owned())).is_err());
    }

    #[test]
    fn only_temporary_failures_are_retried() {
        let status = |status, retry_after| ApiError::Status { status, code: None, retry_after };
        assert_eq!(status(503, Some(Duration::from_secs(2))).retry_in(1), Some(Duration::from_secs(2)));
        assert_eq!(status(429, Some(Duration::from_secs(7200))).retry_in(1), Some(LONGEST_RETRY_AFTER));
        assert!(status(500, None).retry_in(3).is_some());
        assert_eq!(status(422, None).retry_in(1), None);
    }
}
