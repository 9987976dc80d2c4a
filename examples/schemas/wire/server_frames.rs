//! The frames that the service sends to drivers.

use super::*;

/// The status of a driver.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DriverStatus {
    Available,
    Busy,
    Offline,
}

/// The status of a delivery.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeliveryStatus {
    Pending,
    Assigned,
    PickedUp,
    InTransit,
    Delivered,
    Failed,
    Cancelled,
}

/// The driver of the session.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Driver {
    id: Id,
    name: String,
    status: DriverStatus,
    on_duty: bool,
    capacity: u32,
}

/// A delivery as its driver gets it.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Delivery {
    id: Id,
    status: DeliveryStatus,
    seller_order_id: ShopIdText,
    pickup: Stop<Phone>,
    drop: Stop<Phone>,
    #[schemars(default, with = "Id")]
    assignment_id: Option<Id>,
    #[schemars(default, with = "String")]
    order_code: Option<String>,
    #[schemars(default, with = "Vec<Item<Code>>")]
    items: Option<Vec<Item<Code>>>,
    #[schemars(default, with = "Moment")]
    ready_at: Option<Moment>,
    #[schemars(default, with = "Value")]
    metadata: Option<Value>,
}

/// A fix of a batch that was refused.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct RefusedFix {
    index: u32,
    code: String,
    /// Present with `fix_in_future` and `fix_too_old`.
    #[schemars(default, with = "Moment")]
    server_time: Option<Moment>,
}

/// A frame from the service to a driver. Tolerate other types and fields than these.
#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all_fields = "camelCase")]
pub enum ServerFrame {
    /// The whole state. It is always the first frame.
    #[schemars(rename = "welcome")]
    Welcome {
        session_id: Id,
        driver: Driver,
        /// The driver's open deliveries.
        deliveries: Vec<Delivery>,
        /// The open offers. There are none yet.
        offers: Vec<Value>,
        heartbeat_interval_ms: u64,
        ttl_ms: u64,
        server_time: Moment,
    },
    /// Acknowledges every heartbeat up to this one.
    #[schemars(rename = "ack")]
    Ack { seq: i64 },
    /// The answer to a frame that was carried out.
    #[schemars(rename = "ok")]
    Ok {
        #[schemars(default, with = "String")]
        r#ref: Option<String>,
        /// Present in the answer to a batch.
        #[schemars(default, with = "u32")]
        accepted: Option<u32>,
        /// Present in the answer to a batch.
        #[schemars(default, with = "Vec<RefusedFix>")]
        refused: Option<Vec<RefusedFix>>,
        /// The status of the driver or the delivery.
        #[schemars(default, with = "String")]
        status: Option<String>,
        #[schemars(default, with = "bool")]
        on_duty: Option<bool>,
        /// The outcome of an offer.
        #[schemars(default, with = "String")]
        outcome: Option<String>,
        /// The names of fields that were ignored because they are invalid. The rest of the frame was carried out.
        #[schemars(default, with = "Vec<String>")]
        ignored: Option<Vec<String>>,
    },
    /// Reports what is wrong with a frame.
    #[schemars(rename = "error")]
    Error {
        #[schemars(default, with = "String")]
        r#ref: Option<String>,
        #[schemars(default, with = "i64")]
        seq: Option<i64>,
        #[schemars(default, with = "Id")]
        delivery_id: Option<Id>,
        code: String,
        /// A text for people.
        message: String,
        retryable: bool,
        #[schemars(default, with = "u64")]
        retry_after_ms: Option<u64>,
        #[schemars(default, with = "Moment")]
        server_time: Option<Moment>,
    },
    /// An order is assigned to the driver.
    #[schemars(rename = "assignment")]
    Assignment { message_id: Id, delivery: Delivery },
    /// An order is unassigned from the driver.
    #[schemars(rename = "assignment.cancelled")]
    AssignmentCancelled { message_id: Id, delivery_id: Id, assignment_id: Id, reason: String },
    /// An operator changed a delivery of the driver.
    #[schemars(rename = "delivery")]
    Delivery { message_id: Id, delivery: Delivery },
    /// The driver's duty changed without a request of the driver.
    #[schemars(rename = "status")]
    Status { status: DriverStatus, on_duty: bool, reason: String },
    /// The heartbeat interval and the time to live changed.
    #[schemars(rename = "config")]
    Config { heartbeat_interval_ms: u64, ttl_ms: u64 },
    /// The service restarts. Reconnect this long after the close.
    #[schemars(rename = "reconnect")]
    Reconnect { after_ms: u64 },
}
