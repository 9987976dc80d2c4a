//! Webhooks of shops: orders and cancellations. The checks run in this order: size, content type, credentials, JSON,
//! fields.
//!
//! The paths are `POST /webhooks/{shop}/…`. `/events/…` is the path of an older service and means the shop `vendure`.

use crate::process::Lifecycle;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use chrono::Utc;

use crate::domain::event::Actor;
use crate::domain::ids::ShopName;
use crate::http::admission::{RateLimits, ShopCredentials};
use crate::http::body::{self, RawBody};
use crate::http::idempotency::Answer;
use crate::http::problem::Problem;
use crate::http::routes::{post, resource};
use crate::http::shops::order_intake::{Order, OrderIntake, refusal};
use crate::webhooks::order::{parse_cancellation, parse_order};

/// Registers the webhooks.
pub fn configure(cfg: &mut web::ServiceConfig) {
    let ready = |path: &str| resource(path, "POST").route(post().to(order_ready));
    let cancelled = |path: &str| resource(path, "POST").route(post().to(order_cancelled));
    cfg.service(ready("/webhooks/{shop}/seller-order-ready"))
        .service(ready("/events/seller-order-ready"))
        .service(cancelled("/webhooks/{shop}/seller-order-cancelled"))
        .service(cancelled("/events/seller-order-cancelled"));
}

/// A request that passed every check except those of its fields.
struct Admitted {
    shop: ShopName,
    body: bytes::Bytes,
}

/// The size was checked when the body was read.
fn admit(
    lifecycle: &Lifecycle,
    credentials: &ShopCredentials,
    limits: &RateLimits,
    request: &HttpRequest,
    body: RawBody,
) -> Result<Admitted, Problem> {
    body::check_type(request.headers())?;
    let shop = request.match_info().get("shop").unwrap_or("vendure");
    let shop = credentials.check(limits, request, shop, &body.0, Utc::now())?;
    if lifecycle.is_draining() {
        return Err(Problem::draining());
    }
    limits.admit_order(&shop)?;
    Ok(Admitted { shop, body: body.0 })
}

#[tracing::instrument(level = "trace", skip_all)]
async fn order_ready(
    request: HttpRequest,
    orders: web::Data<OrderIntake>,
    lifecycle: web::Data<Lifecycle>,
    credentials: web::Data<ShopCredentials>,
    limits: web::Data<RateLimits>,
    body: Result<RawBody, Problem>,
) -> Result<HttpResponse, Problem> {
    let outcome = take_order(&request, &orders, &lifecycle, &credentials, &limits, body).await;
    count(&outcome);
    outcome.map(Answer::into_response)
}

async fn take_order(
    request: &HttpRequest,
    orders: &OrderIntake,
    lifecycle: &Lifecycle,
    credentials: &ShopCredentials,
    limits: &RateLimits,
    body: Result<RawBody, Problem>,
) -> Result<Answer, Problem> {
    let Admitted { shop, body } = admit(lifecycle, credentials, limits, request, body?)?;
    let order = parse_order(&body).map_err(refusal)?;
    let actor = Actor::Shop(shop.as_str().to_owned());
    let order = Order { shop, order, body_hash: body::hash(&body), actor };
    let mut answer = orders.take(order, None).await?;
    // The answer has no `Location`: a shop has no API key to read it.
    answer.location = None;
    Ok(answer)
}

async fn order_cancelled(
    request: HttpRequest,
    orders: web::Data<OrderIntake>,
    lifecycle: web::Data<Lifecycle>,
    credentials: web::Data<ShopCredentials>,
    limits: web::Data<RateLimits>,
    body: RawBody,
) -> Result<HttpResponse, Problem> {
    let Admitted { shop, body } = admit(&lifecycle, &credentials, &limits, &request, body)?;
    let cancellation = parse_cancellation(&body).map_err(refusal)?;
    Ok(orders.cancel(shop, cancellation).await?.into_response())
}

/// Counts an order by its outcome. A failure of this service is not counted for the shop.
fn count(outcome: &Result<Answer, Problem>) {
    let label = match outcome {
        Err(problem) if problem.status_code().is_server_error() => return,
        Err(_) => "refused",
        Ok(answer) if answer.body.get("conflict").is_some() => "conflict",
        Ok(answer) if answer.body["duplicate"] == true => "duplicate",
        Ok(_) => "created",
    };
    metrics::counter!("driver_tracker_orders_total", "outcome" => label).increment(1);
}
