//! The events that the service posts to shops.

use super::*;

/// The fields that every event has.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Common {
    /// The version of this shape.
    #[schemars(range(min = 1))]
    version: u8,
    /// The event's id, also its `webhook-id`. It is the same on every attempt and replay: ignore an event that was handled.
    event_id: Id,
    /// Rises within a delivery, with gaps: ignore an event whose sequence is not above the last applied one.
    #[schemars(range(min = 1))]
    sequence: i32,
    /// The time of the change.
    timestamp: Moment,
    /// The shop of the order.
    shop: String,
    seller_order_id: ShopIdText,
    channel_id: ShopIdText,
    delivery_id: Id,
    /// The number of the attempt at the delivery, from 1.
    #[schemars(range(min = 1))]
    attempt: i32,
    #[schemars(default, with = "String")]
    order_code: Option<String>,
    #[schemars(default, with = "ShopIdText")]
    external_id: Option<ShopIdText>,
    /// The metadata as the shop sent it.
    #[schemars(default, with = "Value")]
    metadata: Option<Value>,
    #[schemars(default, with = "String")]
    tracking_url: Option<String>,
    /// The driver who has the delivery, or had it when it ended.
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

/// A failure, as it is reported to the shop.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Failure {
    code: FailureCode,
    reason: String,
    occurred_at: Moment,
}

shape! {
    /// The delivery's status after the change.
    Pending = {"const": "PENDING"};
    /// The delivery's status after the change.
    Assigned = {"const": "ASSIGNED"};
    /// The delivery's status after the change.
    PickedUp = {"const": "PICKED_UP"};
    /// The delivery's status after the change.
    Delivered = {"const": "DELIVERED"};
    /// The delivery's status after the change.
    Failed = {"const": "FAILED"};
    /// The delivery's status after the change.
    Cancelled = {"const": "CANCELLED"};
}

/// An event about a delivery. Tolerate other events and fields than these.
#[derive(JsonSchema)]
#[schemars(tag = "event", rename_all_fields = "camelCase")]
pub enum DeliveryEvent {
    /// The order is assigned to a driver.
    #[schemars(rename = "DELIVERY_ASSIGNED_V1")]
    Assigned {
        #[schemars(flatten)]
        common: Common,
        status: Assigned,
        assigned_at: Moment,
    },
    /// The order was unassigned before pickup, because the driver was lost or rejected it. The service searches again.
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
    /// The order was handed over.
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
    /// The delivery ended without a handover.
    #[schemars(rename = "DELIVERY_FAILED_V1")]
    Failed {
        #[schemars(flatten)]
        common: Common,
        status: Failed,
        failure: Failure,
    },
    /// The delivery was cancelled.
    #[schemars(rename = "DELIVERY_CANCELLED_V1")]
    Cancelled {
        #[schemars(flatten)]
        common: Common,
        status: Cancelled,
        reason: String,
        cancelled_at: Moment,
    },
}
