//! HTTP requests to a node by a client library.

use std::sync::Once;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::Value;

/// A response whose body has been read completely.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Reply {
    /// Asserts the status and returns the body.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "unexpected response: {}", self.text);
        self.body
    }

    /// Asserts a problem document with this status and code, and returns its body.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        let body = self.problem(status);
        assert_eq!(body["code"], code, "unexpected code: {body}");
        body
    }

    /// Asserts a problem document with this status and any code, and returns its body.
    #[track_caller]
    pub fn problem(self, status: u16) -> Value {
        assert_eq!(self.status, status, "unexpected response: {}", self.text);
        let kind = self.header("content-type").unwrap_or_default();
        assert!(
            kind.starts_with("application/problem+json"),
            "the content type {kind:?} is not a problem document: {}",
            self.text
        );
        assert!(
            self.body["code"].as_str().is_some_and(|c| !c.is_empty()),
            "the problem document has no code: {}",
            self.text
        );
        self.body
    }

    /// Returns a header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
    }

    /// Returns the seconds of `Retry-After`. Panics without the header.
    #[track_caller]
    pub fn retry_after_s(&self) -> u64 {
        let text = self.header("retry-after").expect("the response has a Retry-After header");
        text.parse().expect("Retry-After is in seconds")
    }

    /// Returns the field names in `errors`, sorted.
    pub fn invalid_field_names(&self) -> Vec<String> {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let mut fields: Vec<String> = errors.iter().map(|e| e["field"].as_str().unwrap_or("?").to_owned()).collect();
        fields.sort();
        fields
    }
}

/// The client closes a connection that was idle for this long. It is below the five seconds after which a node closes it:
/// a request that crosses the node's close gets no response.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns a client with its own connection pool. It does not follow redirects.
pub fn client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(20))
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .build()
        .expect("the HTTP client is built")
}

/// Sends a request. `Err` means that no response arrived.
pub async fn try_send(request: reqwest::RequestBuilder) -> Result<Reply, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Ok(Reply { status, headers, text, body })
}

/// Sends a request. Panics when no response arrives.
pub async fn send(request: reqwest::RequestBuilder) -> Reply {
    try_send(request).await.expect("an HTTP response arrives")
}

/// A client of a node's API: the base URL and the caller's key or token.
#[derive(Clone)]
pub struct Api {
    pub client: reqwest::Client,
    pub base: String,
    pub key: Option<String>,
}

impl Api {
    fn with_key(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.header(AUTHORIZATION, format!("Bearer {key}")),
            None => request,
        }
    }

    /// Returns a request for a path that the caller may extend.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("the HTTP method is valid");
        self.with_key(self.client.request(method, format!("{}{path}", self.base)))
    }

    pub async fn get(&self, path: &str) -> Reply {
        send(self.request("GET", path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        send(self.request("POST", path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        send(self.request("PATCH", path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        send(self.request("DELETE", path)).await
    }

    /// Returns the same client with another key, or without one.
    pub fn keyed(&self, key: Option<&str>) -> Api {
        Api { key: key.map(str::to_owned), ..self.clone() }
    }
}
