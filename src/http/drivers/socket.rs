//! Checks everything before a driver's WebSocket opens: first what costs nothing (the handshake, draining, connections
//! by address, the origin, the form of the credentials), then the permit, then the driver's identity. The session does
//! the rest.

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

/// The longest ticket that this service issues, in bytes.
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
    // The whole handshake is checked before the ticket is consumed.
    handshake::check(&request)?;
    // A query with two tickets would name two drivers.
    Query::of(&request).finish()?;
    // The hold comes before the check of the drain: either a drain waits for this session, or this check sees the
    // drain.
    let opening = sessions.directory.hold();
    check_draining(&lifecycle)?;
    let permit = admission.admit_connection(&request)?;
    let shown = Shown::by(&request, &limits, &origins)?;
    // The permit comes before the ticket is consumed, because a refused client could not use its ticket again. It also
    // limits the look-ups of credentials, so that they do not crowd out other requests.
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

/// The credentials of an upgrade, as a hash: a bearer token, or a one-use ticket of a browser from an allowed origin.
enum Shown {
    Token(Vec<u8>),
    Ticket(Vec<u8>),
}

impl Shown {
    /// Reads the credentials. Refuses those that cannot be valid.
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

    /// Finds the driver. Consumes a ticket.
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

/// A missing origin is refused only with a ticket. Without a ticket there are no credentials at all, and the answer is
/// 401.
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
