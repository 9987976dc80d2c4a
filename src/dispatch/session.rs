//! Driver sessions in PostgreSQL: opening one, reading the state for its `welcome` frame, and checking that it is current.
//!
//! A driver has one current session: the one with the highest session epoch. The session epoch is a fencing token: work of an
//! older session is refused.

use std::cmp::Ordering;

use sqlx::PgConnection;

use super::{DispatchError, Unit};
use crate::domain::ids::{DriverId, SessionId};
use crate::domain::position::Fix;
use crate::store::credentials::DriverIdentity;
use crate::store::deliveries::{self, Delivery};
use crate::store::drivers::{self, Driver};
use crate::store::{StoreError, positions, sessions};

/// Makes this session the driver's newest and returns its session epoch. The driver's older sessions are notified and end.
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

/// The state that a driver's app needs after it connects.
#[derive(Debug, Clone)]
pub struct DriverSnapshot {
    /// The driver.
    pub driver: Driver,
    /// The driver's active deliveries.
    pub deliveries: Vec<Delivery>,
    /// The driver's last fix.
    pub last_fix: Option<Fix>,
}

/// Reads a driver's whole state.
pub async fn snapshot(conn: &mut PgConnection, driver: DriverId) -> Result<DriverSnapshot, DispatchError> {
    let found = drivers::get(&mut *conn, driver).await?.ok_or(DispatchError::NotFound)?;
    let deliveries = deliveries::active_of_driver(&mut *conn, driver).await?;
    let last_fix = positions::get(conn, &[driver]).await?.first().and_then(|p| p.fix);
    Ok(DriverSnapshot { driver: found, deliveries, last_fix })
}

/// Refuses work of a session that is not the driver's newest session.
///
/// A session that PostgreSQL lost in a failover gives [`StoreError::Unavailable`], not
/// [`DispatchError::SessionReplaced`]: the app must connect again.
pub async fn require_current(unit: &mut Unit<'_>, driver: DriverId, session_epoch: i64) -> Result<(), DispatchError> {
    match sessions::hold(unit.conn, driver).await?.cmp(&session_epoch) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(DispatchError::SessionReplaced),
        Ordering::Less => Err(StoreError::Unavailable("the session is not known any more".to_owned()).into()),
    }
}
