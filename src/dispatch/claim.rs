//! Giving a waiting order to a chosen driver: one transaction, row locks, and no waiting for anybody.
//!
//! Candidates were gathered without a lock; here the order and only the chosen driver are locked (`SKIP LOCKED`) and
//! everything is checked again. What makes a double assignment impossible is the schema (partial unique indexes).

use super::lifecycle::{self, Grounds};
use super::{DispatchError, Unit};
use crate::domain::delivery::DeliveryStatus;
use crate::domain::event::Actor;
use crate::domain::ids::{DeliveryId, DriverId};
use crate::store::assignments::{self, DriverLock};
use crate::store::{StoreError, deliveries, drivers};

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The order is the driver's.
    Given,
    /// The order no longer waits, or another transaction holds it.
    OrderGone,
    /// Another transaction holds the driver and may yet let go.
    DriverContended,
    /// The driver is taken, off duty or silent.
    DriverGone,
}

/// Whether to wait for the lock of an order that another transaction holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    /// Leave it to that one.
    Skip,
    /// Wait for that one's end: an order that goes first must not be overtaken because somebody is just serving it.
    Block,
}

/// Gives `order` to `driver`, who stood `distance_m` metres from the pickup, if both are still free.
#[tracing::instrument(level = "trace", skip_all)]
pub async fn claim(
    unit: &mut Unit<'_>,
    order: DeliveryId,
    driver: DriverId,
    distance_m: f64,
    lock_wait: LockWait,
) -> Result<Claim, DispatchError> {
    let found = match lock_wait {
        LockWait::Skip => deliveries::lock_pending(unit.conn, order).await?,
        LockWait::Block => deliveries::lock(unit.conn, order).await?.filter(|d| d.status == DeliveryStatus::Pending),
    };
    let Some(mut delivery) = found else { return Ok(Claim::OrderGone) };
    match assignments::lock_chosen_driver(unit.conn, driver, unit.settings.seen_within_s).await? {
        DriverLock::Held => {}
        DriverLock::HeldByAnother => return Ok(Claim::DriverContended),
        DriverLock::Unavailable => return Ok(Claim::DriverGone),
    }
    let missing = || StoreError::Corrupt(format!("driver {driver} was locked and cannot be read"));
    let driver = drivers::get(unit.conn, driver).await?.ok_or_else(missing)?;
    lifecycle::assign(unit, &mut delivery, &driver, Grounds::Nearest { distance_m }, &Actor::System).await?;
    Ok(Claim::Given)
}
