//! Builds the frames to drivers, and the JSON objects that HTTP shares with them.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::inbound::{FrameError, Subject};
use crate::dispatch::session::DriverSnapshot;
use crate::domain::ids::SessionId;
use crate::domain::order::Stop;
use crate::store::commands::{Command, CommandKind};
use crate::store::deliveries::Delivery;
use crate::store::drivers::DriverChanged;

/// The heartbeat interval of a driver's app, and how long silence is tolerated.
#[derive(Debug, Clone, Copy)]
pub struct HeartbeatInterval {
    /// Between heartbeats, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// The time after which a silent driver gets no orders, in milliseconds.
    pub ttl_ms: u64,
}

/// RFC 3339 in UTC with milliseconds.
pub fn moment(time: DateTime<Utc>) -> Value {
    Value::String(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Sets `name` if there is a value. Unknown values are left out.
pub fn put(object: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object[name] = value.into();
    }
}

/// A pickup or a drop.
pub fn stop(stop: &Stop) -> Value {
    let mut value = json!({"lat": stop.position.lat(), "lon": stop.position.lon()});
    let details = &stop.details;
    put(&mut value, "address", details.address.clone());
    put(&mut value, "contactName", details.contact_name.clone());
    put(&mut value, "phone", details.phone.clone());
    put(&mut value, "notes", details.notes.clone());
    value
}

/// A delivery as its driver sees it.
pub fn delivery(delivery: &Delivery) -> Value {
    let mut value = json!({
        "id": delivery.id, "status": delivery.status, "sellerOrderId": delivery.seller_order_id,
        "pickup": stop(&delivery.pickup), "drop": stop(&delivery.drop),
    });
    put(&mut value, "assignmentId", delivery.assignment_id.map(|id| id.to_string()));
    put(&mut value, "orderCode", delivery.order_code.clone());
    put(&mut value, "items", delivery.items.clone());
    put(&mut value, "readyAt", delivery.ready_at.map(moment));
    put(&mut value, "metadata", delivery.metadata.clone());
    value
}

/// The whole state of a driver: the first frame of a session, and the body of `GET /api/v1/driver/state`.
pub fn welcome(
    session: Option<SessionId>,
    snapshot: &DriverSnapshot,
    interval: HeartbeatInterval,
    now: DateTime<Utc>,
) -> Value {
    let driver = &snapshot.driver;
    let mut value = json!({
        "type": "welcome",
        "driver": {
            "id": driver.id, "name": driver.name, "status": driver.status, "onDuty": driver.state.on_duty,
            "capacity": driver.state.capacity,
        },
        "deliveries": snapshot.deliveries.iter().map(delivery).collect::<Vec<_>>(),
        "offers": [],
        "heartbeatIntervalMs": interval.heartbeat_interval_ms, "ttlMs": interval.ttl_ms, "serverTime": moment(now),
    });
    put(&mut value, "sessionId", session.map(|id| id.to_string()));
    value
}

/// Every heartbeat up to `seq` is processed. Returned as text, because almost every heartbeat gets one.
pub fn ack(seq: i64) -> String {
    format!(r#"{{"type":"ack","seq":{seq}}}"#)
}

/// The success answer to a frame, with its fields.
pub fn ok(reference: Option<&str>, fields: Value) -> Value {
    let mut value = fields;
    value["type"] = json!("ok");
    put(&mut value, "ref", reference);
    value
}

/// The error answer to a frame.
pub fn error(error: &FrameError, now: DateTime<Utc>) -> Value {
    let retryable = matches!(error.code, "unavailable" | "rate_limited");
    let mut value = json!({"type": "error", "code": error.code, "message": error.message, "retryable": retryable});
    put(&mut value, "ref", error.reference.clone());
    put(&mut value, "seq", error.seq);
    if let Some(Subject::Delivery(id)) = error.subject {
        value["deliveryId"] = json!(id);
    }
    if retryable {
        value["retryAfterMs"] = json!(1000);
    }
    if needs_server_time(error.code) {
        value["serverTime"] = moment(now);
    }
    value
}

/// Whether a refusal concerns the device's clock, so that the answer carries the server's time.
pub fn needs_server_time(code: &str) -> bool {
    matches!(code, "fix_in_future" | "fix_too_old")
}

/// A command that is repeated until acknowledged.
pub fn command(command: &Command) -> Value {
    match command.kind {
        CommandKind::Assignment | CommandKind::Delivery => {
            let mut inner = delivery(&command.delivery);
            inner["assignmentId"] = json!(command.assignment_id);
            json!({"type": command.kind.as_str(), "messageId": command.message_id, "delivery": inner})
        }
        CommandKind::AssignmentCancelled => json!({
            "type": command.kind.as_str(), "messageId": command.message_id, "deliveryId": command.delivery.id,
            "assignmentId": command.assignment_id, "reason": command.reason.as_deref().unwrap_or("unspecified"),
        }),
    }
}

/// A change of state that the driver did not request.
pub fn status(changed: &DriverChanged, reason: &str) -> Value {
    json!({"type": "status", "status": changed.status, "onDuty": changed.on_duty, "reason": reason})
}

/// The new heartbeat interval.
pub fn config(interval: HeartbeatInterval) -> Value {
    json!({"type": "config", "heartbeatIntervalMs": interval.heartbeat_interval_ms, "ttlMs": interval.ttl_ms})
}

/// Sent just before the service restarts.
pub fn reconnect(after_ms: u64) -> Value {
    json!({"type": "reconnect", "afterMs": after_ms})
}
