//! Points on the ground, and a distance of the tests' own to hold the service's against.

use serde_json::{Value, json};

/// Latitude and longitude in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub lat: f64,
    pub lon: f64,
}

/// Where most orders are fetched.
pub const RESTAURANT: Place = Place { lat: 12.9716, lon: 77.5946 };

/// Mean radius of the Earth in metres, as Redis has it.
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;

impl Place {
    /// The place so many metres to the north and to the east; good enough for a few kilometres.
    pub fn offset(self, north_m: f64, east_m: f64) -> Place {
        let lat = self.lat + (north_m / EARTH_RADIUS_M).to_degrees();
        let lon = self.lon + (east_m / (EARTH_RADIUS_M * self.lat.to_radians().cos())).to_degrees();
        let lon = if lon > 180.0 {
            lon - 360.0
        } else if lon < -180.0 {
            lon + 360.0
        } else {
            lon
        };
        Place { lat, lon }
    }

    /// Great-circle distance in metres, by the chord between unit vectors rather than by the service's formula.
    pub fn distance_m(self, other: Place) -> f64 {
        let vector = |p: Place| {
            let (lat, lon) = (p.lat.to_radians(), p.lon.to_radians());
            [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()]
        };
        let (a, b) = (vector(self), vector(other));
        let chord = (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt();
        2.0 * EARTH_RADIUS_M * (chord / 2.0).min(1.0).asin()
    }

    /// As the wire has it.
    pub fn json(self) -> Value {
        json!({"lat": self.lat, "lon": self.lon})
    }
}
