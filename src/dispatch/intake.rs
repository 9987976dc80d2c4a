//! Orders and cancellations from shops. Idempotency is PostgreSQL's: one delivery per shop and seller order.

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

/// What an order met.
#[derive(Debug)]
pub struct Received {
    /// The delivery as it stands.
    pub delivery: Delivery,
    /// It was seen before; nothing was changed.
    pub duplicate: bool,
    /// The fields of pickup and drop that differ from the order as it is stored; empty unless it was seen before.
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
    // Compared again under the lock.
    let differs = order.differs(&delivery.pickup, &delivery.drop);
    if differs.is_empty() {
        return Ok(Received { delivery, duplicate: true, differs });
    }
    unit.follow_last_change(&delivery);
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

/// What a cancellation met.
#[derive(Debug)]
pub enum Cancelled {
    /// The delivery is CANCELLED, now or before.
    Delivery(Box<Delivery>),
    /// The order is not known yet; it will be CANCELLED when it arrives.
    Remembered,
}

/// Calls an order off, known or not.
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
            let reason_given = Reason::of(reason.unwrap_or_default());
            lifecycle::cancel(unit, &mut delivery, &reason_given, actor).await?;
        }
    }
    Ok(Cancelled::Delivery(Box::new(delivery)))
}
