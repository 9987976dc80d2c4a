//! Reads request bodies: whole, up to a size limit and within a time limit; then checks their type; then parses them.

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

use crate::domain::fields::FieldError;
use crate::domain::json;
use crate::http::admission::header_text;
use crate::http::problem::Problem;

/// The largest body, in bytes, unless a route sets another limit.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// The largest body of an order, in bytes: 500 items with long names, each character an escape sequence.
pub const MAX_ORDER_BYTES: usize = 256 * 1024;
/// The longest time that a body may take to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// The most bytes of an oversized body that are read and discarded, so that a client that sends before it reads sees
/// the answer.
const MAX_DRAINED_BYTES: usize = 1024 * 1024;

/// Reads a body of at most `max_bytes`, with or without a `Content-Length`.
pub async fn read(headers: &HeaderMap, payload: &mut Payload, max_bytes: usize) -> Result<Bytes, Problem> {
    let reading = collect(headers, payload, max_bytes);
    tokio::time::timeout(READ_TIMEOUT, reading)
        .await
        .unwrap_or_else(|_| Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "the body came too slowly")))
}

async fn collect(headers: &HeaderMap, payload: &mut Payload, max_bytes: usize) -> Result<Bytes, Problem> {
    let declared = header_text(headers, CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<usize>().ok());
    if declared.is_some_and(|bytes| bytes > MAX_DRAINED_BYTES) {
        return Err(Problem::too_large(max_bytes));
    }
    let mut body = BytesMut::with_capacity(declared.unwrap_or(0).min(max_bytes));
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

/// Checks that the headers declare JSON in UTF-8 without a content encoding.
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

/// Parses the JSON in a body. A byte order mark before it is skipped. See [`json::Document`] for values that have no
/// representation.
fn parse(body: &[u8]) -> Result<json::Document, Problem> {
    let text = std::str::from_utf8(json::without_bom(body))
        .map_err(|_| Problem::bad_request("invalid_json", "the body is not JSON: it is not UTF-8"))?;
    json::read(text).map_err(|error| {
        let detail = format!("the body is not JSON (line {}, column {})", error.line(), error.column());
        Problem::bad_request("invalid_json", detail)
    })
}

/// The fields of the object. Values that have no representation are errors of their fields.
fn object_of(document: json::Document) -> Result<Map<String, Value>, Problem> {
    let json::Document { value, mut unholdable } = document;
    let Value::Object(object) = value else {
        return Err(Problem::field("", "type", "the body must be an object"));
    };
    unholdable.dedup_by(|one, other| one.0 == other.0);
    let faults = unholdable.into_iter().map(|(field, why)| FieldError::new(field, why.code(), why.message()));
    let faults: Vec<FieldError> = faults.collect();
    if faults.is_empty() { Ok(object) } else { Err(Problem::fields(faults)) }
}

/// SHA-256 of the bytes of a body.
pub fn hash(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// SHA-256 of the content of a body: the same for every spelling of the same JSON. A body without a canonical form is
/// hashed by its bytes.
pub fn content_hash(body: &[u8]) -> [u8; 32] {
    let text = std::str::from_utf8(json::without_bom(body)).ok();
    text.and_then(json::canonical).map_or_else(|| hash(body), |spelled| hash(spelled.as_bytes()))
}

/// The JSON object in the body of a request. An empty body is an empty object.
pub struct JsonBody {
    /// Its fields.
    pub object: Map<String, Value>,
    /// The body as received.
    pub raw: Bytes,
}

impl FromRequest for JsonBody {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let raw = read(request.headers(), &mut payload, MAX_BODY_BYTES).await?;
            if raw.is_empty() {
                return Ok(Self { object: Map::new(), raw });
            }
            check_type(request.headers())?;
            let object = object_of(parse(&raw)?)?;
            Ok(Self { object, raw })
        })
    }
}

/// A body of at most `MAX` bytes that is JSON of any shape. A value without a representation, such as `1e400`, does not
/// fail the body: `false` replaces it.
pub struct AnyJson<const MAX: usize>(pub Value);

impl<const MAX: usize> FromRequest for AnyJson<MAX> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let body = read(request.headers(), &mut payload, MAX).await?;
            check_type(request.headers())?;
            parse(&body).map(|document| Self(document.value))
        })
    }
}

/// The raw body of an order or a cancellation, at most [`MAX_ORDER_BYTES`], not parsed.
pub struct RawBody(pub Bytes);

impl FromRequest for RawBody {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move { read(request.headers(), &mut payload, MAX_ORDER_BYTES).await.map(Self) })
    }
}

/// Parses an id of the path. Any other text is 404.
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
        assert!(parse(b"\xef\xbb\xbf{}").is_ok(), "a byte order mark is no part of it");
        assert_eq!(parse(b"\xef\xbb\xbf\xef\xbb\xbf{}").unwrap_err().code(), "invalid_json");
    }

    #[test]
    fn a_value_that_cannot_be_held_is_a_fault_of_its_field() {
        let refused = |body: &[u8]| object_of(parse(body).unwrap()).unwrap_err();
        assert_eq!(refused(br#"{"metadata": {"n": [1e400, -1e400]}, "capacity": 1e999}"#).code(), "invalid_fields");
        assert_eq!(refused(b"1e400").code(), "invalid_fields");
        assert!(object_of(parse(br#"{"metadata": {"n": 1.7976931348623157e308}}"#).unwrap()).is_ok());
    }

    #[test]
    fn one_content_has_one_hash() {
        let (one, other) = (br#"{"a": 1e2, "b": [0.5]}"#, "\u{feff}{\"b\":[5e-1],\"a\":100.0}".as_bytes());
        assert_eq!(content_hash(one), content_hash(other));
        assert_ne!(hash(one), hash(other));
        assert_ne!(content_hash(one), content_hash(br#"{"a": 101, "b": [0.5]}"#));
        assert_eq!(content_hash(b"{"), hash(b"{"));
    }
}
