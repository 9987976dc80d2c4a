//! Placeholder until the real one is merged.
#![allow(missing_docs)]
use crate::domain::delivery::{DeliveryStatus, FailureCode};
use crate::domain::ids::*;
use chrono::{DateTime, Utc};
use serde_json::Value;
pub struct OutboundEvent {
    pub event_id: EventId, pub sequence: i32, pub timestamp: DateTime<Utc>, pub shop: String, pub seller_order_id: String,
    pub channel_id: String, pub order_code: Option<String>, pub external_id: Option<String>, pub metadata: Option<Value>,
    pub delivery_id: DeliveryId, pub status: DeliveryStatus, pub attempt: i32, pub tracking_url: Option<String>,
    pub driver: Option<EventDriver>, pub details: EventDetails,
}
pub struct EventDriver { pub id: DriverId, pub assignment_id: AssignmentId, pub name: String, pub phone: String }
pub enum EventDetails {
    Assigned { assigned_at: DateTime<Utc> },
    Unassigned { previous_driver_id: DriverId, reason: String },
    PickedUp { proof_url: Option<String>, picked_up_at: DateTime<Utc> },
    Delivered { proof_url: Option<String>, lat: Option<f64>, lon: Option<f64>, delivered_at: DateTime<Utc> },
    Failed { code: FailureCode, reason: Option<String>, occurred_at: DateTime<Utc> },
    Cancelled { reason: String, cancelled_at: DateTime<Utc> },
}
impl OutboundEvent { pub fn encode(&self) -> Vec<u8> { Vec::new() } }
