//! Places, and a distance formula that is independent of the service's formula.

use serde_json::{Value, json};

/// A place: latitude and longitude in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub lat: f64,
    pub lon: f64,
}

/// The pickup of most orders.
pub const RESTAURANT: Place = Place { lat: 12.9716, lon: 77.5946 };

/// The mean radius of the Earth in metres, as Redis uses it.
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;

impl Place {
    /// Returns the place so many metres to the north and to the east. The approximation holds for a few kilometres.
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

    /// Returns the great-circle distance in metres. It uses the chord between unit vectors, which the service's
    /// formula does not.
    pub fn distance_m(self, other: Place) -> f64 {
        let vector = |p: Place| {
            let (lat, lon) = (p.lat.to_radians(), p.lon.to_radians());
            [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()]
        };
        let (a, b) = (vector(self), vector(other));
        let chord = (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt();
        2.0 * EARTH_RADIUS_M * (chord / 2.0).min(1.0).asin()
    }

    /// Returns the place as the wire format shows it.
    pub fn json(self) -> Value {
        json!({"lat": self.lat, "lon": self.lon})
    }
}
