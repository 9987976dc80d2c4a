//! Where a delivery went, as GeoJSON (RFC 7946): a line for each assignment.

use crate::store::Database;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use crate::dispatch::DispatchError;
use crate::domain::ids::DeliveryId;
use crate::http::body::path_id;
use crate::http::middleware::auth::Caller;
use crate::http::operators::deliveries::visible;
use crate::http::problem::Problem;
use crate::http::routes::{get, resource};
use crate::protocol::outbound::moment;
use crate::store::deliveries;
use crate::store::tracks::{self, TrackPoint};

/// The most fixes in one answer: half a day of a busy driver.
const MAX_POINTS: usize = 20_000;

/// Registers the route.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/deliveries/{id}/track", "GET").route(get().to(track)));
}

async fn track(
    caller: Caller,
    path: web::Path<String>,
    database: web::Data<Database>,
) -> Result<HttpResponse, Problem> {
    let id: DeliveryId = path_id(&path)?;
    let points: Vec<TrackPoint> = database
        .transact(move |conn| {
            Box::pin(async move {
                visible(&caller, deliveries::get(&mut *conn, id).await?)?;
                Ok::<_, DispatchError>(tracks::of_delivery(conn, id, MAX_POINTS as i64 + 1).await?)
            })
        })
        .await?;
    let body = collection(id, &points).to_string();
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, "application/geo+json")).insert_header((CACHE_CONTROL, "no-store"));
    Ok(response.body(body))
}

/// A feature for each assignment that has fixes, in their order.
fn collection(delivery: DeliveryId, points: &[TrackPoint]) -> Value {
    let shown = &points[..points.len().min(MAX_POINTS)];
    let features: Vec<Value> =
        shown.chunk_by(|a, b| a.assignment_id == b.assignment_id).map(|part| feature(delivery, part)).collect();
    let mut value = json!({"type": "FeatureCollection", "features": features});
    if points.len() > MAX_POINTS {
        value["truncated"] = json!(true);
    }
    value
}

fn feature(delivery: DeliveryId, points: &[TrackPoint]) -> Value {
    let coordinates: Vec<[f64; 2]> = points.iter().map(|point| [point.lon, point.lat]).collect();
    // A line has two ends.
    let geometry = match &coordinates[..] {
        [only] => json!({"type": "Point", "coordinates": only}),
        all => json!({"type": "LineString", "coordinates": all}),
    };
    let times: Vec<Value> = points.iter().map(|point| moment(point.time)).collect();
    let first = points.first();
    json!({
        "type": "Feature", "geometry": geometry,
        "properties": {
            "deliveryId": delivery, "assignmentId": first.map(|p| p.assignment_id), "driverId": first.map(|p| p.driver_id),
            "attempt": first.map(|p| p.attempt), "times": times,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{AssignmentId, DriverId};
    use chrono::DateTime;

    fn points(assignment: AssignmentId, count: usize) -> Vec<TrackPoint> {
        let point = |n: usize| TrackPoint {
            assignment_id: assignment,
            driver_id: DriverId::new(),
            attempt: 1,
            lat: 1.0,
            lon: 2.0 + n as f64,
            time: DateTime::from_timestamp(n as i64, 0).unwrap(),
        };
        (0..count).map(point).collect()
    }

    #[test]
    fn each_assignment_has_its_line_and_a_single_fix_is_a_point() {
        let id = DeliveryId::new();
        assert_eq!(collection(id, &[]), json!({"type": "FeatureCollection", "features": []}));
        let mut all = points(AssignmentId::new(), 1);
        all.extend(points(AssignmentId::new(), 3));
        let value = collection(id, &all);
        assert_eq!(value["features"][0]["geometry"], json!({"type": "Point", "coordinates": [2.0, 1.0]}));
        let line = json!({"type": "LineString", "coordinates": [[2.0, 1.0], [3.0, 1.0], [4.0, 1.0]]});
        assert_eq!(value["features"][1]["geometry"], line);
        assert_eq!(value["features"][1]["properties"]["times"][2], "1970-01-01T00:00:02.000Z");
        assert!(value.get("truncated").is_none());
    }

    #[test]
    fn a_track_that_is_too_long_says_so() {
        let value = collection(DeliveryId::new(), &points(AssignmentId::new(), MAX_POINTS + 1));
        assert_eq!(value["truncated"], true);
        assert_eq!(value["features"][0]["properties"]["times"].as_array().unwrap().len(), MAX_POINTS);
    }
}
