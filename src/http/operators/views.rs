//! The JSON objects of the API. Unknown values are left out.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::domain::ids::DeliveryId;
use crate::domain::position::Fix;
use crate::http::operators::last_known_location::LastKnownLocation;
use crate::protocol::outbound::{moment, put, stop};
use crate::store::audit::AuditRow;
use crate::store::credentials::TokenRow;
use crate::store::deliveries::Delivery;
use crate::store::drivers::Driver;
use crate::store::outbox::{AttemptRow, EventRow};
use crate::store::shops::{SecretRow, ShopRow};

/// A driver's position, and the age of the fix by the server's clock.
pub fn position(fix: &Fix, now: DateTime<Utc>) -> Value {
    let age_ms = (now - fix.time).num_milliseconds().max(0);
    json!({
        "lat": fix.position.lat(), "lon": fix.position.lon(), "fixTime": moment(fix.time), "ageMs": age_ms,
    })
}

/// A driver, with the last known location and the active deliveries.
pub fn driver(driver: &Driver, place: &LastKnownLocation, active: &[DeliveryId], now: DateTime<Utc>) -> Value {
    let state = &driver.state;
    let mut value = json!({
        "id": driver.id, "name": driver.name, "phone": driver.phone, "status": driver.status,
        "onDuty": state.on_duty, "capacity": state.capacity, "active": state.active, "online": place.online,
        "activeDeliveryIds": active,
        "createdAt": moment(driver.created_at), "updatedAt": moment(driver.updated_at),
    });
    put(&mut value, "position", place.fix.as_ref().map(|fix| position(fix, now)));
    put(&mut value, "externalId", driver.external_id.clone());
    put(&mut value, "metadata", driver.metadata.clone());
    value
}

/// A delivery as operators and shops see it.
pub fn delivery(delivery: &Delivery) -> Value {
    let mut value = json!({
        "id": delivery.id, "shop": delivery.shop, "sellerOrderId": delivery.seller_order_id,
        "channelId": delivery.channel_id, "status": delivery.status, "attempt": delivery.attempt,
        "pickup": stop(&delivery.pickup), "drop": stop(&delivery.drop),
        "createdAt": moment(delivery.created_at), "updatedAt": moment(delivery.updated_at),
    });
    put(&mut value, "orderCode", delivery.order_code.clone());
    put(&mut value, "items", delivery.items.clone());
    put(&mut value, "readyAt", delivery.ready_at.map(moment));
    put(&mut value, "driverId", delivery.driver_id.map(|id| id.to_string()));
    put(&mut value, "assignmentId", delivery.assignment_id.map(|id| id.to_string()));
    put(&mut value, "assignedAt", delivery.assigned_at.map(moment));
    put(&mut value, "pickedUpAt", delivery.picked_up_at.map(moment));
    put(&mut value, "deliveredAt", delivery.delivered_at.map(moment));
    put(&mut value, "cancelledAt", delivery.cancelled_at.map(moment));
    put(&mut value, "failure", delivery.failure.clone());
    put(&mut value, "externalId", delivery.external_id.clone());
    put(&mut value, "metadata", delivery.metadata.clone());
    value
}

/// A row of a delivery's audit trail.
pub fn event(row: &AuditRow) -> Value {
    let mut actor = json!({"kind": row.actor_kind});
    put(&mut actor, "id", row.actor_id.clone());
    json!({
        "sequence": row.sequence, "type": row.kind, "at": moment(row.at), "actor": actor, "data": row.data,
    })
}

/// An outbound event to a shop, with its attempts.
pub fn outbound_event(row: &EventRow, attempts: &[AttemptRow]) -> Value {
    let tries: Vec<Value> = attempts.iter().filter(|try_| try_.event_id == row.event_id).map(attempt).collect();
    let mut value = json!({
        "id": row.event_id, "type": row.kind, "deliveryId": row.delivery_id, "shop": row.shop,
        "sequence": row.sequence, "state": row.state, "attempts": tries, "createdAt": moment(row.created_at),
    });
    put(&mut value, "nextAttemptAt", (row.state == "pending").then(|| moment(row.next_try_at)));
    value
}

fn attempt(row: &AttemptRow) -> Value {
    let mut value = json!({"at": moment(row.at)});
    put(&mut value, "status", row.status);
    put(&mut value, "error", row.error.clone());
    value
}

/// A driver's token in a list. The token itself is never shown.
pub fn token(row: &TokenRow) -> Value {
    let mut value = json!({"tokenId": row.id, "createdAt": moment(row.created_at)});
    put(&mut value, "revokedAt", row.revoked_at.map(moment));
    value
}

/// A shop. Of its secrets only public fields are shown.
pub fn shop(row: &ShopRow, secrets: &[SecretRow]) -> Value {
    let mut endpoint = json!({"enabled": row.enabled});
    put(&mut endpoint, "url", row.url.clone());
    put(&mut endpoint, "disabledAt", row.disabled_at.map(moment));
    put(&mut endpoint, "reason", row.reason.clone());
    let own: Vec<Value> = secrets.iter().filter(|secret| secret.shop == row.name).map(secret).collect();
    let mut value = json!({
        "name": row.name, "endpoint": endpoint, "secrets": own,
        "createdAt": moment(row.created_at), "updatedAt": moment(row.updated_at),
    });
    put(&mut value, "ordersPerSecond", row.orders_per_second);
    value
}

fn secret(row: &SecretRow) -> Value {
    let mut value = json!({"secretId": row.id, "direction": row.direction, "createdAt": moment(row.created_at)});
    put(&mut value, "expiresAt", row.expires_at.map(moment));
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Position;
    use uuid::Uuid;

    #[test]
    fn a_fix_from_the_future_is_not_younger_than_now() {
        let now: DateTime<Utc> = "2026-01-27T10:00:00Z".parse().unwrap();
        let fix = |seconds| Fix {
            position: Position::new(1.0, 2.0).unwrap(),
            time: now + chrono::TimeDelta::seconds(seconds),
        };
        assert_eq!(position(&fix(-3), now)["ageMs"], 3000);
        assert_eq!(position(&fix(3), now)["ageMs"], 0);
    }

    #[test]
    fn an_event_shows_its_own_tries_and_when_it_is_due_while_pending() {
        let now: DateTime<Utc> = "2026-01-27T10:00:00Z".parse().unwrap();
        let row = |state: &str| EventRow {
            event_id: Uuid::from_u128(1),
            kind: "DELIVERY_ASSIGNED_V1".to_owned(),
            delivery_id: Uuid::from_u128(2),
            shop: "vendure".to_owned(),
            sequence: 2,
            state: state.to_owned(),
            next_try_at: now,
            created_at: now,
        };
        let tries =
            [1u128, 9].map(|id| AttemptRow { event_id: Uuid::from_u128(id), at: now, status: Some(500), error: None });
        let pending = outbound_event(&row("pending"), &tries);
        assert_eq!(pending["nextAttemptAt"], "2026-01-27T10:00:00.000Z");
        assert_eq!(pending["attempts"], json!([{"at": "2026-01-27T10:00:00.000Z", "status": 500}]));
        assert!(outbound_event(&row("dead"), &tries).get("nextAttemptAt").is_none());
    }
}
