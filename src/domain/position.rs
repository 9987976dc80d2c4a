//! Positions on the Earth: validated coordinates, distances, bounding boxes, and the fix of a driver.
//!
//! Every [`Position`] is finite and within the range that Redis GEO can store.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The largest latitude that Redis GEO stores, in degrees (the Web Mercator limit of EPSG:3857).
pub const MAX_LATITUDE: f64 = 85.051_128_78;

/// Mean radius of the Earth in metres. It equals the value of Redis GEO, so that searches in Redis and in PostgreSQL give the
/// same distances.
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;

/// Why a number is not a coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// The latitude is not finite, or is beyond ±85.05112878 degrees.
    #[error("must be a latitude between -85.05112878 and 85.05112878")]
    Latitude,
    /// The longitude is not finite, or is beyond ±180 degrees.
    #[error("must be a longitude between -180 and 180")]
    Longitude,
}

/// A point on the Earth, in WGS 84 degrees. Both numbers are finite and in range.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawPosition")]
pub struct Position {
    lat: f64,
    lon: f64,
}

#[derive(Deserialize)]
struct RawPosition {
    lat: f64,
    lon: f64,
}

impl TryFrom<RawPosition> for Position {
    type Error = PositionError;
    fn try_from(raw: RawPosition) -> Result<Self, PositionError> {
        Self::new(raw.lat, raw.lon)
    }
}

impl Position {
    /// Creates a position from a latitude and a longitude in degrees.
    pub fn new(lat: f64, lon: f64) -> Result<Self, PositionError> {
        check_latitude(lat)?;
        check_longitude(lon)?;
        Ok(Self { lat, lon })
    }

    /// Latitude in degrees, −85.05112878…85.05112878.
    pub fn lat(&self) -> f64 {
        self.lat
    }

    /// Longitude in degrees, −180…180.
    pub fn lon(&self) -> f64 {
        self.lon
    }

    /// Great-circle distance in metres (haversine).
    pub fn distance_m(&self, other: &Position) -> f64 {
        let (lat_a, lat_b) = (self.lat.to_radians(), other.lat.to_radians());
        let half_lat = ((lat_b - lat_a) / 2.0).sin();
        let half_lon = ((other.lon - self.lon).to_radians() / 2.0).sin();
        let h = half_lat * half_lat + lat_a.cos() * lat_b.cos() * half_lon * half_lon;
        2.0 * EARTH_RADIUS_M * h.sqrt().min(1.0).asin()
    }

    /// Returns boxes in degrees that together contain every point within `radius_m`: one box, or two if the circle crosses
    /// ±180°.
    pub fn boxes_around(&self, radius_m: f64) -> Vec<BoundingBox> {
        let lat_margin = (radius_m / EARTH_RADIUS_M).to_degrees() * 1.001;
        let min_lat = (self.lat - lat_margin).max(-90.0);
        let max_lat = (self.lat + lat_margin).min(90.0);
        // The circle is widest in longitude at the latitude where it touches its meridian's tangent.
        let sin_ratio = (radius_m / EARTH_RADIUS_M).sin() / self.lat.to_radians().cos().max(f64::EPSILON);
        let lon_margin = if min_lat <= -90.0 || max_lat >= 90.0 || sin_ratio >= 1.0 {
            180.0
        } else {
            (sin_ratio.asin().to_degrees() * 1.001).min(180.0)
        };
        let whole = |min_lon, max_lon| BoundingBox { min_lat, max_lat, min_lon, max_lon };
        let (west, east) = (self.lon - lon_margin, self.lon + lon_margin);
        if lon_margin >= 180.0 {
            vec![whole(-180.0, 180.0)]
        } else if west < -180.0 {
            vec![whole(-180.0, east), whole(west + 360.0, 180.0)]
        } else if east > 180.0 {
            vec![whole(west, 180.0), whole(-180.0, east - 360.0)]
        } else {
            vec![whole(west, east)]
        }
    }
}

/// Checks only a latitude, so that a caller can name the invalid field.
pub fn check_latitude(lat: f64) -> Result<(), PositionError> {
    if lat.is_finite() && lat.abs() <= MAX_LATITUDE { Ok(()) } else { Err(PositionError::Latitude) }
}

/// Checks only a longitude, so that a caller can name the invalid field.
pub fn check_longitude(lon: f64) -> Result<(), PositionError> {
    if lon.is_finite() && lon.abs() <= 180.0 { Ok(()) } else { Err(PositionError::Longitude) }
}

/// A rectangle in degrees that does not cross ±180°.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundingBox {
    /// Southern edge.
    pub min_lat: f64,
    /// Northern edge.
    pub max_lat: f64,
    /// Western edge.
    pub min_lon: f64,
    /// Eastern edge.
    pub max_lon: f64,
}

/// A measured position of a driver, with the device's time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fix {
    /// The measured position.
    pub position: Position,
    /// When the device measured the position. It decides which of two fixes is newer. It never decides whether the driver is
    /// alive.
    pub time: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_position() -> impl Strategy<Value = Position> {
        (-MAX_LATITUDE..MAX_LATITUDE, -180.0..180.0f64).prop_map(|(lat, lon)| Position::new(lat, lon).unwrap())
    }

    #[test]
    fn refuses_what_redis_would_refuse() {
        assert_eq!(Position::new(f64::NAN, 0.0), Err(PositionError::Latitude));
        assert_eq!(Position::new(85.06, 0.0), Err(PositionError::Latitude));
        assert_eq!(Position::new(0.0, f64::INFINITY), Err(PositionError::Longitude));
        assert_eq!(Position::new(0.0, 180.1), Err(PositionError::Longitude));
        assert!(Position::new(MAX_LATITUDE, -180.0).is_ok());
    }

    #[test]
    fn one_degree_of_latitude_is_about_111_km() {
        let a = Position::new(12.0, 77.0).unwrap();
        let b = Position::new(13.0, 77.0).unwrap();
        assert!((a.distance_m(&b) - 111_226.0).abs() < 50.0, "{}", a.distance_m(&b));
    }

    proptest! {
        #[test]
        fn distance_is_symmetric_and_bounded(a in any_position(), b in any_position()) {
            prop_assert!((a.distance_m(&b) - b.distance_m(&a)).abs() < 1e-6);
            prop_assert!(a.distance_m(&b) <= std::f64::consts::PI * EARTH_RADIUS_M + 1.0);
        }

        #[test]
        fn boxes_hold_every_point_of_their_circle(
            centre in any_position(), near in any_position(),
            dlat in -0.2f64..0.2, dlon in -0.4f64..0.4, radius_m in 10.0f64..30_000.0,
        ) {
            let lat = (centre.lat() + dlat).clamp(-MAX_LATITUDE, MAX_LATITUDE);
            let lon = (centre.lon() + dlon + 540.0).rem_euclid(360.0) - 180.0;
            for point in [Position::new(lat, lon).unwrap(), near] {
                if centre.distance_m(&point) <= radius_m {
                    let inside = centre.boxes_around(radius_m).iter().any(|b| {
                        (b.min_lat..=b.max_lat).contains(&point.lat()) && (b.min_lon..=b.max_lon).contains(&point.lon())
                    });
                    prop_assert!(inside, "{centre:?} {point:?} {radius_m}");
                }
            }
        }
    }
}
