//! Request bodies: read whole with a hard cap and within a time, then checked for their type, then parsed.

use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use actix_web::{FromRequest, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::gate::header_text;
use super::problem::Problem;
use crate::protocol::lenient;

/// The largest body, in bytes, but where a route says otherwise.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// How long a body may take to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// What is still read of a body over the cap, so that a client that sends before it reads sees the answer.
const MAX_DRAINED_BYTES: usize = 1024 * 1024;

/// Reads a body of at most `max_bytes`, whether or not its length was told.
pub async fn read(headers: &HeaderMap, payload: &mut Payload, max_bytes: usize) -> Result<Bytes, Problem> {
    let reading = collect(headers, payload, max_bytes);
    tokio::time::timeout(READ_TIMEOUT, reading)
        .await
        .unwrap_or_else(|_| Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "the body came too slowly")))
}

async fn collect(headers: &HeaderMap, payload: &mut Payload, max_bytes: usize) -> Result<Bytes, Problem> {
    let told = header_text(headers, CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<usize>().ok());
    if told.is_some_and(|bytes| bytes > MAX_DRAINED_BYTES) {
        return Err(Problem::too_large(max_bytes));
    }
    let mut body = BytesMut::with_capacity(told.unwrap_or(0).min(max_bytes));
    let mut total = 0;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Problem::bad_request("incomplete_body", "the body could not be read"))?;
        total += chunk.len();
        if total <= max_bytes {
            body.extend_from_slice(&chunk);
        } else if total > MAX_DRAINED_BYTES {
            break;
        }
    }
    if total > max_bytes { Err(Problem::too_large(max_bytes)) } else { Ok(body.freeze()) }
}

/// Whether the body says that it is JSON in UTF-8, as it is.
pub fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let encoded = header_text(headers, CONTENT_ENCODING.as_str()).is_some_and(|e| !e.eq_ignore_ascii_case("identity"));
    let is_json = header_text(headers, CONTENT_TYPE.as_str()).is_some_and(is_json);
    if is_json && !encoded { Ok(()) } else { Err(Problem::unsupported_media_type()) }
}

fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case("application/json")
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                let charset = value.trim().trim_matches('"');
                charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
            }
            _ => true,
        })
}

/// The JSON in a body.
pub fn parse(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|error| not_json(&error))
}

fn not_json(error: &serde_json::Error) -> Problem {
    let detail = format!("the body is not JSON (line {}, column {})", error.line(), error.column());
    Problem::bad_request("invalid_json", detail)
}

/// SHA-256 of a body: what tells whether two requests are one.
pub fn hash(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// The JSON object that a request of the API carries; an empty body is an empty object.
pub struct JsonBody {
    /// Its fields.
    pub object: Map<String, Value>,
    /// SHA-256 of the body as it came.
    pub hash: [u8; 32],
}

impl FromRequest for JsonBody {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let body = read(request.headers(), &mut payload, MAX_BODY_BYTES).await?;
            let hash = hash(&body);
            if body.is_empty() {
                return Ok(Self { object: Map::new(), hash });
            }
            check_type(request.headers())?;
            match parse(&body)? {
                Value::Object(object) => Ok(Self { object, hash }),
                _ => Err(Problem::field("", "type", "the body must be an object")),
            }
        })
    }
}

/// A body of at most `MAX` bytes that is JSON of any shape. A value in it that cannot be represented, such as `1e400`, does
/// not fail the body.
pub struct AnyJson<const MAX: usize>(pub Value);

impl<const MAX: usize> FromRequest for AnyJson<MAX> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let body = read(request.headers(), &mut payload, MAX).await?;
            check_type(request.headers())?;
            lenient::parse(&body).map(Self).map_err(|error| not_json(&error))
        })
    }
}

/// The raw body of a webhook, read but not looked at.
pub struct RawBody(pub Bytes);

impl FromRequest for RawBody {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move { read(request.headers(), &mut payload, MAX_BODY_BYTES).await.map(Self) })
    }
}

/// A parsed id of the path; anything else is not found.
pub fn path_id<T: std::str::FromStr>(path: &web::Path<String>) -> Result<T, Problem> {
    path.parse().map_err(|_| Problem::not_found())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;
    use actix_web::test::TestRequest;

    async fn read_of(bytes: usize) -> Result<usize, &'static str> {
        let (request, mut payload) = TestRequest::default().set_payload(vec![b'x'; bytes]).to_http_parts();
        read(request.headers(), &mut payload, 100).await.map(|b| b.len()).map_err(|problem| problem.code())
    }

    #[actix_web::test]
    async fn a_body_over_the_cap_is_refused() {
        assert_eq!(read_of(100).await, Ok(100));
        assert_eq!(read_of(101).await, Err("body_too_large"));
    }

    #[test]
    fn only_json_in_utf_8_is_taken() {
        for good in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
            assert!(is_json(good), "{good}");
        }
        for bad in ["", "text/plain", "application/jsonp", "application/json; charset=latin1"] {
            assert!(!is_json(bad), "{bad}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert!(check_type(&headers).is_ok());
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(check_type(&headers).is_err());
    }

    #[test]
    fn text_that_is_not_json_says_where() {
        assert_eq!(parse(b"{\"a\": }").unwrap_err().code(), "invalid_json");
        assert_eq!(parse(b"\"\xff\"").unwrap_err().code(), "invalid_json");
        assert!(parse(b"[]").is_ok());
    }
}
