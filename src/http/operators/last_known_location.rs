//! Last known locations of drivers and whether they are online, merged from Redis and PostgreSQL.
//!
//! Invariant: a heartbeat never reaches PostgreSQL before Redis. So a driver whom PostgreSQL calls online is online,
//! and a Redis that is down, cold or empty takes no driver offline.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::ids::DriverId;
use crate::domain::position::Fix;
use crate::presence::{OnlineValue, Presence};
use crate::store::positions::StoredPosition;

/// The last known location of one driver.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LastKnownLocation {
    /// Whether a heartbeat was received within the TTL.
    pub online: bool,
    /// The newest fix.
    pub fix: Option<Fix>,
}

/// The last known locations of several drivers.
#[derive(Debug, Clone, Default)]
pub struct LastKnownLocations {
    found: HashMap<DriverId, LastKnownLocation>,
}

impl LastKnownLocations {
    /// Reads `drivers` from Redis. Empty when Redis does not answer.
    pub async fn ask(presence: &Presence, drivers: &[DriverId]) -> Self {
        let mut this = Self::default();
        match presence.online(drivers).await {
            Ok(values) => this.note_online(drivers, &values),
            Err(error) => tracing::debug!(error = %error, "who is online was read from PostgreSQL alone"),
        }
        this
    }

    fn note_online(&mut self, drivers: &[DriverId], values: &[Option<OnlineValue>]) {
        for (driver, value) in drivers.iter().zip(values) {
            if let Some(value) = value {
                self.found.insert(*driver, LastKnownLocation { online: true, fix: value.fix });
            }
        }
    }

    /// Merges what PostgreSQL stores. `ttl` is how long a heartbeat keeps a driver online.
    pub fn note_stored(&mut self, stored: &[StoredPosition], ttl: Duration) {
        for row in stored {
            let known = self.found.entry(row.driver_id).or_default();
            known.online |= u128::try_from(row.silent_ms).unwrap_or(0) < ttl.as_millis();
            let is_newer = match (&known.fix, &row.fix) {
                (Some(known), Some(stored)) => stored.time > known.time,
                (None, Some(_)) => true,
                (_, None) => false,
            };
            if is_newer {
                known.fix = row.fix;
            }
        }
    }

    /// The last known location of a driver.
    pub fn of(&self, driver: DriverId) -> LastKnownLocation {
        self.found.get(&driver).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Position;
    use chrono::{DateTime, Utc};

    const TTL: Duration = Duration::from_secs(30);

    fn fix(second: i64) -> Fix {
        let time = DateTime::from_timestamp(second, 0).unwrap();
        Fix { position: Position::new(1.0, second as f64 / 1000.0).unwrap(), time }
    }

    fn stored(driver: DriverId, fix: Option<Fix>, silent_ms: i64) -> StoredPosition {
        StoredPosition { driver_id: driver, fix, last_seen_at: Utc::now(), silent_ms, session_epoch: 1 }
    }

    #[test]
    fn whoever_knows_more_is_believed() {
        let driver = DriverId::new();
        let online = OnlineValue { fix: Some(fix(100)), received_at: Utc::now(), session_epoch: 1 };
        let mut known = LastKnownLocations::default();
        known.note_online(&[driver], &[Some(online)]);
        known.note_stored(&[stored(driver, Some(fix(90)), 60_000)], TTL);
        assert_eq!(known.of(driver), LastKnownLocation { online: true, fix: Some(fix(100)) });
        known.note_stored(&[stored(driver, Some(fix(110)), 60_000)], TTL);
        assert_eq!(known.of(driver).fix, Some(fix(110)));
    }

    #[test]
    fn without_redis_postgresql_says_who_is_online() {
        let (fresh, silent) = (DriverId::new(), DriverId::new());
        let mut known = LastKnownLocations::default();
        known.note_online(&[fresh, silent], &[None, None]);
        known.note_stored(&[stored(fresh, None, 29_999), stored(silent, Some(fix(1)), 30_000)], TTL);
        assert_eq!(known.of(fresh), LastKnownLocation { online: true, fix: None });
        assert_eq!(known.of(silent), LastKnownLocation { online: false, fix: Some(fix(1)) });
        assert_eq!(known.of(DriverId::new()), LastKnownLocation::default());
    }
}
