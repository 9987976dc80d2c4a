//! The track of a delivery as GeoJSON (RFC 7946): one feature for each assignment.

use crate::store::Database;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
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

/// One feature for each assignment that has fixes, in order.
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

/// One part of a track that does not cross ±180°: positions, and the time of each.
#[derive(Default)]
struct Line {
    coordinates: Vec<[f64; 2]>,
    times: Vec<DateTime<Utc>>,
}

impl Line {
    fn push(&mut self, lon: f64, lat: f64, time: DateTime<Utc>) {
        self.coordinates.push([lon, lat]);
        self.times.push(time);
    }
}

/// Cuts a track where it crosses ±180° (RFC 7946, section 3.1.9). A cut adds the crossing point, with its time, to both
/// parts. No part has fewer than two positions, unless the whole track has one.
fn cut(points: &[TrackPoint]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut line = Line::default();
    for point in points {
        let (Some([last_lon, last_lat]), Some(last_time)) =
            (line.coordinates.last().copied(), line.times.last().copied())
        else {
            line.push(point.lon, point.lat, point.time);
            continue;
        };
        // The edge is both 180° and −180°. A fix on the edge gets the sign of the side where the track is. A crossing
        // comes after that fix.
        let lon = if point.lon.abs() == 180.0 && last_lon != 0.0 { 180.0_f64.copysign(last_lon) } else { point.lon };
        if (lon - last_lon).abs() > 180.0 {
            let edge = 180.0_f64.copysign(last_lon);
            let share = (180.0 - last_lon.abs()) / (360.0 - (lon - last_lon).abs());
            let lat = last_lat + share * (point.lat - last_lat);
            let time = last_time + (point.time - last_time).to_std().unwrap_or_default().mul_f64(share);
            if last_lon != edge {
                line.push(edge, lat, time);
            }
            let before = std::mem::take(&mut line);
            // A part of one position is only the edge, and the next part begins with the edge.
            if before.coordinates.len() > 1 {
                lines.push(before);
            }
            line.push(-edge, lat, time);
        }
        line.push(lon, point.lat, point.time);
    }
    lines.push(line);
    lines
}

fn feature(delivery: DeliveryId, points: &[TrackPoint]) -> Value {
    let lines = cut(points);
    let times_of = |line: &Line| line.times.iter().map(|time| moment(*time)).collect::<Vec<Value>>();
    let (geometry, times) = match &lines[..] {
        // A line needs at least two positions.
        [line] if line.coordinates.len() == 1 => {
            (json!({"type": "Point", "coordinates": line.coordinates[0]}), json!(times_of(line)))
        }
        [line] => (json!({"type": "LineString", "coordinates": line.coordinates}), json!(times_of(line))),
        all => {
            let coordinates: Vec<_> = all.iter().map(|line| &line.coordinates).collect();
            let times: Vec<_> = all.iter().map(times_of).collect();
            (json!({"type": "MultiLineString", "coordinates": coordinates}), json!(times))
        }
    };
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

    /// The geometry and times (in ms) of a track over these positions, one a second.
    fn drawn(places: &[(f64, f64)]) -> (Value, Value) {
        let assignment = AssignmentId::new();
        let point = |(n, (lon, lat)): (usize, &(f64, f64))| TrackPoint {
            lon: *lon,
            lat: *lat,
            time: DateTime::from_timestamp(n as i64, 0).unwrap(),
            ..points(assignment, 1)[0]
        };
        let track: Vec<TrackPoint> = places.iter().enumerate().map(point).collect();
        let value = collection(DeliveryId::new(), &track)["features"][0].clone();
        (value["geometry"].clone(), value["properties"]["times"].clone())
    }

    fn lines(coordinates: Value) -> Value {
        json!({"type": "MultiLineString", "coordinates": coordinates})
    }

    fn line(coordinates: Value) -> Value {
        json!({"type": "LineString", "coordinates": coordinates})
    }

    #[test]
    fn a_track_over_the_edge_is_cut_there_and_its_times_with_it() {
        let (geometry, times) = drawn(&[(179.5, 1.0), (-179.5, 2.0)]);
        assert_eq!(geometry, lines(json!([[[179.5, 1.0], [180.0, 1.5]], [[-180.0, 1.5], [-179.5, 2.0]]])));
        let [zero, half, one] = ["00.000", "00.500", "01.000"].map(|second| format!("1970-01-01T00:00:{second}Z"));
        assert_eq!(times, json!([[zero, half], [half, one]]));
        let (there_and_back, _) = drawn(&[(-179.5, 1.0), (179.5, 1.0), (179.0, 1.0), (-179.5, 1.0)]);
        let parts = json!([
            [[-179.5, 1.0], [-180.0, 1.0]],
            [[180.0, 1.0], [179.5, 1.0], [179.0, 1.0], [180.0, 1.0]],
            [[-180.0, 1.0], [-179.5, 1.0]],
        ]);
        assert_eq!(there_and_back, lines(parts));
    }

    #[test]
    fn a_fix_on_the_edge_belongs_to_the_side_that_the_track_is_on() {
        let of = |places: &[(f64, f64)]| drawn(places).0;
        let [east, edge, west] = [(179.0, 1.0), (180.0, 2.0), (-179.0, 3.0)];
        let minus_edge = (-180.0, 2.0);
        let through = lines(json!([[[179.0, 1.0], [180.0, 2.0]], [[-180.0, 2.0], [-179.0, 3.0]]]));
        assert_eq!(of(&[east, edge, west]), through);
        assert_eq!(of(&[east, minus_edge, west]), through);
        let touched = line(json!([[179.0, 1.0], [180.0, 2.0], [179.0, 1.0]]));
        assert_eq!(of(&[east, minus_edge, east]), touched, "touched, not crossed");
        assert_eq!(of(&[edge, west]), line(json!([[-180.0, 2.0], [-179.0, 3.0]])), "begun on the edge");
        assert_eq!(of(&[minus_edge, east]), line(json!([[180.0, 2.0], [179.0, 1.0]])));
        assert_eq!(of(&[east, minus_edge]), line(json!([[179.0, 1.0], [180.0, 2.0]])), "ended on the edge");
        assert_eq!(of(&[edge, (-180.0, 3.0)]), line(json!([[180.0, 2.0], [180.0, 3.0]])), "along the edge");
        assert_eq!(of(&[minus_edge]), json!({"type": "Point", "coordinates": [-180.0, 2.0]}));
    }

    #[test]
    fn a_long_way_that_does_not_cross_the_edge_stays_whole() {
        let (geometry, _) = drawn(&[(-90.0, 1.0), (90.0, 1.0), (0.0, 1.0), (180.0, 1.0)]);
        assert_eq!(geometry, line(json!([[-90.0, 1.0], [90.0, 1.0], [0.0, 1.0], [180.0, 1.0]])));
    }

    #[test]
    fn a_track_that_is_too_long_says_so() {
        let value = collection(DeliveryId::new(), &points(AssignmentId::new(), MAX_POINTS + 1));
        assert_eq!(value["truncated"], true);
        assert_eq!(value["features"][0]["properties"]["times"].as_array().unwrap().len(), MAX_POINTS);
    }
}
