//! The bodies of the events that go back to a shop.
//!
//! Encoding is deterministic (keys in the order of `docs/protocol.md`, the sender's metadata sorted by key), and is done once: the
//! bytes are kept and posted unchanged on every attempt. What is absent is left out, never `null`. Times are RFC 3339 in
//! UTC with milliseconds.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::domain::delivery::{DeliveryStatus, FailureCode};
use crate::domain::event::OutboundType;
use crate::domain::ids::{AssignmentId, DeliveryId, DriverId, EventId, ExternalId, ShopName};
use crate::domain::position::Position;

/// One event, whole. `status` and the event's name follow from `details`.
#[derive(Clone, PartialEq, Debug)]
pub struct OutboundEvent {
    /// The event's id, also its `webhook-id`; a replay keeps it.
    pub event_id: EventId,
    /// The audit trail's number for this delivery.
    pub sequence: i32,
    /// When the change happened.
    pub timestamp: DateTime<Utc>,
    /// Whose order it is.
    pub shop: ShopName,
    /// The shop's id of the seller order.
    pub seller_order_id: ExternalId,
    /// The shop's channel.
    pub channel_id: ExternalId,
    /// The code that people know the order by.
    pub order_code: Option<String>,
    /// The sender's own id.
    pub external_id: Option<ExternalId>,
    /// The sender's own JSON.
    pub metadata: Option<Value>,
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// Which attempt at the delivery this is, from 1.
    pub attempt: i32,
    /// Where the customer can look.
    pub tracking_url: Option<String>,
    /// Who has the delivery now, or had it when it ended.
    pub driver: Option<EventDriver>,
    /// What happened.
    pub details: OutboundDetails,
}

/// The driver that an event names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventDriver {
    /// The driver.
    pub id: DriverId,
    /// Their hold on the delivery.
    pub assignment_id: AssignmentId,
    /// Their name.
    pub name: String,
    /// Their number.
    pub phone: String,
}

/// What happened, with the fields of that event alone. Reasons are never absent: shops are promised them.
#[derive(Clone, PartialEq, Debug)]
pub enum OutboundDetails {
    /// A driver has the order.
    Assigned {
        /// Since when.
        assigned_at: DateTime<Utc>,
    },
    /// The driver was lost or gave it back before pickup; the service is looking again.
    Unassigned {
        /// Who had it.
        previous_driver_id: DriverId,
        /// Why no longer.
        reason: String,
    },
    /// The driver has the goods.
    PickedUp {
        /// A picture or signature, where there is one.
        proof_url: Option<String>,
        /// When.
        picked_up_at: DateTime<Utc>,
    },
    /// Handed over.
    Delivered {
        /// A picture or signature, where there is one.
        proof_url: Option<String>,
        /// Where, when the driver's app said so.
        position: Option<Position>,
        /// When.
        delivered_at: DateTime<Utc>,
    },
    /// Ended without delivery.
    Failed {
        /// The kind of failure.
        code: FailureCode,
        /// In words.
        reason: String,
        /// When.
        occurred_at: DateTime<Utc>,
    },
    /// Called off.
    Cancelled {
        /// Why.
        reason: String,
        /// When.
        cancelled_at: DateTime<Utc>,
    },
}

impl OutboundDetails {
    /// The event's type.
    pub fn outbound_type(&self) -> OutboundType {
        match self {
            Self::Assigned { .. } => OutboundType::Assigned,
            Self::Unassigned { .. } => OutboundType::Unassigned,
            Self::PickedUp { .. } => OutboundType::PickedUp,
            Self::Delivered { .. } => OutboundType::Delivered,
            Self::Failed { .. } => OutboundType::Failed,
            Self::Cancelled { .. } => OutboundType::Cancelled,
        }
    }

    /// The delivery's state after the change.
    pub fn status(&self) -> DeliveryStatus {
        match self {
            Self::Assigned { .. } => DeliveryStatus::Assigned,
            Self::Unassigned { .. } => DeliveryStatus::Pending,
            Self::PickedUp { .. } => DeliveryStatus::PickedUp,
            Self::Delivered { .. } => DeliveryStatus::Delivered,
            Self::Failed { .. } => DeliveryStatus::Failed,
            Self::Cancelled { .. } => DeliveryStatus::Cancelled,
        }
    }

    fn wire(&self) -> WireDetails<'_> {
        let at = |time: &DateTime<Utc>| WireTime(*time);
        match self {
            Self::Assigned { assigned_at } => WireDetails::Assigned { assigned_at: at(assigned_at) },
            Self::Unassigned { previous_driver_id, reason } => {
                WireDetails::Unassigned { previous_driver_id: *previous_driver_id, reason }
            }
            Self::PickedUp { proof_url, picked_up_at } => {
                WireDetails::PickedUp { pickup_proof_url: proof_url.as_deref(), picked_up_at: at(picked_up_at) }
            }
            Self::Delivered { proof_url, position, delivered_at } => WireDetails::Delivered {
                delivery_proof_url: proof_url.as_deref(),
                delivery_lat: position.map(|p| p.lat()),
                delivery_lon: position.map(|p| p.lon()),
                delivered_at: at(delivered_at),
            },
            Self::Failed { code, reason, occurred_at } => {
                WireDetails::Failed { failure: WireFailure { code: *code, reason, occurred_at: at(occurred_at) } }
            }
            Self::Cancelled { reason, cancelled_at } => {
                WireDetails::Cancelled { reason, cancelled_at: at(cancelled_at) }
            }
        }
    }
}

impl OutboundEvent {
    /// The body to post: the same bytes for the same event.
    #[allow(clippy::expect_used)]
    pub fn encode(&self) -> Vec<u8> {
        let driver = self.driver.as_ref();
        let wire = WireEvent {
            event: self.details.outbound_type().as_str(),
            version: 1,
            event_id: self.event_id,
            sequence: self.sequence,
            timestamp: WireTime(self.timestamp),
            shop: &self.shop,
            seller_order_id: &self.seller_order_id,
            channel_id: &self.channel_id,
            order_code: self.order_code.as_deref(),
            external_id: self.external_id.as_ref(),
            metadata: self.metadata.as_ref(),
            delivery_id: self.delivery_id,
            status: self.details.status(),
            attempt: self.attempt,
            tracking_url: self.tracking_url.as_deref(),
            driver_id: driver.map(|d| d.id),
            assignment_id: driver.map(|d| d.assignment_id),
            driver: driver.map(|d| WireDriver { name: &d.name, phone: &d.phone }),
            details: self.details.wire(),
        };
        serde_json::to_vec(&wire).expect("these types hold only string keys and plain values, which always serialize")
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireEvent<'a> {
    event: &'static str,
    version: u8,
    event_id: EventId,
    sequence: i32,
    timestamp: WireTime,
    shop: &'a ShopName,
    seller_order_id: &'a ExternalId,
    channel_id: &'a ExternalId,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'a ExternalId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Value>,
    delivery_id: DeliveryId,
    status: DeliveryStatus,
    attempt: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver_id: Option<DriverId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assignment_id: Option<AssignmentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<WireDriver<'a>>,
    #[serde(flatten)]
    details: WireDetails<'a>,
}

#[derive(Serialize)]
struct WireDriver<'a> {
    name: &'a str,
    phone: &'a str,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum WireDetails<'a> {
    Assigned {
        assigned_at: WireTime,
    },
    Unassigned {
        previous_driver_id: DriverId,
        reason: &'a str,
    },
    PickedUp {
        #[serde(skip_serializing_if = "Option::is_none")]
        pickup_proof_url: Option<&'a str>,
        picked_up_at: WireTime,
    },
    Delivered {
        #[serde(skip_serializing_if = "Option::is_none")]
        delivery_proof_url: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        delivery_lat: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        delivery_lon: Option<f64>,
        delivered_at: WireTime,
    },
    Failed {
        failure: WireFailure<'a>,
    },
    Cancelled {
        reason: &'a str,
        cancelled_at: WireTime,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireFailure<'a> {
    code: FailureCode,
    reason: &'a str,
    occurred_at: WireTime,
}

struct WireTime(DateTime<Utc>);

impl Serialize for WireTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
