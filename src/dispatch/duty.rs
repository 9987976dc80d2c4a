//! The requested duty of a driver: set by the driver, by an operator, or by the service after a long silence.
//!
//! A change of duty never ends a delivery that was picked up.

use super::lifecycle::{self, Reason};
use super::{DispatchError, Unit};
use crate::domain::delivery::DeliveryStatus;
use crate::domain::driver::{DriverChange, DriverStatus};
use crate::domain::event::Actor;
use crate::domain::ids::DriverId;
use crate::store::assignments::EndedAs;
use crate::store::drivers::DriverChanged;
use crate::store::{deliveries, drivers, positions};

/// The reason of a change that the driver requested. The driver's session gets no frame for a change with this reason.
pub const ASKED_BY_DRIVER: &str = "asked by the driver";

/// Sets the requested duty and returns the driver's new state. The driver keeps their deliveries. The status is derived again.
pub async fn set_duty(
    unit: &mut Unit<'_>,
    driver: DriverId,
    on_duty: bool,
    reason: &str,
    actor: &Actor,
) -> Result<DriverChanged, DispatchError> {
    let driver = drivers::lock(unit.conn, driver).await?.ok_or(DispatchError::NotFound)?;
    let state = driver.state.transition(DriverChange::SetDuty(on_duty))?;
    if state == driver.state {
        return Ok(driver.as_changed());
    }
    let changed = drivers::apply(unit.conn, driver.id, state, reason, actor).await?;
    unit.effects.drivers.push(changed);
    Ok(changed)
}

/// Takes a driver off duty who was silent for `silent_s` seconds, and unassigns their deliveries that were not picked up.
///
/// Deliveries are unassigned also if the driver is already off duty. The silence is checked again under the locks. Returns
/// `false` if the driver does not exist or a heartbeat arrived in the meantime.
pub async fn mark_offline(unit: &mut Unit<'_>, driver: DriverId, silent_s: f64) -> Result<bool, DispatchError> {
    let mut held = deliveries::lock_of_driver(unit.conn, driver).await?;
    let Some(locked) = drivers::lock(unit.conn, driver).await? else { return Ok(false) };
    let seen = positions::get(unit.conn, &[driver]).await?;
    if seen.first().is_some_and(|p| (p.silent_ms as f64) < silent_s * 1000.0) {
        return Ok(false);
    }
    if locked.state.on_duty {
        let off_duty = locked.state.transition(DriverChange::SetDuty(false))?;
        let changed = drivers::apply(unit.conn, driver, off_duty, "silent for too long", &Actor::System).await?;
        unit.effects.drivers.push(changed);
    }
    for delivery in held.iter_mut().filter(|d| d.status == DeliveryStatus::Assigned && d.driver_id == Some(driver)) {
        let end_reason = Reason::of("DRIVER_OFFLINE");
        lifecycle::unassign(unit, delivery, &end_reason, EndedAs::Unassigned, &Actor::System).await?;
    }
    Ok(true)
}

/// The duty that a status on the wire requests: AVAILABLE is on duty, OFFLINE is off duty. BUSY cannot be requested.
pub fn requested_duty(status: DriverStatus) -> Option<bool> {
    match status {
        DriverStatus::Available => Some(true),
        DriverStatus::Offline => Some(false),
        DriverStatus::Busy => None,
    }
}
