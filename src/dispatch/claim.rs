//! Giving a waiting order to a chosen driver: one transaction, row locks, and no waiting for anybody.
//!
//! Candidates were gathered without a lock; here the order and only the chosen driver are locked (`SKIP LOCKED`) and
//! everything is checked again. What makes a double assignment impossible is the schema (partial unique indexes).

use super::lifecycle::{self, Grounds};
use super::{DispatchError, Unit};
use crate::domain::event::Actor;
use crate::domain::ids::{DeliveryId, DriverId};
use crate::store::assignments::{self, DriverLock};
use crate::store::{StoreError, deliveries, drivers};

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The order is the driver's.
    Given,
    /// The order waits no more, or another node has it in hand.
    OrderGone,
    /// Another transaction holds the driver and may yet let go.
    DriverContended,
    /// The driver is taken, off duty or silent.
    DriverGone,
}

/// Gives `order` to `driver`, who stood `distance_m` metres from the pickup, if both are still free.
pub async fn claim(
    unit: &mut Unit<'_>,
    order: DeliveryId,
    driver: DriverId,
    distance_m: f64,
) -> Result<Claim, DispatchError> {
    let Some(mut delivery) = deliveries::lock_pending(unit.conn, order).await? else {
        return Ok(Claim::OrderGone);
    };
    match assignments::lock_chosen_driver(unit.conn, driver, unit.policy.seen_within_s).await? {
        DriverLock::Held => {}
        DriverLock::HeldByAnother => return Ok(Claim::DriverContended),
        DriverLock::Unavailable => return Ok(Claim::DriverGone),
    }
    let missing = || StoreError::Corrupt(format!("driver {driver} was locked and cannot be read"));
    let driver = drivers::get(unit.conn, driver).await?.ok_or_else(missing)?;
    lifecycle::give(unit, &mut delivery, &driver, Grounds::Nearest { distance_m }, &Actor::System).await?;
    Ok(Claim::Given)
}
