//! Deliveries for operators, and for shops (only their own): create, list, read, audit trail.

use crate::process::Lifecycle;
use crate::store::Database;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};

use crate::dispatch::DispatchError;
use crate::domain::ids::{DeliveryId, ShopName};
use crate::http::admission::RateLimits;
use crate::http::body::{self, RawBody, path_id};
use crate::http::idempotency::{Answer, Keyed};
use crate::http::middleware::auth::Caller;
use crate::http::operators::views;
use crate::http::pagination::{Page, list as page_of};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::routes::{get, post, resource, transact};
use crate::http::shops::order_intake::{Order, OrderIntake, refusal};
use crate::store::audit;
use crate::store::deliveries::{self, Delivery, DeliveryFilter};
use crate::webhooks::order::parse_order_with_shop;

/// Registers the routes.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/deliveries", "GET, POST").route(get().to(list)).route(post().to(create)))
        .service(resource("/deliveries/{id}", "GET").route(get().to(read)))
        .service(resource("/deliveries/{id}/events", "GET").route(get().to(trail)));
}

async fn create(
    caller: Caller,
    request: HttpRequest,
    orders: web::Data<OrderIntake>,
    lifecycle: web::Data<Lifecycle>,
    limits: web::Data<RateLimits>,
    raw: RawBody,
) -> Result<HttpResponse, Problem> {
    body::check_type(request.headers())?;
    let (named, order) = parse_order_with_shop(&raw.0).map_err(refusal)?;
    let shop = shop_of(&caller, named)?;
    if lifecycle.is_draining() {
        return Err(Problem::draining());
    }
    limits.admit_order(&shop)?;
    let body_hash = body::hash(&raw.0);
    let keyed = Keyed::of(&request, &caller, &raw.0)?;
    let order = Order { shop, order, body_hash, actor: caller.actor() };
    Ok(orders.take(order, keyed).await?.into_response())
}

/// The shop of a `shop` key, or the shop that an admin names.
fn shop_of(caller: &Caller, named: Option<ShopName>) -> Result<ShopName, Problem> {
    match (caller.own_shop(), named) {
        (None, Some(named)) => Ok(named),
        (None, None) => Err(Problem::field("shop", "required", "is required")),
        (Some(own), Some(named)) if named.as_str() != own => Err(Problem::not_found()),
        (Some(own), _) => ShopName::parse(own).ok_or_else(|| Problem::internal("a key's shop has no shop's name")),
    }
}

async fn list(caller: Caller, request: HttpRequest, database: web::Data<Database>) -> Result<HttpResponse, Problem> {
    let mut query = Query::with_set(&request, "status");
    let page = Page::<(DateTime<Utc>, DeliveryId)>::read(&mut query);
    let filter = DeliveryFilter {
        statuses: query.states("status"),
        driver_id: query.id("driverId"),
        shop: caller.listed_shop(&mut query)?,
        seller_order_id: query.external_id("sellerOrderId"),
        external_id: query.external_id("externalId"),
        from: query.moment("from"),
        to: query.moment("to"),
        updated_since: query.moment("updatedSince"),
        before: page.after,
        limit: page.fetch(),
    };
    query.finish()?;
    let mut found =
        transact(&database, move |conn| Box::pin(async move { deliveries::list(conn, &filter).await })).await?;
    let next = page.cut(&mut found, |delivery| (delivery.created_at, delivery.id));
    Ok(Answer::ok(page_of(found.iter().map(views::delivery).collect(), next)).into_response())
}

/// The delivery, or 404 when the caller may not see it.
pub(in crate::http) fn visible(caller: &Caller, found: Option<Delivery>) -> Result<Delivery, DispatchError> {
    found.filter(|delivery| caller.sees(&delivery.shop)).ok_or(DispatchError::NotFound)
}

async fn read(caller: Caller, path: web::Path<String>, database: web::Data<Database>) -> Result<HttpResponse, Problem> {
    let id: DeliveryId = path_id(&path)?;
    let delivery = database
        .transact(move |conn| Box::pin(async move { visible(&caller, deliveries::get(conn, id).await?) }))
        .await?;
    Ok(Answer::ok(views::delivery(&delivery)).into_response())
}

async fn trail(
    caller: Caller,
    path: web::Path<String>,
    request: HttpRequest,
    database: web::Data<Database>,
) -> Result<HttpResponse, Problem> {
    let id: DeliveryId = path_id(&path)?;
    let mut query = Query::of(&request);
    let page = Page::<i32>::read(&mut query);
    query.finish()?;
    let (after, fetch) = (page.after, page.fetch());
    let mut rows = database
        .transact(move |conn| {
            Box::pin(async move {
                visible(&caller, deliveries::get(&mut *conn, id).await?)?;
                Ok::<_, DispatchError>(audit::list(conn, id, after, fetch).await?)
            })
        })
        .await?;
    let next = page.cut(&mut rows, |row| row.sequence);
    Ok(Answer::ok(page_of(rows.iter().map(views::event).collect(), next)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::auth::Scope;
    use crate::http::auth::tests::caller;

    #[test]
    fn a_shops_key_posts_for_its_own_shop() {
        let shop = |name: &str| ShopName::parse(name);
        let own = caller(Scope::Shop("a".to_owned()), 7);
        assert_eq!(shop_of(&own, None).unwrap().as_str(), "a");
        assert_eq!(shop_of(&own, shop("b")).unwrap_err().code(), "not_found");
        let admin = caller(Scope::Admin, 7);
        assert_eq!(shop_of(&admin, shop("b")).unwrap().as_str(), "b");
        assert_eq!(shop_of(&admin, None).unwrap_err().code(), "invalid_fields");
    }
}
