//! Checks the opening handshake of a WebSocket (RFC 6455, section 4.2.1) before the upgrade.
//!
//! Invariant: the form of a request that passes this check never prevents its upgrade. So a request that cannot become
//! a socket never consumes a ticket.

use actix_web::HttpRequest;
use actix_web::http::header::{
    HeaderMap, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use actix_web::http::{Method, StatusCode, Version};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, PAD};

use crate::http::problem::Problem;
use crate::protocol::SUBPROTOCOL;

/// The only version of the WebSocket protocol (RFC 6455).
const VERSION: &str = "13";
/// The length of a decoded key, in bytes.
const KEY_BYTES: usize = 16;
/// Accepts unused bits in the last character of a key: they are no reason to refuse a client.
const KEY_ENCODING: GeneralPurpose = GeneralPurpose::new(&STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// Refuses a request that cannot become a driver's WebSocket.
pub fn check(request: &HttpRequest) -> Result<(), Problem> {
    check_upgrade(request)?;
    check_version(request.headers())?;
    check_key(request.headers())?;
    check_subprotocol(request.headers())
}

fn check_upgrade(request: &HttpRequest) -> Result<(), Problem> {
    let refused = |detail| Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", detail));
    if *request.method() != Method::GET || request.version() < Version::HTTP_11 {
        return refused("this is a WebSocket: ask for an upgrade by GET over HTTP/1.1");
    }
    let asks = only(request.headers(), &UPGRADE).is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
    if !asks {
        return refused("this is a WebSocket: ask for it by one header Upgrade: websocket");
    }
    if !request.head().upgrade() {
        return refused("this is a WebSocket: ask for it by a header Connection: upgrade");
    }
    if request.headers().contains_key(TRANSFER_ENCODING) {
        return Err(Problem::bad_request("invalid_handshake", "a request for an upgrade has no Transfer-Encoding"));
    }
    Ok(())
}

fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    if only(headers, &SEC_WEBSOCKET_VERSION) == Some(VERSION) {
        return Ok(());
    }
    let detail = "Sec-WebSocket-Version must be given once and be 13";
    Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "unsupported_version", detail))
}

fn check_key(headers: &HeaderMap) -> Result<(), Problem> {
    let key = only(headers, &SEC_WEBSOCKET_KEY).and_then(|key| KEY_ENCODING.decode(key).ok());
    if key.is_some_and(|key| key.len() == KEY_BYTES) {
        return Ok(());
    }
    let detail = "Sec-WebSocket-Key must be given once and be 16 bytes in base64";
    Err(Problem::bad_request("invalid_handshake", detail))
}

fn check_subprotocol(headers: &HeaderMap) -> Result<(), Problem> {
    let mut offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).peekable();
    if offered.peek().is_none() {
        return Ok(());
    }
    let is_ours = |text: &str| text.split(',').any(|name| name.trim() == SUBPROTOCOL);
    if offered.filter_map(|value| value.to_str().ok()).any(is_ours) {
        return Ok(());
    }
    Err(Problem::bad_request("unsupported_subprotocol", format!("the only subprotocol is {SUBPROTOCOL}")))
}

/// The text of a header that is present exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name);
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok().map(str::trim) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::CONNECTION;
    use actix_web::test::TestRequest;

    /// A valid handshake without the header `name`, and with `values` for it.
    fn with(name: &HeaderName, values: &[&str]) -> TestRequest {
        let good = [
            (UPGRADE, "WebSocket"),
            (CONNECTION, "keep-alive, Upgrade"),
            (SEC_WEBSOCKET_VERSION, VERSION),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let kept = good.into_iter().filter(|(other, _)| other != name);
        let request = kept.fold(TestRequest::default(), |request, header| request.append_header(header));
        values.iter().fold(request, |request, value| request.append_header((name.clone(), *value)))
    }

    fn code(request: TestRequest) -> &'static str {
        check(&request.to_http_request()).map_or_else(|problem| problem.code(), |()| "ok")
    }

    #[test]
    fn every_header_of_the_handshake_is_checked() {
        let cases: &[(HeaderName, &[&str], &str)] = &[
            (SEC_WEBSOCKET_PROTOCOL, &[], "ok"),
            (SEC_WEBSOCKET_PROTOCOL, &["chat, driver-tracker.v1"], "ok"),
            (SEC_WEBSOCKET_PROTOCOL, &["chat", "driver-tracker.v1"], "ok"),
            (SEC_WEBSOCKET_PROTOCOL, &["driver-tracker.v2"], "unsupported_subprotocol"),
            (UPGRADE, &[], "upgrade_required"),
            (UPGRADE, &["h2c"], "upgrade_required"),
            (UPGRADE, &["websockets"], "upgrade_required"),
            (UPGRADE, &["h2c, websocket"], "upgrade_required"),
            (UPGRADE, &["websocket", "websocket"], "upgrade_required"),
            (CONNECTION, &[], "upgrade_required"),
            (CONNECTION, &["keep-alive"], "upgrade_required"),
            (CONNECTION, &["close, upgrade"], "upgrade_required"),
            (CONNECTION, &["keep-alive", "UPGRADE"], "ok"),
            (SEC_WEBSOCKET_VERSION, &[], "unsupported_version"),
            (SEC_WEBSOCKET_VERSION, &["8"], "unsupported_version"),
            (SEC_WEBSOCKET_VERSION, &["14"], "unsupported_version"),
            (SEC_WEBSOCKET_VERSION, &["13", "13"], "unsupported_version"),
            (SEC_WEBSOCKET_VERSION, &["13, 8"], "unsupported_version"),
            (SEC_WEBSOCKET_KEY, &[], "invalid_handshake"),
            (SEC_WEBSOCKET_KEY, &[""], "invalid_handshake"),
            (SEC_WEBSOCKET_KEY, &["not base64"], "invalid_handshake"),
            (SEC_WEBSOCKET_KEY, &["c2hvcnQ="], "invalid_handshake"),
            (SEC_WEBSOCKET_KEY, &["dGhlIHNhbXBsZSBub25jZQ"], "invalid_handshake"),
            (SEC_WEBSOCKET_KEY, &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="], "invalid_handshake"),
            (SEC_WEBSOCKET_KEY, &["dGhlIHNhbXBsZSBub25jZR=="], "ok"),
            (TRANSFER_ENCODING, &["chunked"], "invalid_handshake"),
        ];
        for (name, values, expected) in cases {
            assert_eq!(code(with(name, values)), *expected, "{name}: {values:?}");
        }
    }

    #[test]
    fn only_get_over_http_1_1_asks_for_a_socket() {
        let good = || with(&SEC_WEBSOCKET_PROTOCOL, &[]);
        assert_eq!(code(good()), "ok");
        assert_eq!(code(good().method(Method::HEAD)), "upgrade_required");
        assert_eq!(code(good().version(Version::HTTP_10)), "upgrade_required");
    }
}
