//! Events on their way to shops: list, read, post again.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::Value;
use sqlx::PgConnection;

use super::auth::Caller;
use super::body::{JsonBody, path_id};
use super::fields::Query;
use super::idempotency::{self, Answer, Keyed};
use super::pagination::{Page, list as page_of};
use super::problem::Problem;
use super::routes::{get, post, resource, transact};
use super::shapes;
use crate::actors::Node;
use crate::dispatch::DispatchError;
use crate::domain::event::OutboundState;
use crate::domain::ids::EventId;
use crate::store::outbox::{self, EventFilter};

/// Registers the routes.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/outbound-events", "GET").route(get().to(list)))
        .service(resource("/outbound-events/{id}", "GET").route(get().to(read)))
        .service(resource("/outbound-events/{id}/replay", "POST").route(post().to(replay)));
}

async fn list(caller: Caller, request: HttpRequest, node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    let mut query = Query::of(&request);
    let page = Page::<EventId>::read(&mut query);
    let state = query.parse("state", "unknown", "must be pending, delivered or dead", |text| {
        text.parse::<OutboundState>().is_ok().then(|| text.to_owned())
    });
    let filter = EventFilter {
        state,
        shop: caller.listed_shop(&mut query)?,
        delivery_id: query.id("deliveryId"),
        before: page.after,
        limit: page.fetch(),
    };
    query.finish()?;
    let (mut rows, attempts) = transact(&node, move |conn| {
        Box::pin(async move {
            let rows = outbox::list(&mut *conn, &filter).await?;
            let ids: Vec<uuid::Uuid> = rows.iter().map(|row| row.event_id).collect();
            Ok((rows, outbox::attempts(conn, &ids).await?))
        })
    })
    .await?;
    let next = page.cut(&mut rows, |row| EventId(row.event_id));
    let items = rows.iter().map(|row| shapes::outbound_event(row, &attempts)).collect();
    Ok(Answer::ok(page_of(items, next)).into_response())
}

/// An event as the caller sees it; what the caller does not see is not there.
async fn show(conn: &mut PgConnection, caller: &Caller, id: EventId) -> Result<Value, DispatchError> {
    let found = outbox::get(&mut *conn, id).await?.filter(|row| caller.sees(&row.shop));
    let row = found.ok_or(DispatchError::NotFound)?;
    let attempts = outbox::attempts(conn, &[id.0]).await?;
    Ok(shapes::outbound_event(&row, &attempts))
}

async fn read(caller: Caller, path: web::Path<String>, node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    let id: EventId = path_id(&path)?;
    let shown = node.database().transact(move |conn| Box::pin(async move { show(conn, &caller, id).await })).await?;
    Ok(Answer::ok(shown).into_response())
}

async fn replay(
    caller: Caller,
    path: web::Path<String>,
    request: HttpRequest,
    node: web::Data<Node>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let id: EventId = path_id(&path)?;
    let keyed = Keyed::of(&request, &caller, body.hash)?;
    let answer = idempotency::perform(&node, keyed, move |unit| {
        Box::pin(async move {
            show(unit.conn, &caller, id).await?;
            outbox::replay(unit.conn, id).await?;
            unit.effects.outbox = true;
            Ok(Answer::accepted(show(unit.conn, &caller, id).await?))
        })
    });
    Ok(answer.await?.into_response())
}
