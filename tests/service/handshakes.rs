//! Tests of upgrade requests that cannot succeed: each gets a problem document and consumes no ticket.

use serde_json::json;

use super::support::raw_http::{self, RawReply};
use super::support::session::{SUBPROTOCOL, upgrade};
use super::support::*;

/// The headers of a valid handshake.
const GOOD: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

struct HandshakeClient<'w> {
    address: &'w str,
    ticket: String,
}

impl HandshakeClient<'_> {
    /// Sends the valid handshake with the values of the header `name` replaced.
    async fn send_request(&self, method: &str, version: &str, name: &str, values: &[&str]) -> RawReply {
        let unchanged =
            GOOD.iter().filter(|(other, _)| *other != name).map(|(name, value)| format!("{name}: {value}\r\n"));
        let replaced = values.iter().map(|value| format!("{name}: {value}\r\n"));
        let headers: String = unchanged.chain(replaced).collect();
        let (address, ticket) = (self.address, &self.ticket);
        let line = format!("{method} /ws/driver?ticket={ticket} HTTP/{version}");
        let origin = format!("Host: {address}\r\nOrigin: http://{address}");
        raw_http::send(address, &format!("{line}\r\n{origin}\r\n{headers}\r\n")).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_upgrade_request_gets_a_problem_and_its_ticket_stays_valid() {
    let world = World::start().await;
    let (_, token) = world.new_driver().await;
    let api = world.node().api().keyed(Some(&token));
    let ticket = api.post("/api/v1/driver/ws-ticket", &json!({})).await.expect(201)["ticket"].clone();
    let page = HandshakeClient {
        address: &world.node().address,
        ticket: ticket.as_str().expect("the response has a ticket").to_owned(),
    };

    let cases: &[(&str, &[&str], u16, &str)] = &[
        ("Sec-WebSocket-Key", &[], 400, "invalid_handshake"),
        ("Sec-WebSocket-Key", &["c2hvcnQ="], 400, "invalid_handshake"),
        ("Sec-WebSocket-Key", &["no base64, and not short"], 400, "invalid_handshake"),
        ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="], 400, "invalid_handshake"),
        ("Connection", &[], 426, "upgrade_required"),
        ("Connection", &["keep-alive"], 426, "upgrade_required"),
        ("Connection", &["close"], 426, "upgrade_required"),
        ("Upgrade", &[], 426, "upgrade_required"),
        ("Upgrade", &["h2c"], 426, "upgrade_required"),
        ("Upgrade", &["h2c, websocket"], 426, "upgrade_required"),
        ("Sec-WebSocket-Version", &[], 426, "unsupported_version"),
        ("Sec-WebSocket-Version", &["8"], 426, "unsupported_version"),
        ("Sec-WebSocket-Version", &["7"], 426, "unsupported_version"),
        ("Sec-WebSocket-Version", &["14"], 426, "unsupported_version"),
        ("Sec-WebSocket-Version", &["13", "13"], 426, "unsupported_version"),
        ("Sec-WebSocket-Protocol", &["driver-tracker.v2"], 400, "unsupported_subprotocol"),
        ("Transfer-Encoding", &["chunked"], 400, "invalid_handshake"),
    ];
    for (name, values, status, code) in cases {
        let reply = page.send_request("GET", "1.1", name, values).await;
        assert_problem(&reply, *status, code, &format!("{name}: {values:?}"));
    }
    for (method, version, status, code) in [
        ("GET", "1.0", 426, "upgrade_required"),
        ("POST", "1.1", 405, "method_not_allowed"),
        ("DELETE", "1.1", 405, "method_not_allowed"),
    ] {
        let reply = page.send_request(method, version, "none", &[]).await;
        assert_problem(&reply, status, code, &format!("{method} HTTP/{version}"));
    }
    assert_eq!(page.send_request("HEAD", "1.1", "Connection", &["close"]).await.status, 426);

    let headers = [("origin", format!("http://{}", page.address)), ("sec-websocket-protocol", SUBPROTOCOL.to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let path = format!("/ws/driver?ticket={}", page.ticket);
    let session = Session::open(upgrade(page.address, &path, &headers)).await;
    let session = session.unwrap_or_else(|status| panic!("the ticket was refused with {status}"));
    assert_eq!(session.take_first().await["type"], "welcome");
    assert_eq!(Session::open(upgrade(page.address, &path, &headers)).await.err(), Some(401), "a ticket is valid once");
    world.finish().await;
}

#[track_caller]
fn assert_problem(reply: &RawReply, status: u16, code: &str, what: &str) {
    let body = reply.json();
    assert_eq!((reply.status, &body["code"]), (status, &json!(code)), "{what}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}: {reply:?}");
    if status == 426 {
        assert_eq!(reply.header("upgrade"), Some("websocket"), "{what}: {reply:?}");
        assert_eq!(reply.header("sec-websocket-version"), Some("13"), "{what}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_response_names_the_subprotocol_from_any_of_the_offering_headers() {
    let world = World::start().await;
    let (_, token) = world.new_driver().await;
    let address = &world.node().address;
    for (offered, expected) in [
        (&["chat, driver-tracker.v1"][..], Some(SUBPROTOCOL)),
        (&["chat", "driver-tracker.v1"], Some(SUBPROTOCOL)),
        (&[], None),
    ] {
        let offers: String = offered.iter().map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).collect();
        let good: String = GOOD.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("GET /ws/driver HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n");
        // A close frame after the handshake, masked with zeros, makes the service end the connection.
        let close: &[u8] = &[0x88, 0x80, 0, 0, 0, 0];
        let reply = raw_http::send(address, [format!("{head}{good}{offers}\r\n").as_bytes(), close].concat()).await;
        assert_eq!((reply.status, reply.header("sec-websocket-protocol")), (101, expected), "{offered:?}");
    }
    world.finish().await;
}
