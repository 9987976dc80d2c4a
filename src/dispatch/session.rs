//! A driver's session as PostgreSQL sees it: opened, and its whole state for the `welcome`.

use std::cmp::Ordering;

use sqlx::PgConnection;

use super::{DispatchError, Unit};
use crate::domain::ids::{DriverId, SessionId};
use crate::domain::position::Fix;
use crate::store::credentials::DriverIdentity;
use crate::store::deliveries::{self, Delivery};
use crate::store::drivers::{self, Driver};
use crate::store::{StoreError, positions, sessions};

/// Makes this session the driver's newest; sessions elsewhere learn that they are over. Gives the session epoch.
pub async fn open(
    unit: &mut Unit<'_>,
    who: &DriverIdentity,
    session: SessionId,
    node_id: &str,
) -> Result<i64, DispatchError> {
    let epoch = sessions::open(unit.conn, who.driver_id, session, who.token_id, node_id).await?;
    unit.effects.sessions.push(who.driver_id);
    Ok(epoch)
}

/// Everything a driver's app needs to know after a connect.
#[derive(Debug, Clone)]
pub struct DriverSnapshot {
    /// The driver.
    pub driver: Driver,
    /// The active deliveries.
    pub deliveries: Vec<Delivery>,
    /// Where the driver last was.
    pub last_fix: Option<Fix>,
}

/// Reads a driver's whole state.
pub async fn snapshot(conn: &mut PgConnection, driver: DriverId) -> Result<DriverSnapshot, DispatchError> {
    let found = drivers::get(&mut *conn, driver).await?.ok_or(DispatchError::NotFound)?;
    let deliveries = deliveries::active_of_driver(&mut *conn, driver).await?;
    let last_fix = positions::get(conn, &[driver]).await?.first().and_then(|p| p.fix);
    Ok(DriverSnapshot { driver: found, deliveries, last_fix })
}

/// Stops work that was born in a session which is no longer the driver's newest, or which PostgreSQL has lost in a failover:
/// that one is not over for good, the app is to come back.
pub async fn require_current(unit: &mut Unit<'_>, driver: DriverId, session_epoch: i64) -> Result<(), DispatchError> {
    match sessions::hold(unit.conn, driver).await?.cmp(&session_epoch) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(DispatchError::SessionReplaced),
        Ordering::Less => Err(StoreError::Unavailable("the session is not known any more".to_owned()).into()),
    }
}
