//! Updates of an active delivery, reported by its driver or by an operator.
//!
//! - A driver's update that repeats a passed state succeeds and changes nothing.
//! - The times of an assignment's steps never go backwards and never lie in the future, whatever the device's clock says.

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Value, json};

use super::lifecycle::{self, Failure, Reason};
use super::{DispatchError, Unit};
use crate::domain::delivery::{DeliveryAction, DeliveryStatus, FailureCode};
use crate::domain::event::{Actor, AuditType};
use crate::domain::ids::{AssignmentId, DeliveryId, DriverId};
use crate::domain::position::Position;
use crate::store::assignments::{self, Assignment, EndedAs};
use crate::store::commands::{self, CommandKind};
use crate::store::deliveries::{self, Delivery};
use crate::store::drivers;
use crate::webhooks::event::OutboundDetails;

/// What an update reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverUpdate {
    /// The driver has the goods.
    PickedUp,
    /// The driver is on the way to the drop.
    InTransit,
    /// The goods were handed over.
    Delivered,
    /// The delivery ended without a handover.
    Failed,
    /// The driver rejected the assignment before pickup.
    Rejected,
}

/// The details of an update.
#[derive(Debug, Clone, Default)]
pub struct UpdateDetails {
    /// When it happened, by the reporter's clock.
    pub occurred_at: Option<DateTime<Utc>>,
    /// Where it happened.
    pub position: Option<Position>,
    /// URL of a photograph or a signature.
    pub proof_url: Option<String>,
    /// The code and reason of a FAILED; the reason of a REJECTED.
    pub failure: Option<(FailureCode, Option<String>)>,
    /// An operator's reason for the update.
    pub reason: Option<String>,
}

/// Handles a driver's update of an assignment. Returns the delivery's state after it.
///
/// An update to a state that the assignment has passed succeeds and changes nothing.
pub async fn update_by_driver(
    unit: &mut Unit<'_>,
    driver: DriverId,
    delivery: DeliveryId,
    assignment: AssignmentId,
    step: DriverUpdate,
    details: &UpdateDetails,
) -> Result<DeliveryStatus, DispatchError> {
    let mut found = deliveries::lock(unit.conn, delivery).await?.ok_or(DispatchError::NotFound)?;
    let held = assignments::get(unit.conn, assignment).await?.ok_or(DispatchError::NotFound)?;
    if held.driver_id != driver || held.delivery_id != delivery {
        return Err(DispatchError::NotFound);
    }
    if has_passed(&held, step) {
        return Ok(found.status);
    }
    if !held.active {
        return Err(DispatchError::AssignmentClosed);
    }
    advance(unit, &mut found, step, details, &Actor::Driver(driver.0)).await?;
    Ok(found.status)
}

/// Whether this assignment has passed the state that `update` reports.
fn has_passed(assignment: &Assignment, step: DriverUpdate) -> bool {
    let ended_as = |end: EndedAs| assignment.ended_as == Some(end);
    match step {
        DriverUpdate::PickedUp => assignment.picked_up,
        DriverUpdate::InTransit => assignment.departed_at.is_some() || ended_as(EndedAs::Delivered),
        DriverUpdate::Delivered => ended_as(EndedAs::Delivered),
        DriverUpdate::Failed => ended_as(EndedAs::Failed),
        DriverUpdate::Rejected => ended_as(EndedAs::Rejected),
    }
}

/// Handles an operator's update of a delivery.
pub async fn update_by_operator(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    step: DriverUpdate,
    details: &UpdateDetails,
    actor: &Actor,
) -> Result<(), DispatchError> {
    advance(unit, delivery, step, details, actor).await
}

async fn advance(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    step: DriverUpdate,
    details: &UpdateDetails,
    actor: &Actor,
) -> Result<(), DispatchError> {
    unit.advance_to_last_change(delivery);
    let previous = previous_step(unit, delivery).await?;
    let occurred_at = step_time(previous, details.occurred_at, unit.now);
    let holder = delivery.driver_id.zip(delivery.assignment_id);
    match step {
        DriverUpdate::PickedUp => pick_up(unit, delivery, occurred_at, details, actor).await,
        DriverUpdate::InTransit => depart(unit, delivery, occurred_at, details, actor).await,
        DriverUpdate::Delivered => deliver(unit, delivery, occurred_at, details, actor).await,
        DriverUpdate::Failed => {
            let (code, reason) = details.failure.clone().unwrap_or((FailureCode::DeliveryFailed, None));
            let failure = Failure { code, reason, occurred_at };
            lifecycle::fail(unit, delivery, &failure, known(json!({}), details), actor).await
        }
        DriverUpdate::Rejected => {
            let reason = details.failure.as_ref().and_then(|(_, reason)| reason.clone());
            let end_reason = Reason::of(reason.as_deref().unwrap_or("rejected by the driver"));
            lifecycle::unassign(unit, delivery, &end_reason, EndedAs::Rejected, actor).await
        }
    }?;
    match holder {
        // The driver's app still shows the old state. `lifecycle::fail` sends `assignment.cancelled` for a failure.
        Some((driver, assignment)) if *actor != Actor::Driver(driver.0) && step != DriverUpdate::Failed => {
            commands::insert(unit.conn, driver, CommandKind::Delivery, delivery.id, assignment, None).await?;
            unit.effects.commands.push(driver);
        }
        _ => {}
    }
    Ok(())
}

/// When the last step of this assignment happened.
async fn previous_step(unit: &mut Unit<'_>, delivery: &Delivery) -> Result<DateTime<Utc>, DispatchError> {
    let departed_at = match delivery.assignment_id {
        Some(id) if delivery.status == DeliveryStatus::InTransit => {
            assignments::get(unit.conn, id).await?.and_then(|assignment| assignment.departed_at)
        }
        _ => None,
    };
    let steps = [delivery.assigned_at, delivery.picked_up_at, departed_at];
    Ok(steps.into_iter().flatten().max().unwrap_or(delivery.created_at))
}

/// When a step happened, in whole milliseconds: the reported time, limited to the span from the previous step to now.
///
/// The clock of a phone may be slow, fast, or set back between two steps.
fn step_time(previous: DateTime<Utc>, reported: Option<DateTime<Utc>>, now: DateTime<Utc>) -> DateTime<Utc> {
    reported.map_or(now, |at| at.trunc_subsecs(3)).min(now).max(previous)
}

async fn pick_up(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    at: DateTime<Utc>,
    details: &UpdateDetails,
    actor: &Actor,
) -> Result<(), DispatchError> {
    delivery.status = delivery.status.transition(DeliveryAction::PickUp)?;
    delivery.picked_up_at = Some(at);
    if let Some(assignment) = delivery.assignment_id {
        assignments::mark_picked_up(unit.conn, assignment, at).await?;
    }
    deliveries::update_state(unit.conn, delivery).await?;
    let driver = holder(unit, delivery).await?;
    let data = known(json!({"pickedUpAt": at}), details);
    let details = OutboundDetails::PickedUp { proof_url: details.proof_url.clone(), picked_up_at: at };
    lifecycle::record(unit, delivery, AuditType::PickedUp, actor, data, driver.as_ref(), Some(details)).await
}

async fn depart(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    at: DateTime<Utc>,
    details: &UpdateDetails,
    actor: &Actor,
) -> Result<(), DispatchError> {
    delivery.status = delivery.status.transition(DeliveryAction::Depart)?;
    if let Some(assignment) = delivery.assignment_id {
        assignments::mark_departed(unit.conn, assignment, at).await?;
    }
    deliveries::update_state(unit.conn, delivery).await?;
    let data = known(json!({"departedAt": at}), details);
    lifecycle::record(unit, delivery, AuditType::InTransit, actor, data, None, None).await
}

async fn deliver(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    at: DateTime<Utc>,
    details: &UpdateDetails,
    actor: &Actor,
) -> Result<(), DispatchError> {
    let status = delivery.status.transition(DeliveryAction::Deliver)?;
    let driver = lifecycle::release(unit, delivery, EndedAs::Delivered, "delivery done", actor).await?;
    delivery.status = status;
    delivery.delivered_at = Some(at);
    deliveries::update_state(unit.conn, delivery).await?;
    unit.effects.resolved.push(delivery.id);
    let data = known(json!({"deliveredAt": at}), details);
    let details = OutboundDetails::Delivered {
        proof_url: details.proof_url.clone(),
        position: details.position,
        delivered_at: at,
    };
    lifecycle::record(unit, delivery, AuditType::Delivered, actor, data, Some(&driver), Some(details)).await
}

/// Adds the proof, the position and the operator's reason to `data`. A missing one is left out.
fn known(mut data: Value, details: &UpdateDetails) -> Value {
    if let Some(link) = &details.proof_url {
        data["proofUrl"] = json!(link);
    }
    if let Some(position) = &details.position {
        data["position"] = json!(position);
    }
    if let Some(reason) = &details.reason {
        data["reason"] = json!(reason);
    }
    data
}

async fn holder(unit: &mut Unit<'_>, delivery: &Delivery) -> Result<Option<drivers::Driver>, DispatchError> {
    match delivery.driver_id {
        Some(id) => Ok(drivers::get(unit.conn, id).await?),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    fn second(seconds: f64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::microseconds((seconds * 1_000_000.0) as i64)
    }

    #[test]
    fn a_step_lies_between_the_step_before_and_now() {
        let of = |previous, reported, now| step_time(second(previous), Some(second(reported)), second(now));
        assert_eq!(of(5.0, 6.0, 10.0), second(6.0), "as reported");
        assert_eq!(of(6.4, 4.0, 11.0), second(6.4), "a slow phone: the step before");
        assert_eq!(of(5.0, 86_410.0, 10.0), second(10.0), "a fast phone: now");
        assert_eq!(of(5.0, -1e9, 10.0), second(5.0));
        assert_eq!(of(5.0, 6.000_9, 10.0), second(6.0), "whole milliseconds");
        assert_eq!(step_time(second(5.0), None, second(10.0)), second(10.0));
    }

    proptest! {
        #[test]
        fn steps_never_go_backwards_whatever_the_phone_says(
            steps in prop::collection::vec((0.0f64..600.0, prop::option::of(-1e9f64..1e9), any::<bool>()), 1..12),
        ) {
            let (mut now, mut previous) = (1000.0, second(1000.0));
            for (pause, error, is_near) in steps {
                now += pause;
                let reported = error.map(|error| second(now + if is_near { error / 1e7 } else { error }));
                let at = step_time(previous, reported, second(now).trunc_subsecs(3).max(previous));
                prop_assert!(at >= previous, "{} before {}", at, previous);
                prop_assert!(at <= second(now).max(previous));
                previous = at;
            }
        }
    }
}
