//! Plain HTTP against a node.

use std::sync::Once;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::Value;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Reply {
    /// The body, if the status is the expected one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "unexpected answer: {}", self.text);
        self.body
    }

    /// The body of a refusal: a problem document with a stable code.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        let body = self.problem(status);
        assert_eq!(body["code"], code, "unexpected code: {body}");
        body
    }

    /// The body of a refusal whose code is left open.
    #[track_caller]
    pub fn problem(self, status: u16) -> Value {
        assert_eq!(self.status, status, "unexpected answer: {}", self.text);
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "no problem document but {kind:?}: {}", self.text);
        assert!(self.body["code"].as_str().is_some_and(|c| !c.is_empty()), "a problem without a code: {}", self.text);
        self.body
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
    }

    /// Seconds that the answer asks to wait for; panics when it does not.
    #[track_caller]
    pub fn retry_after_s(&self) -> u64 {
        let text = self.header("retry-after").expect("a Retry-After header");
        text.parse().expect("Retry-After in seconds")
    }

    /// The names in `errors`, sorted.
    pub fn fields_at_fault(&self) -> Vec<String> {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let mut fields: Vec<String> = errors.iter().map(|e| e["field"].as_str().unwrap_or("?").to_owned()).collect();
        fields.sort();
        fields
    }
}

/// A client of its own pool, without redirects.
pub fn client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(20))
        .build()
        .expect("an HTTP client")
}

/// Sends a request; `Err` when no answer came.
pub async fn try_send(request: reqwest::RequestBuilder) -> Result<Reply, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Ok(Reply { status, headers, text, body })
}

/// Sends a request that must be answered.
pub async fn send(request: reqwest::RequestBuilder) -> Reply {
    try_send(request).await.expect("an HTTP answer")
}

/// One caller's way into a node's API: its address and the caller's key or token.
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

    /// A request below the node's root, to be added to.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("an HTTP method");
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

    /// The same way in with another key, or with none.
    pub fn keyed(&self, key: Option<&str>) -> Api {
        Api { key: key.map(str::to_owned), ..self.clone() }
    }
}
