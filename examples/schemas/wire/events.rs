//! Events out.

use super::*;

/// What every event has.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Common {
    /// Of this shape.
    #[schemars(range(min = 1))]
    version: u8,
    /// The same on every attempt and replay, also the `webhook-id`: ignore one that was handled.
    event_id: Id,
    /// Rises within a delivery, with gaps: ignore one that is not above the last applied.
    #[schemars(range(min = 1))]
    sequence: i32,
    /// When the change happened.
    timestamp: Moment,
    /// Whose order it is.
    shop: String,
    seller_order_id: ShopIdText,
    channel_id: ShopIdText,
    delivery_id: Id,
    /// Which attempt at the delivery, from 1.
    #[schemars(range(min = 1))]
    attempt: i32,
    #[schemars(default, with = "String")]
    order_code: Option<String>,
    #[schemars(default, with = "ShopIdText")]
    external_id: Option<ShopIdText>,
    /// As the shop sent it.
    #[schemars(default, with = "Value")]
    metadata: Option<Value>,
    #[schemars(default, with = "String")]
    tracking_url: Option<String>,
    /// Who has the delivery, or had it when it ended.
    #[schemars(default, with = "Id")]
    driver_id: Option<Id>,
    #[schemars(default, with = "Id")]
    assignment_id: Option<Id>,
    #[schemars(default, with = "EventDriver")]
    driver: Option<EventDriver>,
}

/// The driver that an event names.
#[derive(JsonSchema)]
pub struct EventDriver {
    name: String,
    phone: String,
}

/// Why a delivery ended without being delivered.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureCode {
    DriverRejected,
    DriverOffline,
    PickupFailed,
    DeliveryFailed,
    Timeout,
    ManualCancel,
    NoDriver,
}

/// A failure, as shops are told.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Failure {
    code: FailureCode,
    reason: String,
    occurred_at: Moment,
}

shape! {
    /// The delivery's state after the change.
    Pending = {"const": "PENDING"};
    /// The same.
    Assigned = {"const": "ASSIGNED"};
    /// The same.
    PickedUp = {"const": "PICKED_UP"};
    /// The same.
    Delivered = {"const": "DELIVERED"};
    /// The same.
    Failed = {"const": "FAILED"};
    /// The same.
    Cancelled = {"const": "CANCELLED"};
}

/// What a shop is told of a delivery. Bear other events and fields than these.
#[derive(JsonSchema)]
#[schemars(tag = "event", rename_all_fields = "camelCase")]
pub enum DeliveryEvent {
    /// A driver has the order.
    #[schemars(rename = "DELIVERY_ASSIGNED_V1")]
    Assigned {
        #[schemars(flatten)]
        common: Common,
        status: Assigned,
        assigned_at: Moment,
    },
    /// The driver was lost or gave it back before pickup; the service is looking again.
    #[schemars(rename = "DELIVERY_UNASSIGNED_V1")]
    Unassigned {
        #[schemars(flatten)]
        common: Common,
        status: Pending,
        previous_driver_id: Id,
        reason: String,
    },
    /// The driver has the goods.
    #[schemars(rename = "DELIVERY_PICKED_UP_V1")]
    PickedUp {
        #[schemars(flatten)]
        common: Common,
        status: PickedUp,
        #[schemars(default, with = "String")]
        pickup_proof_url: Option<String>,
        picked_up_at: Moment,
    },
    /// Handed over.
    #[schemars(rename = "DELIVERY_DELIVERED_V1")]
    Delivered {
        #[schemars(flatten)]
        common: Common,
        status: Delivered,
        #[schemars(default, with = "String")]
        delivery_proof_url: Option<String>,
        #[schemars(default, with = "Latitude")]
        delivery_lat: Option<Latitude>,
        #[schemars(default, with = "Longitude")]
        delivery_lon: Option<Longitude>,
        delivered_at: Moment,
    },
    /// Ended without delivery.
    #[schemars(rename = "DELIVERY_FAILED_V1")]
    Failed {
        #[schemars(flatten)]
        common: Common,
        status: Failed,
        failure: Failure,
    },
    /// Called off.
    #[schemars(rename = "DELIVERY_CANCELLED_V1")]
    Cancelled {
        #[schemars(flatten)]
        common: Common,
        status: Cancelled,
        reason: String,
        cancelled_at: Moment,
    },
}
