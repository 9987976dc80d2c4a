//! Drivers for operators: create, list, read, change, deactivate, set duty, and search near a place.

use crate::assignment::CandidateSource;
use crate::effects::UseCases;
use crate::presence::Presence;
use crate::store::Database;
use std::collections::HashSet;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::dispatch::roster::{self, DriverPatch};
use crate::dispatch::{DispatchError, Unit, duty};
use crate::domain::driver::DriverStatus;
use crate::domain::ids::{DeliveryId, DriverId};
use crate::domain::position::{Position, check_latitude, check_longitude};
use crate::http::body::{JsonBody, path_id};
use crate::http::fields::Fields;
use crate::http::idempotency::{self, Answer, Keyed};
use crate::http::middleware::auth::Staff;
use crate::http::operators::last_known_location::{LastKnownLocation, LastKnownLocations};
use crate::http::operators::views;
use crate::http::pagination::{Page, list as page_of, read_limit};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::routes::{get, post, resource, transact};
use crate::store::drivers::{self, Driver, DriverFilter, NewDriver, ProfileChange};
use crate::store::{deliveries, positions};

/// The largest radius of a search for drivers, in kilometres.
const MAX_RADIUS_KM: f64 = 500.0;

/// Registers the routes.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/drivers", "GET, POST").route(get().to(list)).route(post().to(create)))
        .service(resource("/drivers/nearby", "GET").route(get().to(nearby)))
        .service(
            resource("/drivers/{id}", "GET, PATCH, DELETE")
                .route(get().to(read))
                .route(web::patch().to(change))
                .route(web::delete().to(deactivate)),
        )
        .service(resource("/drivers/{id}/status", "POST").route(post().to(set_status)));
}

async fn create(
    staff: Staff,
    request: HttpRequest,
    use_cases: web::Data<UseCases>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let new = parse_new(&body.object)?;
    let keyed = Keyed::of(&request, &staff.0, &body.raw)?;
    let actor = staff.0.actor();
    let answer = idempotency::perform(&use_cases, keyed, move |unit| {
        Box::pin(async move {
            let driver = drivers::insert(unit.conn, &new, &actor).await?;
            let shown = views::driver(&driver, &LastKnownLocation::default(), &[], unit.now);
            Ok(Answer::created(format!("/api/v1/drivers/{}", driver.id), shown))
        })
    });
    Ok(answer.await?.into_response())
}

fn parse_new(object: &Map<String, Value>) -> Result<NewDriver, Problem> {
    let mut fields = Fields::of(object);
    let name = fields.required("name", Fields::name);
    let phone = fields.required("phone", Fields::name);
    let capacity = fields.capacity("capacity").unwrap_or(1);
    let external_id = fields.external_id("externalId").map(|id| id.as_str().to_owned());
    let metadata = fields.metadata("metadata");
    fields.finish()?;
    let (name, phone) = (name.unwrap_or_default(), phone.unwrap_or_default());
    Ok(NewDriver { name, phone, capacity, external_id, metadata })
}

async fn list(_staff: Staff, request: HttpRequest, views: web::Data<DriverViews>) -> Result<HttpResponse, Problem> {
    let mut query = Query::of(&request);
    let page = Page::<DriverId>::read(&mut query);
    let online = query.boolean("online");
    let ttl = views.ttl;
    // Heartbeats reach PostgreSQL later than Redis, so its filter is wide. Drivers who do not match are dropped below.
    let online_within_s = if online == Some(true) { views.seen_within_s } else { ttl.as_secs_f64() };
    let filter = DriverFilter {
        status: query.state("status"),
        active: query.boolean("active"),
        external_id: query.external_id("externalId"),
        updated_since: query.moment("updatedSince"),
        online,
        online_within_s,
        before: page.after,
        limit: page.fetch(),
    };
    query.finish()?;
    let mut found =
        transact(&views.database, move |conn| Box::pin(async move { drivers::list(conn, &filter).await })).await?;
    let next = page.cut(&mut found, |driver| driver.id);
    let shown = views.show_all(found).await?;
    let matches = |value: &Value| online.is_none_or(|wanted| value["online"] == wanted);
    let items = shown.into_iter().filter(matches).collect();
    Ok(Answer::ok(page_of(items, next)).into_response())
}

/// Reads driver objects from both stores, with the heartbeat settings that decide who is online.
pub struct DriverViews {
    /// PostgreSQL.
    pub database: Database,
    /// Redis.
    pub presence: Presence,
    /// How long a heartbeat keeps a driver online.
    pub ttl: Duration,
    /// How long a stored heartbeat keeps a driver online, in seconds. It is longer than `ttl`, because heartbeats reach
    /// PostgreSQL later.
    pub seen_within_s: f64,
}

impl DriverViews {
    /// The drivers with their last known locations and their active deliveries.
    async fn show_all(&self, found: Vec<Driver>) -> Result<Vec<Value>, Problem> {
        let ids: Vec<DriverId> = found.iter().map(|driver| driver.id).collect();
        let mut places = LastKnownLocations::ask(&self.presence, &ids).await;
        let (stored, active, now) = transact(&self.database, move |conn| {
            Box::pin(async move {
                let stored = positions::get(&mut *conn, &ids).await?;
                let active = drivers::active_deliveries(&mut *conn, &ids).await?;
                Ok((stored, active, deliveries::now(conn).await?))
            })
        })
        .await?;
        places.note_stored(&stored, self.ttl);
        let held = |id: DriverId| of_driver(&active, id);
        Ok(found.iter().map(|driver| views::driver(driver, &places.of(driver.id), &held(driver.id), now)).collect())
    }
}

fn of_driver(active: &[(DriverId, DeliveryId)], driver: DriverId) -> Vec<DeliveryId> {
    active.iter().filter(|(holder, _)| *holder == driver).map(|(_, delivery)| *delivery).collect()
}

async fn read(_staff: Staff, path: web::Path<String>, views: web::Data<DriverViews>) -> Result<HttpResponse, Problem> {
    let id: DriverId = path_id(&path)?;
    let found = transact(&views.database, move |conn| Box::pin(async move { drivers::get(conn, id).await })).await?;
    let driver = found.ok_or_else(Problem::not_found)?;
    let shown = views.show_all(vec![driver]).await?.pop().unwrap_or_default();
    Ok(Answer::ok(shown).into_response())
}

/// The driver as the unit's transaction sees them. `locations` was read from Redis before the transaction.
async fn show_within(
    unit: &mut Unit<'_>,
    driver: &Driver,
    mut places: LastKnownLocations,
    ttl: Duration,
) -> Result<Value, DispatchError> {
    let ids = [driver.id];
    places.note_stored(&positions::get(unit.conn, &ids).await?, ttl);
    let active = drivers::active_deliveries(unit.conn, &ids).await?;
    let held = of_driver(&active, driver.id);
    Ok(views::driver(driver, &places.of(driver.id), &held, unit.now))
}

async fn change(
    staff: Staff,
    path: web::Path<String>,
    use_cases: web::Data<UseCases>,
    views: web::Data<DriverViews>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let id: DriverId = path_id(&path)?;
    let patch = parse_patch(&body.object)?;
    let actor = staff.0.actor();
    let (places, ttl) = (LastKnownLocations::ask(&views.presence, &[id]).await, views.ttl);
    let shown = use_cases.transact_and_apply(move |unit| {
        Box::pin(async move {
            let driver = roster::patch(unit, id, &patch, &actor).await?;
            show_within(unit, &driver, places, ttl).await
        })
    });
    Ok(Answer::ok(shown.await?).into_response())
}

/// A field that is `null` or absent stays unchanged.
fn parse_patch(object: &Map<String, Value>) -> Result<DriverPatch, Problem> {
    let mut fields = Fields::of(object);
    let patch = DriverPatch {
        profile: ProfileChange {
            name: fields.name("name"),
            phone: fields.name("phone"),
            external_id: fields.external_id("externalId").map(|id| Some(id.as_str().to_owned())),
            metadata: fields.metadata("metadata").map(Some),
        },
        capacity: fields.capacity("capacity"),
        active: fields.boolean("active"),
    };
    fields.finish()?;
    Ok(patch)
}

async fn deactivate(
    staff: Staff,
    path: web::Path<String>,
    use_cases: web::Data<UseCases>,
) -> Result<HttpResponse, Problem> {
    let id: DriverId = path_id(&path)?;
    let actor = staff.0.actor();
    let patch = DriverPatch { active: Some(false), ..DriverPatch::default() };
    use_cases
        .transact_and_apply(move |unit| Box::pin(async move { roster::patch(unit, id, &patch, &actor).await }))
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn set_status(
    staff: Staff,
    path: web::Path<String>,
    request: HttpRequest,
    use_cases: web::Data<UseCases>,
    views: web::Data<DriverViews>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let id: DriverId = path_id(&path)?;
    let mut fields = Fields::of(&body.object);
    let requested = |fields: &mut Fields<'_>, name: &str| {
        let requested_duty = |text: &str| text.parse::<DriverStatus>().ok().and_then(duty::requested_duty);
        fields.choice(name, "AVAILABLE, OFFLINE", requested_duty)
    };
    let on_duty = fields.required("status", requested).unwrap_or_default();
    let reason = fields.required("reason", Fields::reason).unwrap_or_default();
    fields.finish()?;
    let keyed = Keyed::of(&request, &staff.0, &body.raw)?;
    let actor = staff.0.actor();
    let (places, ttl) = (LastKnownLocations::ask(&views.presence, &[id]).await, views.ttl);
    let answer = idempotency::perform(&use_cases, keyed, move |unit| {
        Box::pin(async move {
            duty::set_duty(unit, id, on_duty, &reason, &actor).await?;
            let driver = drivers::get(unit.conn, id).await?.ok_or(DispatchError::NotFound)?;
            Ok(Answer::ok(show_within(unit, &driver, places, ttl).await?))
        })
    });
    Ok(answer.await?.into_response())
}

async fn nearby(
    _staff: Staff,
    request: HttpRequest,
    candidates: web::Data<CandidateSource>,
) -> Result<HttpResponse, Problem> {
    let search = parse_nearby(Query::of(&request), candidates.max_radius_m())?;
    let nobody = HashSet::new();
    let found = candidates.nearest(&search.pickup, search.limit, &nobody, search.radius_m, true).await?;
    let now: DateTime<Utc> = Utc::now();
    let items = found.iter().map(|candidate| {
        json!({
            "driverId": candidate.driver_id, "distanceM": candidate.distance_m.round(),
            "position": views::position(&candidate.fix, now),
        })
    });
    Ok(Answer::ok(page_of(items.collect(), None)).into_response())
}

#[derive(Debug)]
struct Nearby {
    pickup: Position,
    radius_m: f64,
    limit: usize,
}

fn parse_nearby(mut query: Query, default_radius_m: f64) -> Result<Nearby, Problem> {
    query.require("lat");
    query.require("lon");
    let (lat, lon) = (query.number("lat"), query.number("lon"));
    if let Some(Err(error)) = lat.map(check_latitude) {
        query.fault("lat", "range", error.to_string());
    }
    if let Some(Err(error)) = lon.map(check_longitude) {
        query.fault("lon", "range", error.to_string());
    }
    let radius_km = query.parse("radiusKm", "range", "must be a number above 0, at most 500", |text| {
        text.parse().ok().filter(|km: &f64| *km > 0.0 && *km <= MAX_RADIUS_KM)
    });
    let limit = read_limit(&mut query);
    query.finish()?;
    let pickup = Position::new(lat.unwrap_or_default(), lon.unwrap_or_default())
        .map_err(|error| Problem::field("lat", "range", error.to_string()))?;
    Ok(Nearby { pickup, radius_m: radius_km.map_or(default_radius_m, |km| km * 1000.0), limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_patch_leaves_what_is_null() {
        let patch = parse_patch(&object(json!({"name": "Asha", "phone": null, "active": true}))).unwrap();
        assert_eq!(patch.profile.name.as_deref(), Some("Asha"));
        assert!(patch.profile.phone.is_none() && patch.profile.metadata.is_none());
        assert_eq!((patch.active, patch.capacity), (Some(true), None));
        assert!(parse_patch(&object(json!({"capacity": "2"}))).is_err());
    }

    #[test]
    fn a_new_driver_has_a_name_and_a_telephone() {
        let new = parse_new(&object(json!({"name": "Asha", "phone": "+91 1", "externalId": 7}))).unwrap();
        assert_eq!((new.capacity, new.external_id.as_deref()), (1, Some("7")));
        assert_eq!(parse_new(&object(json!({"name": ""}))).unwrap_err().code(), "invalid_fields");
    }

    #[test]
    fn a_search_needs_a_place() {
        let search = parse_nearby(Query::parse_text("lat=12.9&lon=77.6&radiusKm=2.5&limit=3"), 10_000.0).unwrap();
        assert_eq!((search.radius_m, search.limit), (2500.0, 3));
        assert_eq!(parse_nearby(Query::parse_text("lat=1&lon=2"), 10_000.0).unwrap().radius_m, 10_000.0);
        for bad in ["lat=12.9", "lat=91&lon=1", "lat=1&lon=2&radiusKm=0", "lat=1&lon=2&limit=0", "lat=NaN&lon=2"] {
            assert!(parse_nearby(Query::parse_text(bad), 1.0).is_err(), "{bad}");
        }
    }
}
