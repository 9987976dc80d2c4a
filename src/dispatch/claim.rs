//! Assigns a waiting order to a chosen driver, in one transaction with row locks.
//!
//! - Candidates were collected without a lock. This module locks the order and the chosen driver, and checks both again.
//! - The driver's row is locked with `SKIP LOCKED`, so a claim never waits for a driver. It waits for an order only with
//!   [`LockWait::Block`].
//! - Partial unique indexes of the schema make a double assignment impossible.

use super::lifecycle::{self, AssignmentReason};
use super::{DispatchError, Unit};
use crate::domain::delivery::DeliveryStatus;
use crate::domain::event::Actor;
use crate::domain::ids::{DeliveryId, DriverId};
use crate::store::assignments::{self, DriverLock};
use crate::store::{StoreError, deliveries, drivers};

/// The outcome of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The order is assigned to the driver.
    Assigned,
    /// The order no longer waits, or another transaction holds it.
    OrderGone,
    /// Another transaction holds the driver's lock. The driver may be available when that transaction ends.
    DriverContended,
    /// The driver has no free slot, is off duty, or is silent.
    DriverGone,
}

/// Whether to wait for the lock of an order that another transaction holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    /// Leave the order to the other transaction.
    Skip,
    /// Wait until the other transaction ends. Later orders must not overtake an older one because of a short lock.
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
    lifecycle::assign(unit, &mut delivery, &driver, AssignmentReason::Nearest { distance_m }, &Actor::System).await?;
    Ok(Claim::Assigned)
}
