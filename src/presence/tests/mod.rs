//! Tests of presence against a real Redis. Each test starts its own server.

mod heartbeats;
mod hints;
mod membership;
mod outage;
mod repair;
mod search;
mod server;
mod warmth;

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Presence, PresenceError, RebuildDriver, StatusChange};
use crate::domain::driver::DriverStatus;
use crate::domain::heartbeat::Heartbeat;
use crate::domain::ids::DriverId;
use crate::domain::position::{Fix, Position};

fn at(lat: f64, lon: f64) -> Position {
    Position::new(lat, lon).unwrap()
}

fn ago(ms: i64) -> DateTime<Utc> {
    Utc::now() - TimeDelta::milliseconds(ms)
}

fn fix(position: Position) -> Fix {
    Fix { position, time: Utc::now() }
}

fn beat(driver_id: DriverId, position: Position) -> Heartbeat {
    let fix = Some(fix(position));
    let (received_at, received) = (Utc::now(), Instant::now());
    Heartbeat { driver_id, fix, fix_is_newest: true, received_at, received, session_epoch: 1 }
}

fn change(driver_id: DriverId, status: DriverStatus, epoch: i64) -> StatusChange {
    StatusChange { driver_id, status, epoch }
}

/// A driver with one heartbeat, AVAILABLE at epoch 1.
async fn available(presence: &Presence, position: Position) -> DriverId {
    let driver = DriverId::new();
    presence.heartbeats(&[beat(driver, position)]).await.unwrap();
    presence.transition(&[change(driver, DriverStatus::Available, 1)]).await.unwrap();
    driver
}

/// Rebuilds from `drivers`. Redis is warm afterwards.
async fn rebuild(presence: &Presence, drivers: &[RebuildDriver]) {
    presence.set_database_identity("db-1".to_owned());
    let token = presence.begin_rebuild().await.unwrap().expect("nobody else rebuilds");
    presence.load(drivers).await.unwrap();
    assert!(presence.finish_rebuild(token).await.unwrap());
}

/// Whether Redis is warm.
async fn is_warm(presence: &Presence) -> Result<bool, PresenceError> {
    match presence.inner.check_warm("is_warm").await {
        Ok(()) => Ok(true),
        Err(PresenceError::Cold) => Ok(false),
        Err(error) => Err(error),
    }
}
