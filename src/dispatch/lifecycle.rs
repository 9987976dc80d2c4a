//! The state changes of a delivery: assign, unassign, fail, cancel, retry.
//!
//! - Every function writes the whole change: state, assignment, driver, audit trail, outbox, command.
//! - Every function takes a delivery whose row is locked. It locks the driver's row after the delivery's row.
//! - A function that returns a refusal has changed nothing.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{DispatchError, Unit};
use crate::domain::delivery::{DeliveryAction, FailureCode};
use crate::domain::driver::DriverChange;
use crate::domain::event::{Actor, AuditType};
use crate::domain::ids::{AssignmentId, DriverId, EventId, ExternalId, ShopName};
use crate::store::assignments::{self, EndedAs, NewAssignment};
use crate::store::commands::{self, CommandKind};
use crate::store::deliveries::{self, Delivery};
use crate::store::drivers::{self, Driver};
use crate::store::outbox::{self, NewEvent};
use crate::store::{StoreError, audit, shops};
use crate::webhooks::event::{EventDriver, OutboundDetails, OutboundEvent};

/// Why something ended, in the words of its actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Never empty.
    pub reason: String,
}

impl Reason {
    /// The trimmed text, or `unspecified` if the text is empty.
    pub fn of(reason: &str) -> Self {
        let reason = reason.trim();
        Self { reason: if reason.is_empty() { "unspecified".to_owned() } else { reason.to_owned() } }
    }
}

/// A failure as events and REST show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind of failure.
    pub code: FailureCode,
    /// The reason in words.
    pub reason: Option<String>,
    /// When the delivery failed.
    pub occurred_at: DateTime<Utc>,
}

impl Failure {
    fn to_json(&self) -> Value {
        let mut value = json!({"code": self.code, "occurredAt": self.occurred_at});
        if let Some(reason) = &self.reason {
            value["reason"] = json!(reason);
        }
        value
    }
}

/// Why the order is assigned to this driver.
#[derive(Debug, Clone, Copy)]
pub enum AssignmentReason<'r> {
    /// The nearest free driver; the distance to the pickup in metres.
    Nearest {
        /// Distance of the driver to the pickup, in metres.
        distance_m: f64,
    },
    /// An operator chose the driver.
    Chosen {
        /// The operator's reason.
        reason: &'r str,
    },
}

impl AssignmentReason<'_> {
    fn distance_m(&self) -> Option<f64> {
        match self {
            Self::Nearest { distance_m } => Some(*distance_m),
            Self::Chosen { .. } => None,
        }
    }
}

/// Gives a waiting delivery to a driver whose row is locked.
#[tracing::instrument(level = "trace", skip_all)]
pub async fn assign(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    driver: &Driver,
    grounds: AssignmentReason<'_>,
    actor: &Actor,
) -> Result<(), DispatchError> {
    unit.advance_to_last_change(delivery);
    let status = delivery.status.transition(DeliveryAction::Assign)?;
    let state = driver.state.transition(DriverChange::Take)?;
    let assignment = AssignmentId::new();
    delivery.status = status;
    delivery.driver_id = Some(driver.id);
    delivery.assignment_id = Some(assignment);
    delivery.assigned_at = Some(unit.now);
    delivery.search_rounds = 0;
    let new = NewAssignment {
        id: assignment,
        delivery_id: delivery.id,
        driver_id: driver.id,
        attempt: delivery.attempt,
        distance_m: grounds.distance_m(),
        at: unit.now,
    };
    assignments::insert(unit.conn, &new).await?;
    let changed = drivers::apply(unit.conn, driver.id, state, "assigned", actor).await?;
    unit.effects.drivers.push(changed);
    deliveries::update_state(unit.conn, delivery).await?;
    commands::insert(unit.conn, driver.id, CommandKind::Assignment, delivery.id, assignment, None).await?;
    unit.effects.commands.push(driver.id);
    unit.effects.resolved.push(delivery.id);
    let mut data = json!({"driverId": driver.id, "assignmentId": assignment, "attempt": delivery.attempt});
    match grounds {
        AssignmentReason::Nearest { distance_m } => data["distanceM"] = json!(distance_m.round()),
        AssignmentReason::Chosen { reason } => data["reason"] = json!(reason),
    }
    let details = OutboundDetails::Assigned { assigned_at: unit.now };
    record(unit, delivery, AuditType::Assigned, actor, data, Some(driver), Some(details)).await
}

/// Unassigns a delivery: it waits again. The driver gets a command unless they rejected it themselves.
pub async fn unassign(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    end_reason: &Reason,
    ended_as: EndedAs,
    actor: &Actor,
) -> Result<(), DispatchError> {
    unit.advance_to_last_change(delivery);
    let status = delivery.status.transition(DeliveryAction::TakeBack)?;
    let driver = release(unit, delivery, ended_as, "delivery taken back", actor).await?;
    let previous = driver.id;
    if ended_as != EndedAs::Rejected {
        tell_cancelled(unit, delivery, previous, end_reason).await?;
    }
    let data = json!({
        "previousDriverId": previous, "assignmentId": delivery.assignment_id, "reason": end_reason.reason,
        "attempt": delivery.attempt,
    });
    delivery.status = status;
    delivery.attempt += 1;
    delivery.driver_id = None;
    delivery.assignment_id = None;
    delivery.assigned_at = None;
    deliveries::update_state(unit.conn, delivery).await?;
    unit.effects.waiting.push(delivery.region);
    let details = OutboundDetails::Unassigned { previous_driver_id: previous, reason: end_reason.reason.clone() };
    record(unit, delivery, AuditType::Unassigned, actor, data, None, Some(details)).await
}

/// Ends a delivery as FAILED and frees the driver's slot. `data` is written to the audit trail together with the failure.
pub async fn fail(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    failure: &Failure,
    mut data: Value,
    actor: &Actor,
) -> Result<(), DispatchError> {
    unit.advance_to_last_change(delivery);
    let status = delivery.status.transition(DeliveryAction::Fail)?;
    let driver = release(unit, delivery, EndedAs::Failed, "delivery failed", actor).await?;
    if *actor != Actor::Driver(driver.id.0) {
        tell_cancelled(unit, delivery, driver.id, &Reason::of(failure.reason.as_deref().unwrap_or("failed"))).await?;
    }
    delivery.status = status;
    delivery.failure = Some(failure.to_json());
    deliveries::update_state(unit.conn, delivery).await?;
    unit.effects.resolved.push(delivery.id);
    data["failure"] = failure.to_json();
    data["driverId"] = json!(driver.id);
    let details = OutboundDetails::Failed {
        code: failure.code,
        reason: failure.reason.clone().unwrap_or_else(|| "unspecified".to_owned()),
        occurred_at: failure.occurred_at,
    };
    record(unit, delivery, AuditType::Failed, actor, data, Some(&driver), Some(details)).await
}

/// Cancels a delivery and frees the slot of its driver, if it has one.
pub async fn cancel(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    end_reason: &Reason,
    actor: &Actor,
) -> Result<(), DispatchError> {
    unit.advance_to_last_change(delivery);
    let status = delivery.status.transition(DeliveryAction::Cancel)?;
    let mut driver = None;
    if delivery.status.holds_driver() {
        let freed = release(unit, delivery, EndedAs::Cancelled, "delivery cancelled", actor).await?;
        tell_cancelled(unit, delivery, freed.id, end_reason).await?;
        driver = Some(freed);
    }
    delivery.status = status;
    delivery.cancelled_at = Some(unit.now);
    deliveries::update_state(unit.conn, delivery).await?;
    unit.effects.resolved.push(delivery.id);
    let data = json!({"reason": end_reason.reason});
    let details = OutboundDetails::Cancelled { reason: end_reason.reason.clone(), cancelled_at: unit.now };
    record(unit, delivery, AuditType::Cancelled, actor, data, driver.as_ref(), Some(details)).await
}

/// Returns a failed or cancelled delivery to PENDING, as a new attempt.
pub async fn retry(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    end_reason: &Reason,
    actor: &Actor,
) -> Result<(), DispatchError> {
    unit.advance_to_last_change(delivery);
    delivery.status = delivery.status.transition(DeliveryAction::Retry)?;
    delivery.attempt += 1;
    delivery.driver_id = None;
    delivery.assignment_id = None;
    delivery.assigned_at = None;
    delivery.picked_up_at = None;
    delivery.cancelled_at = None;
    delivery.failure = None;
    delivery.search_rounds = 0;
    deliveries::update_state(unit.conn, delivery).await?;
    unit.effects.waiting.push(delivery.region);
    let data = json!({"reason": end_reason.reason, "attempt": delivery.attempt});
    record(unit, delivery, AuditType::Retried, actor, data, None, None).await
}

/// Locks the driver of a delivery, ends the assignment and frees the driver's slot.
pub(super) async fn release(
    unit: &mut Unit<'_>,
    delivery: &Delivery,
    ended_as: EndedAs,
    reason: &str,
    actor: &Actor,
) -> Result<Driver, DispatchError> {
    let corrupt = || StoreError::Corrupt(format!("delivery {} is held by nobody", delivery.id));
    let (driver, assignment) = delivery.driver_id.zip(delivery.assignment_id).ok_or_else(corrupt)?;
    let driver = drivers::lock(unit.conn, driver).await?.ok_or_else(corrupt)?;
    let state = driver.state.transition(DriverChange::Release)?;
    assignments::end(unit.conn, assignment, ended_as, unit.now).await?;
    let changed = drivers::apply(unit.conn, driver.id, state, reason, actor).await?;
    unit.effects.drivers.push(changed);
    Ok(driver)
}

async fn tell_cancelled(
    unit: &mut Unit<'_>,
    delivery: &Delivery,
    driver: DriverId,
    end_reason: &Reason,
) -> Result<(), DispatchError> {
    if let Some(assignment) = delivery.assignment_id {
        let kind = CommandKind::AssignmentCancelled;
        commands::insert(unit.conn, driver, kind, delivery.id, assignment, Some(&end_reason.reason)).await?;
        unit.effects.commands.push(driver);
    }
    Ok(())
}

/// Appends a row to the audit trail, and the event for the shop to the outbox.
pub(super) async fn record(
    unit: &mut Unit<'_>,
    delivery: &Delivery,
    kind: AuditType,
    actor: &Actor,
    data: Value,
    driver: Option<&Driver>,
    details: Option<OutboundDetails>,
) -> Result<(), DispatchError> {
    let sequence = audit::append(unit.conn, delivery.id, kind, unit.now, actor, &data)
        .await?
        .ok_or_else(|| StoreError::Corrupt(format!("the trail of delivery {} was not extended", delivery.id)))?;
    let (Some(outbound), Some(details)) = (kind.outbound(), details) else { return Ok(()) };
    let is_configured = delivery.shop == ShopName::vendure().as_str();
    let announces = if is_configured {
        unit.settings.announces_configured_shop
    } else {
        shops::has_url(unit.conn, &delivery.shop).await?
    };
    if !announces {
        return Ok(());
    }
    let event_id = EventId::new();
    let event = OutboundEvent {
        event_id,
        sequence,
        timestamp: unit.now,
        shop: ShopName::parse(&delivery.shop).ok_or_else(|| StoreError::corrupt("a shop's name"))?,
        seller_order_id: ExternalId::parse(&delivery.seller_order_id).map_err(StoreError::corrupt)?,
        channel_id: ExternalId::parse(&delivery.channel_id).map_err(StoreError::corrupt)?,
        order_code: delivery.order_code.clone(),
        external_id: delivery.external_id.as_deref().map(ExternalId::parse).transpose().map_err(StoreError::corrupt)?,
        metadata: delivery.metadata.clone(),
        delivery_id: delivery.id,
        attempt: delivery.attempt,
        tracking_url: None,
        driver: driver.zip(delivery.assignment_id).map(|(driver, assignment_id)| EventDriver {
            id: driver.id,
            assignment_id,
            name: driver.name.clone(),
            phone: driver.phone.clone(),
        }),
        details,
    };
    let new = NewEvent {
        event_id,
        delivery_id: delivery.id,
        shop: delivery.shop.clone(),
        sequence,
        kind: outbound,
        body: event.encode(),
        first_delay_s: unit.settings.first_delay_s,
    };
    outbox::insert(unit.conn, &new).await?;
    unit.effects.outbox = true;
    Ok(())
}
