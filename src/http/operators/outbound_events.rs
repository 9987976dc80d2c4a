//! Outbound events to shops: list, read, replay.

use crate::effects::UseCases;
use crate::store::Database;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::dispatch::DispatchError;
use crate::domain::event::{OutboundState, OutboundType, Selection};
use crate::domain::ids::{EventId, ShopName};
use crate::http::body::{JsonBody, path_id};
use crate::http::fields::Fields;
use crate::http::idempotency::{self, Answer, Keyed};
use crate::http::middleware::auth::Caller;
use crate::http::operators::views;
use crate::http::pagination::{Page, decode, encode, list as page_of};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::routes::{get, post, resource, transact};
use crate::store::outbox;

/// The most events that one request replays.
const MOST_REPLAYED: i64 = 5_000;

/// Registers the routes.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/outbound-events", "GET").route(get().to(list)))
        .service(resource("/outbound-events/replay", "POST").route(post().to(replay_some)))
        .service(resource("/outbound-events/{id}", "GET").route(get().to(read)))
        .service(resource("/outbound-events/{id}/replay", "POST").route(post().to(replay)));
}

async fn list(caller: Caller, request: HttpRequest, database: web::Data<Database>) -> Result<HttpResponse, Problem> {
    let mut query = Query::of(&request);
    let page = Page::<EventId>::read(&mut query);
    let which = Selection {
        state: query.parse("state", "unknown", "must be pending, delivered or dead", |text| text.parse().ok()),
        shop: caller.listed_shop(&mut query)?,
        delivery_id: query.id("deliveryId"),
        kind: query.parse("type", "unknown", "must be a type of event", OutboundType::parse),
        from: query.moment("from"),
        to: query.moment("to"),
    };
    let (before, fetch) = (page.after, page.fetch());
    query.finish()?;
    let (mut rows, attempts) = transact(&database, move |conn| {
        Box::pin(async move {
            let rows = outbox::list(&mut *conn, &which, before, fetch).await?;
            let ids: Vec<uuid::Uuid> = rows.iter().map(|row| row.event_id).collect();
            Ok((rows, outbox::attempts(conn, &ids).await?))
        })
    })
    .await?;
    let next = page.cut(&mut rows, |row| EventId(row.event_id));
    let items = rows.iter().map(|row| views::outbound_event(row, &attempts)).collect();
    Ok(Answer::ok(page_of(items, next)).into_response())
}

/// An event, or 404 when the caller may not see it.
async fn show(conn: &mut PgConnection, caller: &Caller, id: EventId) -> Result<Value, DispatchError> {
    let found = outbox::get(&mut *conn, id).await?.filter(|row| caller.sees(&row.shop));
    let row = found.ok_or(DispatchError::NotFound)?;
    let attempts = outbox::attempts(conn, &[id.0]).await?;
    Ok(views::outbound_event(&row, &attempts))
}

async fn read(caller: Caller, path: web::Path<String>, database: web::Data<Database>) -> Result<HttpResponse, Problem> {
    let id: EventId = path_id(&path)?;
    let shown = database.transact(move |conn| Box::pin(async move { show(conn, &caller, id).await })).await?;
    Ok(Answer::ok(shown).into_response())
}

async fn replay(
    caller: Caller,
    path: web::Path<String>,
    request: HttpRequest,
    use_cases: web::Data<UseCases>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let id: EventId = path_id(&path)?;
    let keyed = Keyed::of(&request, &caller, &body.raw)?;
    let answer = idempotency::perform(&use_cases, keyed, move |unit| {
        Box::pin(async move {
            show(unit.conn, &caller, id).await?;
            outbox::replay(unit.conn, id).await?;
            unit.effects.outbox = true;
            Ok(Answer::accepted(show(unit.conn, &caller, id).await?))
        })
    });
    Ok(answer.await?.into_response())
}

/// Parses which events to replay. An empty body selects all dead events; a wider selection must name a shop or a
/// delivery.
fn replayed(caller: &Caller, body: &JsonBody) -> Result<(Selection, Option<EventId>), Problem> {
    let mut fields = Fields::of(&body.object);
    let state = fields.choice("state", "dead, delivered, pending", |text| text.parse::<OutboundState>().ok());
    let shop = fields.parse("shop", "a shop's name", ShopName::parse);
    let which = Selection {
        state,
        shop: shop.as_ref().map(|shop| shop.as_str().to_owned()).or_else(|| caller.own_shop().map(str::to_owned)),
        delivery_id: fields.id("deliveryId"),
        kind: fields.choice("type", "the types of events", OutboundType::parse),
        from: fields.moment("from"),
        to: fields.moment("to"),
    };
    let after = fields.parse("cursor", "a nextCursor of such a replay", decode);
    if !which.may_be_replayed() {
        fields.fault("shop", "required", "is required, or a deliveryId, for events that are not dead");
    }
    fields.finish()?;
    if which.shop.as_deref().is_some_and(|shop| !caller.sees(shop)) {
        return Err(Problem::not_found());
    }
    Ok((which, after))
}

/// Replays many events at once, oldest first. A cursor in the answer means that there may be more.
async fn replay_some(
    caller: Caller,
    request: HttpRequest,
    use_cases: web::Data<UseCases>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let (which, after) = replayed(&caller, &body)?;
    let keyed = Keyed::of(&request, &caller, &body.raw)?;
    let answer = idempotency::perform(&use_cases, keyed, move |unit| {
        Box::pin(async move {
            let (count, newest) = outbox::replay_some(unit.conn, &which, after, MOST_REPLAYED).await?;
            unit.effects.outbox = true;
            let mut answer = json!({"replayed": count});
            if let Some(newest) = newest.filter(|_| count as i64 == MOST_REPLAYED) {
                answer["nextCursor"] = Value::String(encode(&newest));
            }
            Ok(Answer::accepted(answer))
        })
    });
    Ok(answer.await?.into_response())
}
