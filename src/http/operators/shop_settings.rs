//! Shops for operators: create, read, change; add and remove their secrets; enable an endpoint that was gone.
//!
//! A secret is derived from its row (see `webhooks::shop_keys`). An answer saved for an `Idempotency-Key` holds no
//! secret: the secrets are added when the answer is sent.

use crate::config::Config;
use crate::effects::UseCases;
use crate::shops::ShopDirectory;
use crate::store::Database;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::config;
use crate::dispatch::{DispatchError, Unit};
use crate::domain::ids::ShopName;
use crate::http::body::JsonBody;
use crate::http::fields::Fields;
use crate::http::idempotency::{self, Answer, Keyed};
use crate::http::middleware::auth::{Caller, Staff};
use crate::http::operators::views;
use crate::http::pagination::{Page, list as page_of};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::routes::{get, post, resource, transact};
use crate::store::shops;
use crate::webhooks::network::check_url;
use crate::webhooks::shop_keys::{Direction, ShopKeys};

/// How long older secrets stay valid beside a new one by default: a day, in seconds.
const OVERLAP_S: i64 = 86_400;
const MOST_OVERLAP_S: i64 = 30 * 86_400;
/// In a saved answer, the name of the field with the fingerprint of the key that the secrets are derived from.
const BY: &str = "by";

/// Registers the routes.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/shops", "GET, POST").route(get().to(list)).route(post().to(create)))
        .service(resource("/shops/{shop}", "GET, PATCH").route(get().to(read)).route(web::patch().to(change)))
        .service(resource("/shops/{shop}/secrets", "POST").route(post().to(add_secret)))
        .service(resource("/shops/{shop}/secrets/{secret_id}", "DELETE").route(web::delete().to(drop_secret)))
        .service(resource("/shops/{shop}/endpoint/enable", "POST").route(post().to(enable_endpoint)));
}

fn shop_name(text: &str) -> Result<ShopName, Problem> {
    ShopName::parse(text).ok_or_else(Problem::not_found)
}

/// Refuses changes to the shop `vendure`: the configuration defines it.
fn changeable(shop: ShopName) -> Result<ShopName, Problem> {
    if shop == ShopName::vendure() {
        let detail = "the secrets, the address and the limit of this shop stand in the configuration of the service";
        return Err(Problem::conflict("configured_shop", detail));
    }
    Ok(shop)
}

/// The shop as callers see it.
async fn show(unit: &mut Unit<'_>, shop: &ShopName) -> Result<Value, DispatchError> {
    let row = shops::get(unit.conn, shop).await?.ok_or(DispatchError::NotFound)?;
    Ok(views::shop(&row, &shops::secrets(unit.conn, Some(shop.as_str())).await?))
}

async fn list(caller: Caller, request: HttpRequest, database: web::Data<Database>) -> Result<HttpResponse, Problem> {
    let mut query = Query::of(&request);
    let page = Page::<(DateTime<Utc>, String)>::read(&mut query);
    query.finish()?;
    let (only, after, fetch) = (caller.own_shop().map(str::to_owned), page.after.clone(), page.fetch());
    let (mut rows, secrets) = transact(&database, move |conn| {
        Box::pin(async move {
            let rows = shops::list(&mut *conn, only.as_deref(), after, fetch).await?;
            Ok((rows, shops::secrets(conn, only.as_deref()).await?))
        })
    })
    .await?;
    let next = page.cut(&mut rows, |row| (row.created_at, row.name.clone()));
    Ok(Answer::ok(page_of(rows.iter().map(|row| views::shop(row, &secrets)).collect(), next)).into_response())
}

async fn read(
    caller: Caller,
    path: web::Path<String>,
    use_cases: web::Data<UseCases>,
) -> Result<HttpResponse, Problem> {
    let shop = shop_name(&path)?;
    if !caller.sees(shop.as_str()) {
        return Err(Problem::not_found());
    }
    let shown = use_cases.transact_and_apply(move |unit| Box::pin(async move { show(unit, &shop).await })).await?;
    Ok(Answer::ok(shown).into_response())
}

/// The requested settings of a shop. `None` leaves a setting unchanged; `Some(None)` removes it.
struct Wanted {
    events_url: Option<Option<String>>,
    orders_per_second: Option<Option<i32>>,
}

impl Wanted {
    fn read(fields: &mut Fields<'_>, allowed: &[IpNet]) -> Self {
        let (no_url, no_limit) = (fields.is_null("eventsUrl"), fields.is_null("ordersPerSecond"));
        let events_url = fields.url("eventsUrl", |text| {
            let url = config::parse_events_url(text)?;
            check_url(&url, allowed).map_err(|refusal| format!("cannot be posted to: {refusal}"))?;
            Ok(url.to_string())
        });
        let limit = fields.rate("ordersPerSecond");
        Self {
            events_url: if no_url { Some(None) } else { events_url.map(Some) },
            orders_per_second: if no_limit { Some(None) } else { limit.map(Some) },
        }
    }

    /// Whether it names what the configuration decides of the shop that it makes.
    fn is_of_configuration(&self) -> bool {
        self.events_url.is_some() || self.orders_per_second.is_some()
    }
}

async fn create(
    staff: Staff,
    request: HttpRequest,
    use_cases: web::Data<UseCases>,
    directory: web::Data<ShopDirectory>,
    config: web::Data<Config>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let mut fields = Fields::of(&body.object);
    let name = fields.required("name", |fields, name| {
        fields.choice(name, "names of lower-case letters, digits and hyphens, at most 63", ShopName::parse)
    });
    let wanted = Wanted::read(&mut fields, &config.events.allowed_networks);
    fields.finish()?;
    let name = name.ok_or_else(|| Problem::internal("a shop without a name"))?;
    let fingerprint = current_key(directory.keys())?;
    let keyed = Keyed::of(&request, &staff.0, &body.raw)?;
    let answer = idempotency::perform(&use_cases, keyed, move |unit| {
        Box::pin(async move {
            if !shops::create(unit.conn, &name, wanted.orders_per_second.flatten()).await? {
                return Err(DispatchError::Exists("a shop of this name"));
            }
            if let Some(Some(url)) = &wanted.events_url {
                shops::set_url(unit.conn, &name, Some(url)).await?;
            }
            for direction in [Direction::Orders, Direction::Events] {
                let secret = (Uuid::now_v7(), fingerprint.as_str());
                shops::add_secret(unit.conn, &name, direction.as_str(), secret, 0.0).await?;
            }
            let mut shown = show(unit, &name).await?;
            shown[BY] = Value::String(fingerprint);
            Ok(Answer::created(format!("/api/v1/shops/{name}"), shown))
        })
    });
    let mut answer = answer.await?;
    reveal(directory.keys(), &mut answer.body);
    known_at_once(&directory, use_cases.database()).await;
    Ok(answer.into_response())
}

/// The fingerprint of the key that new secrets are derived from.
fn current_key(keys: &ShopKeys) -> Result<String, Problem> {
    keys.current().map(str::to_owned).ok_or_else(|| {
        Problem::conflict("no_secrets_key", "shops need SHOP_SECRETS_KEY in the configuration of the service")
    })
}

/// Adds each secret beside its id. The answer to the client that created the secret is the only place where it appears.
fn reveal(keys: &ShopKeys, shop: &mut Value) {
    let by = shop.as_object_mut().and_then(|fields| fields.remove(BY));
    let by = by.as_ref().and_then(Value::as_str).unwrap_or_default();
    let name = shop["name"].as_str().unwrap_or_default().to_owned();
    for secret in shop["secrets"].as_array_mut().into_iter().flatten() {
        let direction = secret["direction"].as_str().and_then(Direction::parse);
        let id = secret["secretId"].as_str().and_then(|id| id.parse().ok());
        if let Some(text) = direction.zip(id).and_then(|(direction, id)| keys.derive(by, &name, direction, id)) {
            secret["secret"] = Value::String(text.expose());
        }
    }
}

/// Refreshes the directory, so that this node applies the change before it answers. Other nodes apply it within a
/// second.
async fn known_at_once(directory: &ShopDirectory, database: &Database) {
    if let Err(error) = directory.refresh(database).await {
        tracing::debug!(error = %error, "the shops were not read");
    }
}

async fn change(
    _staff: Staff,
    path: web::Path<String>,
    use_cases: web::Data<UseCases>,
    directory: web::Data<ShopDirectory>,
    config: web::Data<Config>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let shop = shop_name(&path)?;
    let mut fields = Fields::of(&body.object);
    let wanted = Wanted::read(&mut fields, &config.events.allowed_networks);
    fields.finish()?;
    let shop = if wanted.is_of_configuration() { changeable(shop)? } else { shop };
    let changed = use_cases.transact_and_apply(move |unit| {
        Box::pin(async move {
            if !shops::lock(unit.conn, &shop).await? {
                return Err(DispatchError::NotFound);
            }
            if let Some(url) = &wanted.events_url {
                shops::set_url(unit.conn, &shop, url.as_deref()).await?;
            }
            if let Some(limit) = wanted.orders_per_second {
                shops::set_limit(unit.conn, &shop, limit).await?;
            }
            show(unit, &shop).await
        })
    });
    let shown = changed.await?;
    known_at_once(&directory, use_cases.database()).await;
    Ok(Answer::ok(shown).into_response())
}

/// Creates a secret. Older secrets stay valid for the overlap, so that the shop can change over.
async fn add_secret(
    staff: Staff,
    path: web::Path<String>,
    request: HttpRequest,
    use_cases: web::Data<UseCases>,
    directory: web::Data<ShopDirectory>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let shop = changeable(shop_name(&path)?)?;
    let mut fields = Fields::of(&body.object);
    let direction =
        fields.required("direction", |fields, name| fields.choice(name, "orders, events", Direction::parse));
    let overlap_s = fields.seconds("overlapSeconds", MOST_OVERLAP_S).unwrap_or(OVERLAP_S);
    fields.finish()?;
    let direction = direction.ok_or_else(|| Problem::internal("a secret without a direction"))?;
    let fingerprint = current_key(directory.keys())?;
    let keyed = Keyed::of(&request, &staff.0, &body.raw)?;
    let answer = idempotency::perform(&use_cases, keyed, move |unit| {
        Box::pin(async move {
            if !shops::lock(unit.conn, &shop).await? {
                return Err(DispatchError::NotFound);
            }
            let id = Uuid::now_v7();
            let secret = (id, fingerprint.as_str());
            shops::add_secret(unit.conn, &shop, direction.as_str(), secret, overlap_s as f64).await?;
            let location = format!("/api/v1/shops/{shop}/secrets/{id}");
            let secret = json!({"secretId": id, "direction": direction.as_str()});
            Ok(Answer::created(location, json!({"name": shop, "secrets": [secret], BY: fingerprint})))
        })
    });
    let mut answer = answer.await?;
    reveal(directory.keys(), &mut answer.body);
    answer.body = answer.body["secrets"][0].take();
    known_at_once(&directory, use_cases.database()).await;
    Ok(answer.into_response())
}

async fn drop_secret(
    _staff: Staff,
    path: web::Path<(String, String)>,
    use_cases: web::Data<UseCases>,
    directory: web::Data<ShopDirectory>,
) -> Result<HttpResponse, Problem> {
    let (shop, id) = path.into_inner();
    let shop = changeable(shop_name(&shop)?)?;
    let id: Uuid = id.parse().map_err(|_| Problem::not_found())?;
    let dropped = use_cases.transact_and_apply(move |unit| {
        Box::pin(async move {
            match shops::drop_secret(unit.conn, &shop, id).await? {
                true => Ok(()),
                false => Err(DispatchError::NotFound),
            }
        })
    });
    dropped.await?;
    known_at_once(&directory, use_cases.database()).await;
    Ok(HttpResponse::NoContent().finish())
}

/// Enables the endpoint, so that the shop's waiting events are posted. A repeat changes nothing.
async fn enable_endpoint(
    staff: Staff,
    path: web::Path<String>,
    request: HttpRequest,
    use_cases: web::Data<UseCases>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let shop = shop_name(&path)?;
    let keyed = Keyed::of(&request, &staff.0, &body.raw)?;
    let answer = idempotency::perform(&use_cases, keyed, move |unit| {
        Box::pin(async move {
            if !shops::enable_endpoint(unit.conn, &shop).await? {
                return Err(DispatchError::NotFound);
            }
            unit.effects.outbox = true;
            let mut shown = show(unit, &shop).await?;
            // What was answered before the whole shop was.
            shown["shop"] = json!(shop);
            shown["endpoint"] = json!({"enabled": true});
            Ok(Answer::ok(shown))
        })
    });
    Ok(answer.await?.into_response())
}
