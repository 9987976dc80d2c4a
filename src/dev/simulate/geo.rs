//! Plane geometry that is accurate enough for a city: offsets, interpolation, boxes, and moving demand from one city into
//! another.
//!
//! Invariants: the functions do no IO, and every result is a valid [`Position`].

use rand::{Rng, RngExt};

use crate::domain::position::{BoundingBox, MAX_LATITUDE, Position};

const METRES_PER_DEGREE: f64 = 111_226.0;

/// The share of points at each edge that a box leaves out, so that one outlier does not stretch it.
const STRAY_SHARE: f64 = 0.05;

/// Returns the point this many metres north and east of `from`.
pub(super) fn offset(from: Position, north_m: f64, east_m: f64) -> Position {
    let lat = (from.lat() + north_m / METRES_PER_DEGREE).clamp(-MAX_LATITUDE, MAX_LATITUDE);
    let shrink = from.lat().to_radians().cos().max(0.01);
    let lon = (from.lon() + east_m / (METRES_PER_DEGREE * shrink) + 540.0).rem_euclid(360.0) - 180.0;
    Position::new(lat, lon).unwrap_or(from)
}

/// Returns the point at `fraction` (0…1) of the straight line from `a` to `b`. Across ±180° the line takes the shorter way.
pub(super) fn between(a: Position, b: Position, fraction: f64) -> Position {
    let fraction = fraction.clamp(0.0, 1.0);
    let east = (b.lon() - a.lon() + 540.0).rem_euclid(360.0) - 180.0;
    let lat = a.lat() + (b.lat() - a.lat()) * fraction;
    let lon = (a.lon() + east * fraction + 540.0).rem_euclid(360.0) - 180.0;
    Position::new(lat, lon).unwrap_or(a)
}

/// Returns a random point within the circle, uniformly distributed by area.
pub(super) fn random_within(rng: &mut impl Rng, center: Position, radius_km: f64) -> Position {
    let distance_m = radius_km * 1000.0 * rng.random::<f64>().sqrt();
    let angle = rng.random::<f64>() * std::f64::consts::TAU;
    offset(center, distance_m * angle.sin(), distance_m * angle.cos())
}

/// Returns a random point within the box.
pub(super) fn random_in_box(rng: &mut impl Rng, area: &BoundingBox) -> Position {
    let lat = area.min_lat + (area.max_lat - area.min_lat) * rng.random::<f64>();
    let lon = area.min_lon + (area.max_lon - area.min_lon) * rng.random::<f64>();
    clamped(lat, lon)
}

/// Returns the box of the points without the outer 5 % at each edge. `None` without points.
pub(super) fn central_box(points: impl Iterator<Item = Position>) -> Option<BoundingBox> {
    let (mut lats, mut lons): (Vec<f64>, Vec<f64>) = points.map(|p| (p.lat(), p.lon())).unzip();
    lats.sort_by(f64::total_cmp);
    lons.sort_by(f64::total_cmp);
    let cut = (lats.len() as f64 * STRAY_SHARE) as usize;
    let last = lats.len().checked_sub(1 + cut)?;
    Some(BoundingBox { min_lat: lats[cut], max_lat: lats[last], min_lon: lons[cut], max_lon: lons[last] })
}

/// Whether two boxes share any point.
pub(super) fn overlap(a: &BoundingBox, b: &BoundingBox) -> bool {
    a.min_lat <= b.max_lat && b.min_lat <= a.max_lat && a.min_lon <= b.max_lon && b.min_lon <= a.max_lon
}

/// The point that lies in `to` as `point` lies in `from`; strays are pulled to the edge of `to`.
pub(super) fn fit(point: Position, from: &BoundingBox, to: &BoundingBox) -> Position {
    let share = |value: f64, min: f64, max: f64| {
        if max > min { ((value - min) / (max - min)).clamp(0.0, 1.0) } else { 0.5 }
    };
    let lat = to.min_lat + (to.max_lat - to.min_lat) * share(point.lat(), from.min_lat, from.max_lat);
    let lon = to.min_lon + (to.max_lon - to.min_lon) * share(point.lon(), from.min_lon, from.max_lon);
    clamped(lat, lon)
}

/// Returns the middle of a box and the distance from there to the nearest edge, in kilometres (at least 0.5).
pub(super) fn circle_in(area: &BoundingBox) -> (Position, f64) {
    let middle = clamped((area.min_lat + area.max_lat) / 2.0, (area.min_lon + area.max_lon) / 2.0);
    let up_m = middle.distance_m(&clamped(area.max_lat, middle.lon()));
    let right_m = middle.distance_m(&clamped(middle.lat(), area.max_lon));
    (middle, (up_m.min(right_m) / 1000.0).max(0.5))
}

fn clamped(lat: f64, lon: f64) -> Position {
    let lat = if lat.is_finite() { lat.clamp(-MAX_LATITUDE, MAX_LATITUDE) } else { 0.0 };
    let lon = if lon.is_finite() { lon.clamp(-180.0, 180.0) } else { 0.0 };
    Position::new(lat, lon).expect("finite and clamped into range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    fn at(lat: f64, lon: f64) -> Position {
        Position::new(lat, lon).unwrap()
    }

    #[test]
    fn offsets_are_metres() {
        for from in [at(0.0, 0.0), at(52.5, 13.4), at(-33.9, 179.999)] {
            assert!((from.distance_m(&offset(from, 1000.0, 0.0)) - 1000.0).abs() < 5.0);
            assert!((from.distance_m(&offset(from, 0.0, 1000.0)) - 1000.0).abs() < 5.0);
        }
    }

    #[test]
    fn between_takes_the_shorter_way_across_the_antimeridian() {
        let half = between(at(0.0, 179.0), at(2.0, -179.0), 0.5);
        assert!((half.lat() - 1.0).abs() < 1e-9 && (half.lon().abs() - 180.0).abs() < 1e-9, "{half:?}");
        assert_eq!(between(at(1.0, 1.0), at(2.0, 2.0), 7.0), at(2.0, 2.0));
    }

    #[test]
    fn random_points_stay_in_their_circle() {
        let mut rng = StdRng::seed_from_u64(1);
        let center = at(12.97, 77.59);
        for _ in 0..1000 {
            assert!(center.distance_m(&random_within(&mut rng, center, 3.0)) < 3010.0);
        }
    }

    #[test]
    fn an_outlier_does_not_stretch_the_box_and_is_clamped_when_fitted() {
        let city = (0..100).map(|i| at(40.0 + f64::from(i) / 100.0, -74.0 + f64::from(i) / 100.0));
        let from = central_box(city.chain([at(0.0, 0.0)])).unwrap();
        assert!(from.min_lat > 39.9 && from.max_lon < -73.0, "{from:?}");
        let to = BoundingBox { min_lat: 37.0, max_lat: 38.0, min_lon: -123.0, max_lon: -122.0 };
        assert!(!overlap(&from, &to));
        let fitted = fit(at(0.0, 0.0), &from, &to);
        assert_eq!((fitted.lat(), fitted.lon()), (37.0, -122.0));
        let middle = fit(at((from.min_lat + from.max_lat) / 2.0, (from.min_lon + from.max_lon) / 2.0), &from, &to);
        assert!((middle.lat() - 37.5).abs() < 1e-9 && (middle.lon() + 122.5).abs() < 1e-9);
        assert!(central_box(std::iter::empty()).is_none());
    }
}
