//! A driver's duty: requested by the driver or an operator, or ended because the driver fell silent.

use super::lifecycle::{self, Reason};
use super::{DispatchError, Unit};
use crate::domain::delivery::DeliveryStatus;
use crate::domain::driver::{DriverChange, DriverStatus};
use crate::domain::event::Actor;
use crate::domain::ids::DriverId;
use crate::store::assignments::EndedAs;
use crate::store::drivers::DriverChanged;
use crate::store::{deliveries, drivers, positions};

/// The reason of a change that the driver asked for: the one change of which the session gets no `status` frame.
pub const ASKED_BY_DRIVER: &str = "asked by the driver";

/// Sets the requested duty. Active deliveries stay; the status is derived. Returns the driver's new state.
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

/// Takes a driver off duty who was silent for `silent_s` seconds, and takes back what they have not fetched yet, on duty or
/// not. Checked again on locked rows: `false` when a heartbeat arrived in between.
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
        let reason_given = Reason::of("DRIVER_OFFLINE");
        lifecycle::unassign(unit, delivery, &reason_given, EndedAs::TakenBack, &Actor::System).await?;
    }
    Ok(true)
}

/// The requested duty by its name on the wire: AVAILABLE or OFFLINE; BUSY cannot be requested.
pub fn requested_duty(status: DriverStatus) -> Option<bool> {
    match status {
        DriverStatus::Available => Some(true),
        DriverStatus::Offline => Some(false),
        DriverStatus::Busy => None,
    }
}
