//! Before a driver's WebSocket: what costs nothing to check (subprotocol, draining, how many an address may have, origin,
//! the form of the credentials), then a turn, then who it is. What comes after is the session's.

use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use actix_web::{Error, HttpRequest, HttpResponse, web};

use super::auth::driver_token;
use super::gate::{Gate, Refused, header_text};
use super::problem::Problem;
use super::query::Query;
use super::routes::{get, resource, transact};
use crate::actors::Node;
use crate::actors::driver_session::{self, Guards};
use crate::domain::secret_token::{SecretToken, TokenKind};
use crate::protocol::SUBPROTOCOL;
use crate::store::credentials::{self, DriverIdentity};

/// No ticket of ours is longer.
const MAX_TICKET_BYTES: usize = 128;

/// Registers the route.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/ws/driver", "GET").route(get().to(connect)));
}

async fn connect(
    request: HttpRequest,
    payload: web::Payload,
    node: web::Data<Node>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, Error> {
    check_upgrade(&request)?;
    // Two tickets name two drivers.
    Query::of(&request).finish()?;
    // First: from here on a drain waits for the session, or this sees the drain.
    let opening = node.sessions().hold();
    check_draining(&node)?;
    let permit = gate.admit_connection(&request)?;
    let shown = Shown::by(&request, &gate)?;
    // Before a ticket is used up, since it could not be used again; and what looks it up must not crowd out the others.
    let turn = gate.await_turn().await?;
    check_draining(&node)?;
    let identity = shown.identify(&node).await?.ok_or_else(|| gate.refuse(&request, Refused::Driver))?;
    gate.admit_session(identity.driver_id)?;
    let guards = Guards { permit, until_open: Some(Box::new((turn, opening))) };
    driver_session::upgrade(&request, payload, node.get_ref().clone(), identity, guards)
}

fn check_draining(node: &Node) -> Result<(), Problem> {
    if node.is_draining() { Err(Problem::draining()) } else { Ok(()) }
}

fn check_upgrade(request: &HttpRequest) -> Result<(), Problem> {
    let asks = header_text(request.headers(), UPGRADE.as_str()).is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
    if !asks {
        let detail = "this is a WebSocket: ask for an upgrade";
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", detail));
    }
    let mut offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).peekable();
    if offered.peek().is_none() {
        return Ok(());
    }
    let is_ours = |text: &str| text.split(',').any(|name| name.trim() == SUBPROTOCOL);
    if offered.filter_map(|value| value.to_str().ok()).any(is_ours) {
        Ok(())
    } else {
        let detail = format!("the only subprotocol is {SUBPROTOCOL}");
        Err(Problem::bad_request("unsupported_subprotocol", detail))
    }
}

/// What an upgrade shows, by its hash: a bearer token, or for a browser a one-use ticket from an origin that may.
enum Shown {
    Token(Vec<u8>),
    Ticket(Vec<u8>),
}

impl Shown {
    /// Refuses what cannot be valid.
    fn by(request: &HttpRequest, gate: &Gate) -> Result<Self, Problem> {
        if request.headers().contains_key(AUTHORIZATION) {
            return driver_token(gate, request).map(Self::Token);
        }
        let ticket = ticket_of(request.query_string());
        check_origin(request, gate, ticket.is_some())?;
        let ticket = ticket.filter(|ticket| TokenKind::Ticket.fits(ticket));
        let ticket = ticket.ok_or_else(|| gate.refuse(request, Refused::Driver))?;
        Ok(Self::Ticket(SecretToken::presented(&ticket).hash()))
    }

    /// Whose it is; a ticket is used up.
    async fn identify(self, node: &Node) -> Result<Option<DriverIdentity>, Problem> {
        transact(node, move |conn| {
            Box::pin(async move {
                match self {
                    Self::Token(hash) => credentials::find_token(conn, &hash).await,
                    Self::Ticket(hash) => credentials::use_ticket(conn, &hash).await,
                }
            })
        })
        .await
    }
}

/// Without a ticket a missing origin is no fault of its own: there are no credentials at all, and 401 says so.
fn check_origin(request: &HttpRequest, gate: &Gate, has_ticket: bool) -> Result<(), Problem> {
    let refused = || Problem::forbidden("origin_not_allowed", "pages of this origin may not connect");
    match request.headers().get(ORIGIN) {
        Some(origin) if origin.to_str().is_ok_and(|origin| gate.allows_origin(origin)) => Ok(()),
        None if !has_ticket => Ok(()),
        _ => Err(refused()),
    }
}

fn ticket_of(query: &str) -> Option<String> {
    let (_, ticket) = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "ticket")?;
    (1..=MAX_TICKET_BYTES).contains(&ticket.len()).then(|| ticket.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn check(protocols: &[&str]) -> Result<(), &'static str> {
        let mut request = TestRequest::default().insert_header((UPGRADE, "WebSocket"));
        for protocol in protocols {
            request = request.append_header((SEC_WEBSOCKET_PROTOCOL, *protocol));
        }
        check_upgrade(&request.to_http_request()).map_err(|problem| problem.code())
    }

    #[test]
    fn no_subprotocol_or_ours() {
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["chat, driver-tracker.v1"]), Ok(()));
        assert_eq!(check(&["chat", "driver-tracker.v1"]), Ok(()));
        assert_eq!(check(&["driver-tracker.v2"]), Err("unsupported_subprotocol"));
        let plain = TestRequest::default().to_http_request();
        assert_eq!(check_upgrade(&plain).unwrap_err().code(), "upgrade_required");
    }

    #[test]
    fn a_ticket_is_read_from_the_query() {
        assert_eq!(ticket_of("a=1&ticket=dt_tkt_x").as_deref(), Some("dt_tkt_x"));
        assert_eq!(ticket_of("ticket="), None);
        assert_eq!(ticket_of(&format!("ticket={}", "x".repeat(200))), None);
    }
}
