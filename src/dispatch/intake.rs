//! Orders and cancellations that shops send.
//!
//! - A shop's seller order becomes one delivery. A unique constraint of PostgreSQL makes repeats idempotent.
//! - A repeat never changes the stored order. A repeat with other values is recorded as a conflict.
//! - A cancellation may arrive before its order. It is stored until the order arrives.

use serde_json::json;

use super::lifecycle::{self, Reason};
use super::{DispatchError, Unit};
use crate::domain::delivery::DeliveryStatus;
use crate::domain::event::{Actor, AuditType};
use crate::domain::ids::{ExternalId, ShopName};
use crate::domain::order::NewOrder;
use crate::domain::region::Region;
use crate::store::deliveries::{self, Delivery};
use crate::store::{StoreError, audit, early_cancellations};

/// The outcome of an order.
#[derive(Debug)]
pub struct Received {
    /// The delivery as it is stored.
    pub delivery: Delivery,
    /// Whether the shop sent this order before. The stored order is unchanged then.
    pub duplicate: bool,
    /// Paths of the pickup and drop fields that differ from the stored order. Empty for a new order.
    pub differs: Vec<String>,
}

/// Takes an order in: a new delivery that waits, or the one that exists.
#[tracing::instrument(level = "trace", skip_all)]
pub async fn receive_order(
    unit: &mut Unit<'_>,
    shop: &ShopName,
    order: &NewOrder,
    body_hash: &[u8],
    actor: &Actor,
) -> Result<Received, DispatchError> {
    let region = Region::of(&order.pickup.position, unit.settings.resolution);
    match deliveries::insert(unit.conn, shop, order, region).await? {
        Some(mut delivery) => {
            let data = json!({"bodyHash": hex::encode(body_hash)});
            audit::append(unit.conn, delivery.id, AuditType::Created, unit.now, actor, &data).await?;
            let cancelled = early_cancellations::take(unit.conn, shop, order.seller_order_id.as_str()).await?;
            if let Some(reason) = cancelled {
                lifecycle::cancel(unit, &mut delivery, &Reason::of(&reason), actor).await?;
            } else {
                unit.effects.waiting.push(region);
            }
            Ok(Received { delivery, duplicate: false, differs: Vec::new() })
        }
        None => seen_before(unit, shop, order, body_hash, actor).await,
    }
}

async fn seen_before(
    unit: &mut Unit<'_>,
    shop: &ShopName,
    order: &NewOrder,
    body_hash: &[u8],
    actor: &Actor,
) -> Result<Received, DispatchError> {
    let id = order.seller_order_id.as_str();
    let missing = || StoreError::Corrupt("an order that exists cannot be read".to_owned());
    let delivery = deliveries::get_by_order(unit.conn, shop, id).await?.ok_or_else(missing)?;
    if order.differs(&delivery.pickup, &delivery.drop).is_empty() {
        return Ok(Received { delivery, duplicate: true, differs: Vec::new() });
    }
    let delivery = deliveries::lock(unit.conn, delivery.id).await?.ok_or_else(missing)?;
    // Another transaction may have changed the delivery before the lock, so the values are compared again.
    let differs = order.differs(&delivery.pickup, &delivery.drop);
    if differs.is_empty() {
        return Ok(Received { delivery, duplicate: true, differs });
    }
    unit.advance_to_last_change(&delivery);
    let mut data = json!({"bodyHash": hex::encode(body_hash), "differs": differs});
    if order.pickup.position != delivery.pickup.position || order.drop.position != delivery.drop.position {
        data["pickup"] = json!(order.pickup.position);
        data["drop"] = json!(order.drop.position);
    }
    let new = audit::append(unit.conn, delivery.id, AuditType::Conflict, unit.now, actor, &data).await?;
    tracing::warn!(
        delivery.id = %delivery.id, shop = %shop, first_time = new.is_some(), differs = %differs.join(", "),
        "an order came again with other values; the stored ones hold"
    );
    Ok(Received { delivery, duplicate: true, differs })
}

/// The outcome of a cancellation.
#[derive(Debug)]
pub enum Cancelled {
    /// The delivery is CANCELLED, by this request or an earlier one.
    Delivery(Box<Delivery>),
    /// The order did not arrive yet. It becomes CANCELLED when it arrives.
    Remembered,
}

/// Cancels a shop's order, also one that did not arrive yet.
pub async fn receive_cancellation(
    unit: &mut Unit<'_>,
    shop: &ShopName,
    seller_order_id: &ExternalId,
    channel_id: &ExternalId,
    reason: Option<&str>,
    actor: &Actor,
) -> Result<Cancelled, DispatchError> {
    deliveries::take_turn(unit.conn, shop, seller_order_id.as_str()).await?;
    let found = deliveries::lock_by_order(unit.conn, shop, seller_order_id.as_str()).await?;
    let Some(mut delivery) = found else {
        early_cancellations::remember(unit.conn, shop, seller_order_id.as_str(), channel_id.as_str(), reason).await?;
        return Ok(Cancelled::Remembered);
    };
    match delivery.status {
        DeliveryStatus::Cancelled => {}
        DeliveryStatus::Delivered | DeliveryStatus::Failed => {
            return Err(DispatchError::AlreadyTerminal(delivery.status));
        }
        _ => {
            let end_reason = Reason::of(reason.unwrap_or_default());
            lifecycle::cancel(unit, &mut delivery, &end_reason, actor).await?;
        }
    }
    Ok(Cancelled::Delivery(Box::new(delivery)))
}
