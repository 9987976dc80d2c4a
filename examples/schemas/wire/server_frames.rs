//! Frames to drivers.

use super::*;

/// A driver, or how they stand.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DriverStatus {
    Available,
    Busy,
    Offline,
}

/// A delivery's state.
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

/// Whose session it is.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Driver {
    id: Id,
    name: String,
    status: DriverStatus,
    on_duty: bool,
    capacity: u32,
}

/// A delivery as its driver sees it.
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

/// A fix of a batch that was not taken.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct RefusedFix {
    index: u32,
    code: String,
    /// With `fix_in_future` and `fix_too_old`.
    #[schemars(default, with = "Moment")]
    server_time: Option<Moment>,
}

/// A frame from the service to a driver. Bear other types and fields than these.
#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all_fields = "camelCase")]
pub enum ServerFrame {
    /// The whole state: always the first frame.
    #[schemars(rename = "welcome")]
    Welcome {
        session_id: Id,
        driver: Driver,
        /// Those under way.
        deliveries: Vec<Delivery>,
        /// Those open; none yet.
        offers: Vec<Value>,
        heartbeat_interval_ms: u64,
        ttl_ms: u64,
        server_time: Moment,
    },
    /// Every heartbeat up to this one is dealt with.
    #[schemars(rename = "ack")]
    Ack { seq: i64 },
    /// The answer to a frame that was carried out.
    #[schemars(rename = "ok")]
    Ok {
        #[schemars(default, with = "String")]
        r#ref: Option<String>,
        /// Of a batch.
        #[schemars(default, with = "u32")]
        accepted: Option<u32>,
        /// Of a batch.
        #[schemars(default, with = "Vec<RefusedFix>")]
        refused: Option<Vec<RefusedFix>>,
        /// Of the driver or the delivery.
        #[schemars(default, with = "String")]
        status: Option<String>,
        #[schemars(default, with = "bool")]
        on_duty: Option<bool>,
        /// Of an offer.
        #[schemars(default, with = "String")]
        outcome: Option<String>,
        /// The names of fields that were left out, since they could not be taken; the rest of the frame was carried out.
        #[schemars(default, with = "Vec<String>")]
        ignored: Option<Vec<String>>,
    },
    /// What was wrong with which frame.
    #[schemars(rename = "error")]
    Error {
        #[schemars(default, with = "String")]
        r#ref: Option<String>,
        #[schemars(default, with = "i64")]
        seq: Option<i64>,
        #[schemars(default, with = "Id")]
        delivery_id: Option<Id>,
        code: String,
        /// For people.
        message: String,
        retryable: bool,
        #[schemars(default, with = "u64")]
        retry_after_ms: Option<u64>,
        #[schemars(default, with = "Moment")]
        server_time: Option<Moment>,
    },
    /// This order is yours.
    #[schemars(rename = "assignment")]
    Assignment { message_id: Id, delivery: Delivery },
    /// It is yours no more.
    #[schemars(rename = "assignment.cancelled")]
    AssignmentCancelled { message_id: Id, delivery_id: Id, assignment_id: Id, reason: String },
    /// An operator changed it.
    #[schemars(rename = "delivery")]
    Delivery { message_id: Id, delivery: Delivery },
    /// A change of the driver's state that they did not ask for.
    #[schemars(rename = "status")]
    Status { status: DriverStatus, on_duty: bool, reason: String },
    /// Speak up this often from now on.
    #[schemars(rename = "config")]
    Config { heartbeat_interval_ms: u64, ttl_ms: u64 },
    /// The service restarts: come back this long after the close.
    #[schemars(rename = "reconnect")]
    Reconnect { after_ms: u64 },
}
