//! Before a driver's WebSocket: what costs nothing to check (the handshake, draining, how many an address may have, origin,
//! the form of the credentials), then a turn, then who it is. What comes after is the session's.

use actix_web::http::header::{AUTHORIZATION, ORIGIN};
use actix_web::{Error, HttpRequest, HttpResponse, web};

use crate::domain::secret_token::{SecretToken, TokenKind};
use crate::http::admission::{OriginPolicy, RateLimits, Refused, SessionAdmission};
use crate::http::drivers::handshake;
use crate::http::middleware::auth::driver_token;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::routes::{get, resource, transact};
use crate::process::Lifecycle;
use crate::sessions::SessionServices;
use crate::sessions::driver_session::{self, Guards};
use crate::store::Database;
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
    sessions: web::Data<SessionServices>,
    lifecycle: web::Data<Lifecycle>,
    limits: web::Data<RateLimits>,
    admission: web::Data<SessionAdmission>,
    origins: web::Data<OriginPolicy>,
) -> Result<HttpResponse, Error> {
    // All of it before a ticket is used up.
    handshake::check(&request)?;
    // Two tickets name two drivers.
    Query::of(&request).finish()?;
    // First: from here on a drain waits for the session, or this sees the drain.
    let opening = sessions.directory.hold();
    check_draining(&lifecycle)?;
    let permit = admission.admit_connection(&request)?;
    let shown = Shown::by(&request, &limits, &origins)?;
    // Before a ticket is used up, since it could not be used again; and what looks it up must not crowd out the others.
    let turn = admission.opening_permit().await?;
    check_draining(&lifecycle)?;
    let identity = shown
        .identify(sessions.frames.use_cases().database())
        .await?
        .ok_or_else(|| limits.refuse(&request, Refused::Driver))?;
    admission.admit_session(identity.driver_id)?;
    let guards = Guards { permit, until_open: Some(Box::new((turn, opening))) };
    driver_session::upgrade(&request, payload, sessions.into_inner(), identity, guards)
}

fn check_draining(lifecycle: &Lifecycle) -> Result<(), Problem> {
    if lifecycle.is_draining() { Err(Problem::draining()) } else { Ok(()) }
}

/// What an upgrade shows, by its hash: a bearer token, or for a browser a one-use ticket from an origin that may.
enum Shown {
    Token(Vec<u8>),
    Ticket(Vec<u8>),
}

impl Shown {
    /// Refuses what cannot be valid.
    fn by(request: &HttpRequest, limits: &RateLimits, origins: &OriginPolicy) -> Result<Self, Problem> {
        if request.headers().contains_key(AUTHORIZATION) {
            return driver_token(limits, request).map(Self::Token);
        }
        let ticket = ticket_of(request.query_string());
        check_origin(request, origins, ticket.is_some())?;
        let ticket = ticket.filter(|ticket| TokenKind::Ticket.fits(ticket));
        let ticket = ticket.ok_or_else(|| limits.refuse(request, Refused::Driver))?;
        Ok(Self::Ticket(SecretToken::presented(&ticket).hash()))
    }

    /// Whose it is; a ticket is used up.
    async fn identify(self, database: &Database) -> Result<Option<DriverIdentity>, Problem> {
        transact(database, move |conn| {
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
fn check_origin(request: &HttpRequest, origins: &OriginPolicy, has_ticket: bool) -> Result<(), Problem> {
    let refused = || Problem::forbidden("origin_not_allowed", "pages of this origin may not connect");
    match request.headers().get(ORIGIN) {
        Some(origin) if origin.to_str().is_ok_and(|origin| origins.allows(origin)) => Ok(()),
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

    #[test]
    fn a_ticket_is_read_from_the_query() {
        assert_eq!(ticket_of("a=1&ticket=dt_tkt_x").as_deref(), Some("dt_tkt_x"));
        assert_eq!(ticket_of("ticket="), None);
        assert_eq!(ticket_of(&format!("ticket={}", "x".repeat(200))), None);
    }
}
