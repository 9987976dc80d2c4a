//! Authenticates callers: operators and shops by API key, drivers by token. This runs before any other part of a
//! request is read.
//!
//! A middleware looks up the bearer by its SHA-256 and attaches the identity to the request. Handlers extract
//! [`Caller`], [`Staff`] or [`DriverAuth`], which also enforce the scopes.

use crate::store::Database;
use std::future::{Ready, ready};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest, web};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::domain::event::Actor;
use crate::domain::ids::{ApiKeyId, ShopName};
use crate::domain::secret_token::{SecretToken, TokenKind};
use crate::http::admission::{RateLimits, Refused, header_text};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::routes::transact;
use crate::store::credentials::{self, ApiKey, DriverIdentity};

/// The longest key or token that this service issues, in bytes.
const MAX_BEARER_BYTES: usize = 256;

/// What an API key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Admin,
    /// Read everything.
    Read,
    /// Act for one shop: create, read and cancel its own deliveries, and read its own events.
    Shop(String),
}

impl Scope {
    fn of(key: &ApiKey) -> Option<Self> {
        match (key.scope.as_str(), &key.shop) {
            ("admin", _) => Some(Self::Admin),
            ("read", _) => Some(Self::Read),
            ("shop", Some(shop)) => Some(Self::Shop(shop.clone())),
            _ => None,
        }
    }
}

/// A caller with an API key. A `read` key reaches a handler only for reads.
#[derive(Clone)]
pub struct Caller {
    /// The row of the key.
    pub key_id: ApiKeyId,
    /// The scope of the key.
    pub scope: Scope,
    sealing_key: Vec<u8>,
}

impl Caller {
    /// The actor in the audit trail.
    pub fn actor(&self) -> Actor {
        match &self.scope {
            Scope::Shop(shop) => Actor::Shop(shop.clone()),
            Scope::Admin | Scope::Read => Actor::Operator(self.key_id.0),
        }
    }

    /// The shop that a `shop` key is bound to.
    pub fn own_shop(&self) -> Option<&str> {
        match &self.scope {
            Scope::Shop(shop) => Some(shop),
            Scope::Admin | Scope::Read => None,
        }
    }

    /// Whether the caller may see what belongs to `shop`.
    pub fn sees(&self, shop: &str) -> bool {
        self.own_shop().is_none_or(|own| own == shop)
    }

    /// The shop to list: the shop of a `shop` key, or the shop that the query names. Another shop's list is 404.
    pub fn listed_shop(&self, query: &mut Query) -> Result<Option<String>, Problem> {
        let named = query.parse("shop", "form", "must be a shop's name", ShopName::parse);
        match named {
            Some(named) if !self.sees(named.as_str()) => Err(Problem::not_found()),
            Some(named) => Ok(Some(named.as_str().to_owned())),
            None => Ok(self.own_shop().map(str::to_owned)),
        }
    }

    /// 32 bytes that only the holder of this API key can derive again. They differ for every `id`.
    pub fn mask(&self, id: Uuid) -> [u8; 32] {
        #[allow(clippy::expect_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.sealing_key).expect("HMAC takes keys of any length");
        mac.update(id.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(of_request::<Self>(request).and_then(|caller| {
            let reads = matches!(*request.method(), Method::GET | Method::HEAD);
            if caller.scope == Scope::Read && !reads { Err(forbidden()) } else { Ok(caller) }
        }))
    }
}

/// A caller who manages the fleet: an `admin` key, or a `read` key on a read.
#[derive(Clone)]
pub struct Staff(pub Caller);

impl FromRequest for Staff {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let caller = Caller::from_request(request, payload).into_inner();
        ready(caller.and_then(|caller| if caller.own_shop().is_some() { Err(forbidden()) } else { Ok(Self(caller)) }))
    }
}

/// A driver, authenticated by token.
#[derive(Debug, Clone, Copy)]
pub struct DriverAuth(pub DriverIdentity);

impl FromRequest for DriverAuth {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(of_request(request))
    }
}

fn of_request<T: Clone + 'static>(request: &HttpRequest) -> Result<T, Problem> {
    request.extensions().get::<T>().cloned().ok_or_else(Problem::unauthorized)
}

fn forbidden() -> Problem {
    Problem::forbidden("forbidden", "this key's scope does not allow it")
}

/// The bearer of a request, if it has the form of this kind of token.
fn bearer(request: &HttpRequest, kind: TokenKind) -> Option<&str> {
    let text = header_text(request.headers(), AUTHORIZATION.as_str())?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    let can_be = scheme.eq_ignore_ascii_case("bearer") && token.len() <= MAX_BEARER_BYTES && kind.fits(token);
    can_be.then_some(token)
}

/// Admits callers with a valid API key.
pub async fn require_key(
    limits: web::Data<RateLimits>,
    database: web::Data<Database>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match find_caller(&limits, &database, request.request()).await {
        Ok(caller) => admit(caller, request, next).await,
        Err(problem) => Ok(request.error_response(problem)),
    }
}

/// Admits callers with a valid driver token.
pub async fn require_driver(
    limits: web::Data<RateLimits>,
    database: web::Data<Database>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match find_driver(&limits, &database, request.request()).await {
        Ok(identity) => admit(DriverAuth(identity), request, next).await,
        Err(problem) => Ok(request.error_response(problem)),
    }
}

async fn admit<T: 'static>(
    who: T,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    request.extensions_mut().insert(who);
    Ok(next.call(request).await?.map_into_boxed_body())
}

async fn find_caller(limits: &RateLimits, database: &Database, request: &HttpRequest) -> Result<Caller, Problem> {
    let refuse = || limits.refuse(request, Refused::Key);
    let text = bearer(request, TokenKind::ApiKey).ok_or_else(refuse)?;
    let hash = SecretToken::presented(text).hash();
    let sealing_key = SecretToken::presented(&format!("sealing {text}")).hash();
    let found =
        transact(database, move |conn| Box::pin(async move { credentials::find_api_key(conn, &hash).await })).await?;
    let admitted = found.and_then(|key| Scope::of(&key).map(|scope| (ApiKeyId(key.id), scope)));
    match admitted {
        Some((key_id, scope)) => Ok(Caller { key_id, scope, sealing_key }),
        None => Err(refuse()),
    }
}

async fn find_driver(
    limits: &RateLimits,
    database: &Database,
    request: &HttpRequest,
) -> Result<DriverIdentity, Problem> {
    let hash = driver_token(limits, request)?;
    let found =
        transact(database, move |conn| Box::pin(async move { credentials::find_token(conn, &hash).await })).await?;
    found.ok_or_else(|| limits.refuse(request, Refused::Driver))
}

/// The hash of the driver token in the request, valid or not.
pub fn driver_token(limits: &RateLimits, request: &HttpRequest) -> Result<Vec<u8>, Problem> {
    let token = bearer(request, TokenKind::Driver).ok_or_else(|| limits.refuse(request, Refused::Driver))?;
    Ok(SecretToken::presented(token).hash())
}

#[cfg(test)]
pub(in crate::http) mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    /// A caller with this scope. Every byte of its sealing key is `byte`.
    pub(in crate::http) fn caller(scope: Scope, byte: u8) -> Caller {
        Caller { key_id: ApiKeyId::new(), scope, sealing_key: vec![byte; 32] }
    }

    fn taken<T: FromRequest<Error = Problem, Future = Ready<Result<T, Problem>>>>(
        method: Method,
        scope: Scope,
    ) -> Result<T, &'static str> {
        let request = TestRequest::default().method(method).to_http_request();
        request.extensions_mut().insert(caller(scope, 7));
        T::from_request(&request, &mut Payload::None).into_inner().map_err(|problem| problem.code())
    }

    #[test]
    fn scopes_hold() {
        let shop = || Scope::Shop("a".to_owned());
        assert!(taken::<Staff>(Method::POST, Scope::Admin).is_ok());
        assert!(taken::<Staff>(Method::GET, Scope::Read).is_ok());
        assert_eq!(taken::<Staff>(Method::POST, Scope::Read).err(), Some("forbidden"));
        assert_eq!(taken::<Staff>(Method::GET, shop()).err(), Some("forbidden"));
        assert!(taken::<Caller>(Method::POST, shop()).is_ok());
        assert!(caller(shop(), 7).sees("a") && !caller(shop(), 7).sees("b") && caller(Scope::Read, 7).sees("b"));
    }

    #[test]
    fn the_audit_trail_names_a_shop_by_its_name() {
        assert_eq!(caller(Scope::Shop("a".to_owned()), 7).actor(), Actor::Shop("a".to_owned()));
        let admin = caller(Scope::Admin, 7);
        assert_eq!(admin.actor(), Actor::Operator(admin.key_id.0));
    }

    #[test]
    fn a_shops_key_lists_its_own_shop_alone() {
        let listed = |scope: Scope, query: &str| {
            caller(scope, 7).listed_shop(&mut Query::parse_text(query)).map_err(|problem| problem.code())
        };
        let own = || Scope::Shop("a".to_owned());
        assert_eq!(listed(own(), ""), Ok(Some("a".to_owned())));
        assert_eq!(listed(own(), "shop=a"), Ok(Some("a".to_owned())));
        assert_eq!(listed(own(), "shop=b"), Err("not_found"));
        assert_eq!(listed(Scope::Read, ""), Ok(None));
        assert_eq!(listed(Scope::Read, "shop=b"), Ok(Some("b".to_owned())));
    }

    #[test]
    fn a_bearer_is_read_whatever_the_case_of_its_scheme() {
        let with = |value: &str| TestRequest::default().insert_header((AUTHORIZATION, value)).to_http_request();
        assert_eq!(bearer(&with("bearer dt_key_x"), TokenKind::ApiKey), Some("dt_key_x"));
        let (long, another) = (format!("Bearer dt_key_{}", "x".repeat(300)), "Bearer dt_drv_x");
        for bad in ["Basic dt_key_x", "Bearer", "Bearer ", "Bearer guess", another, &long] {
            assert_eq!(bearer(&with(bad), TokenKind::ApiKey), None, "{bad}");
        }
    }

    #[test]
    fn a_mask_is_the_keys_and_the_ids_own() {
        let (one, id) = (caller(Scope::Admin, 7), Uuid::now_v7());
        assert_eq!(one.mask(id), one.mask(id));
        assert_ne!(one.mask(id), one.mask(Uuid::now_v7()));
        assert_ne!(one.mask(id), caller(Scope::Admin, 8).mask(id));
    }
}
