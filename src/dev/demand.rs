//! The simulation of `dev`: where its drivers move, how fast, and how many orders its shop posts.
//!
//! Invariant: simulated orders never use the drivers that are kept free for the reader's own orders.

use crate::dev::simulate::{DriverSource, ExistingDriver, Movement, OrderSource, SimulateOptions, WebhookAuth};
use crate::domain::ids::DriverId;
use crate::domain::position::Position;
use crate::store::{Database, StoreError, positions};

use super::workspace::{DriverCredentials, Running};

/// The centre of the simulated area and the pickup of the printed order: latitude and longitude.
pub(super) const CENTER: (f64, f64) = (12.9716, 77.5946);
/// The radius of the simulated area, in kilometres.
const RADIUS_KM: f64 = 1.5;
/// A driver whose last position is farther from the centre than this, in metres, starts at a random point of the circle.
const START_WITHIN_M: f64 = 10_000.0;
/// The factor by which simulated time is faster than wall time, so that deliveries end within a minute or two. The fastest
/// driver then moves at 35 m/s (126 km/h). This stays below `FIX_MAX_SPEED_KMH`, also when a `fixTime` is half a second off.
pub(super) const SPEED: f64 = 2.5;
/// Orders per minute for each simulated driver. At this rate about half of the fleet is busy.
const ORDERS_PER_DRIVER: f64 = 0.3;

/// Returns how many of `drivers` the simulated orders leave free: a quarter, rounded up.
pub(super) fn kept_free(drivers: u32) -> u32 {
    drivers.div_ceil(4)
}

/// Returns the options of the simulation that `dev` runs.
pub(super) fn options(running: &Running, fleet: Vec<ExistingDriver>, center: Position) -> SimulateOptions {
    let drivers = u32::try_from(fleet.len()).unwrap_or(u32::MAX);
    SimulateOptions {
        http_url: running.http_url.clone(),
        api_key: None,
        webhook: WebhookAuth::Signed(running.webhook_secret.clone()),
        drivers: DriverSource::Existing(fleet),
        movement: Movement::Random { center, radius_km: RADIUS_KM },
        orders: OrderSource::Rate {
            per_minute: (f64::from(drivers) * ORDERS_PER_DRIVER).clamp(2.0, 600.0),
            count: None,
            center,
            radius_km: RADIUS_KM,
        },
        keep_free: kept_free(drivers) as usize,
        speed: SPEED,
        duration: None,
        seed: rand::random(),
    }
}

/// Returns the fleet, each driver with its last stored position. A driver that started elsewhere would send a first fix
/// that the service refuses as an impossible jump.
pub(super) async fn fleet(
    database: &Database,
    kept: &[DriverCredentials],
    center: Position,
) -> Result<Vec<ExistingDriver>, StoreError> {
    let ids: Vec<DriverId> = kept.iter().filter_map(|driver| driver.id.parse().ok()).collect();
    let known = database.transact(move |conn| Box::pin(async move { positions::get(conn, &ids).await })).await?;
    let known: std::collections::HashMap<String, Position> = known
        .into_iter()
        .filter_map(|stored| Some((stored.driver_id.to_string(), stored.fix?.position)))
        .filter(|(_, position)| position.distance_m(&center) <= START_WITHIN_M)
        .collect();
    let existing = |driver: &DriverCredentials| ExistingDriver {
        id: driver.id.clone(),
        token: driver.token.clone(),
        last_position: known.get(&driver.id).copied(),
    };
    Ok(kept.iter().map(existing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulation_of_dev_keeps_a_quarter_of_the_drivers_free() {
        let driver = ExistingDriver { id: "d".to_owned(), token: "t".to_owned(), last_position: None };
        let running = Running::default();
        for (drivers, expected) in [(1, 1), (5, 2), (50, 13)] {
            let center = Position::new(CENTER.0, CENTER.1).unwrap();
            let options = options(&running, vec![driver.clone(); drivers], center);
            assert_eq!(options.keep_free, expected);
            assert!(matches!(options.orders, OrderSource::Rate { count: None, radius_km: RADIUS_KM, .. }));
        }
    }

    #[test]
    fn a_quarter_of_the_fleet_and_at_least_one_stays_free() {
        let kept = [0, 1, 2, 4, 5, 50, 500].map(kept_free);
        assert_eq!(kept, [0, 1, 1, 1, 2, 13, 125]);
    }
}
