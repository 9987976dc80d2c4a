//! What goes over the wire, as types that schemas are made from. The service reads and writes by hand, so that every fault is
//! named at once and a heartbeat costs little; tests hold these types and that code against each other.
//!
//! `null` means absent, everywhere: an optional field may be `null`. Unknown fields are ignored.

// Nobody makes or reads a value of these types: they are there for what derives from them.
#![allow(dead_code)]

use std::borrow::Cow;

use driver_tracker::domain::ids::ExternalId;
use driver_tracker::domain::position::MAX_LATITUDE;
use driver_tracker::protocol::MAX_BATCH_FIXES;
use driver_tracker::protocol::inbound::{MAX_REASON_CHARS, MAX_REF_CHARS, MAX_URL_CHARS};
use driver_tracker::vendure::order::{
    MAX_CODE_CHARS, MAX_ITEMS, MAX_LINE_CHARS, MAX_NAME_CHARS, MAX_PHONE_CHARS, MAX_QUANTITY,
};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// Every schema, by the name of its file.
pub fn all() -> Vec<(&'static str, Schema)> {
    let generator = || SchemaSettings::draft2020_12().with_transform(RecursiveTransform(plain)).into_generator();
    vec![
        ("seller-order-ready.json", generator().into_root_schema_for::<SellerOrderReady>()),
        ("seller-order-cancelled.json", generator().into_root_schema_for::<SellerOrderCancelled>()),
        ("delivery-event.json", generator().into_root_schema_for::<DeliveryEvent>()),
        ("driver-frames.json", generator().into_root_schema_for::<DriverFrame>()),
        ("server-frames.json", generator().into_root_schema_for::<ServerFrame>()),
    ]
}

/// Nothing of Rust: neither the sizes of its integers, nor a default of what is left out.
fn plain(schema: &mut Schema) {
    let of_rust = |format: &Value| format.as_str().is_some_and(|name| name.contains("int") || name == "double");
    if schema.get("format").is_some_and(of_rust) {
        schema.remove("format");
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
}

/// A schema as its file holds it.
pub fn text_of(schema: &Schema) -> String {
    format!("{:#}\n", schema.as_value())
}

/// A type that is one schema, told by JSON.
macro_rules! shape {
    ($($(#[doc = $doc:literal])* $name:ident = $schema:tt;)*) => {$(
        $(#[doc = $doc])*
        pub struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

shape! {
    /// An opaque id of the shop's; an integer is taken as its decimal text.
    ShopId = {
        "type": ["string", "integer"], "minLength": 1, "maxLength": (ExternalId::MAX_CHARS),
        "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
    };
    /// The same where the service writes it.
    ShopIdText = {"type": "string", "minLength": 1, "maxLength": (ExternalId::MAX_CHARS)};
    /// An id of the service's: a UUID.
    Id = {"type": "string", "format": "uuid"};
    /// RFC 3339.
    Moment = {"type": "string", "format": "date-time"};
    /// PostgreSQL holds no NUL, here and below.
    Line = {"type": "string", "maxLength": MAX_LINE_CHARS, "pattern": "^[^\\u0000]*$"};
    /// A name.
    Name = {"type": "string", "maxLength": MAX_NAME_CHARS, "pattern": "^[^\\u0000]*$"};
    /// A code.
    Code = {"type": "string", "maxLength": MAX_CODE_CHARS, "pattern": "^[^\\u0000]*$"};
    /// A telephone number.
    Phone = {"type": "string", "maxLength": MAX_PHONE_CHARS, "pattern": "^[^\\u0000]*$"};
    /// Degrees; the bound is that of Redis GEO.
    Latitude = {"type": "number", "minimum": (-MAX_LATITUDE), "maximum": MAX_LATITUDE};
    /// Degrees.
    Longitude = {"type": "number", "minimum": (-180), "maximum": 180};
    /// How many.
    Quantity = {"type": "integer", "minimum": 0, "maximum": MAX_QUANTITY};
    /// Comes back in the answer.
    Reference = {"type": "string", "maxLength": MAX_REF_CHARS};
    /// A reason.
    Reason = {"type": "string", "maxLength": MAX_REASON_CHARS, "pattern": "^[^\\u0000]*$"};
    /// An id of an offer.
    OfferId = {"type": "string", "maxLength": 128, "pattern": "^[^\\u0000]*$"};
    /// `http` or `https`.
    Link = {"type": "string", "maxLength": MAX_URL_CHARS, "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^\\u0000]+$"};
}

// ---- orders in ----

/// `POST /webhooks/{shop}/seller-order-ready`: an order that can be fetched.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct SellerOrderReady {
    /// The shop's id of the order: one delivery for each, however often it is posted.
    seller_order_id: ShopId,
    /// The shop's channel.
    channel_id: ShopId,
    /// Where it is fetched.
    pickup: Stop,
    /// Where it goes.
    drop: Stop,
    /// The code that people know the order by.
    order_code: Option<Code>,
    /// Who sells it.
    seller: Option<Seller>,
    /// What is in it.
    #[schemars(length(max = MAX_ITEMS))]
    items: Option<Vec<Option<Item>>>,
    /// Shown to the driver; delays nothing.
    ready_at: Option<Moment>,
    /// An id of the sender's own, to find the delivery by.
    external_id: Option<ShopId>,
    /// Any JSON of at most 4 KiB and 64 levels; comes back in events, frames and REST.
    metadata: Option<Value>,
}

/// A pickup or a drop.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct Stop {
    lat: Latitude,
    lon: Longitude,
    address: Option<Line>,
    contact_name: Option<Name>,
    phone: Option<Phone>,
    notes: Option<Line>,
}

/// Who sells.
#[derive(JsonSchema)]
pub struct Seller {
    id: Option<ShopId>,
    name: Option<Name>,
}

/// Of an order.
#[derive(JsonSchema)]
pub struct Item {
    sku: Option<Code>,
    name: Option<Name>,
    quantity: Option<Quantity>,
}

/// `POST /webhooks/{shop}/seller-order-cancelled`: an order that is called off.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct SellerOrderCancelled {
    seller_order_id: ShopId,
    channel_id: ShopId,
    reason: Option<Line>,
}

// ---- events out ----

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

// ---- frames from drivers ----

/// Both coordinates or neither, and with them the time of the fix.
fn whole_fix(schema: &mut Schema) {
    schema.insert(
        "anyOf".to_owned(),
        serde_json::json!([
            {"properties": {"lat": {"type": "number"}, "lon": {"type": "number"}, "fixTime": {"type": "string"}},
             "required": ["lat", "lon", "fixTime"]},
            {"properties": {"lat": {"type": "null"}, "lon": {"type": "null"}}},
        ]),
    );
}

/// Both coordinates or neither; FAILED with its failure.
fn whole_update(schema: &mut Schema) {
    schema.insert(
        "allOf".to_owned(),
        serde_json::json!([
            {"anyOf": [
                {"properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}, "required": ["lat", "lon"]},
                {"properties": {"lat": {"type": "null"}, "lon": {"type": "null"}}},
            ]},
            {"if": {"properties": {"status": {"const": "FAILED"}}},
             "then": {"properties": {"failure": {"type": "object"}}, "required": ["failure"]}},
        ]),
    );
}

/// What a driver wishes.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Wish {
    Available,
    Offline,
}

/// How a delivery goes.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Step {
    PickedUp,
    InTransit,
    Delivered,
    Failed,
    Rejected,
}

/// An answer to an offer.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum OfferAnswer {
    Accept,
    Decline,
}

/// The codes that a driver may give with FAILED.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DriversFailureCode {
    PickupFailed,
    DeliveryFailed,
    DriverRejected,
}

/// Why a delivery failed, by its driver.
#[derive(JsonSchema)]
pub struct DriversFailure {
    code: DriversFailureCode,
    reason: Option<Reason>,
}

/// A fix of a batch. Whatever is wrong with one refuses it alone, so that a batch is read whatever its fixes are; this is what
/// is taken.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct BatchFix {
    fix_time: Moment,
    lat: Latitude,
    lon: Longitude,
    accuracy_m: Option<f64>,
    speed_mps: Option<f64>,
    heading_deg: Option<f64>,
    battery_pct: Option<f64>,
}

/// A frame from a driver to the service.
#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all_fields = "camelCase")]
pub enum DriverFrame {
    /// Where I am; without coordinates: still alive.
    #[schemars(rename = "heartbeat", transform = whole_fix)]
    Heartbeat {
        r#ref: Option<Reference>,
        /// Rises within a session.
        seq: i64,
        fix_time: Option<Moment>,
        lat: Option<Latitude>,
        lon: Option<Longitude>,
        accuracy_m: Option<f64>,
        /// Negative: absent; as are the two below.
        speed_mps: Option<f64>,
        heading_deg: Option<f64>,
        battery_pct: Option<f64>,
    },
    /// Fixes kept while out of coverage.
    #[schemars(rename = "batch")]
    Batch {
        r#ref: Option<Reference>,
        #[schemars(length(max = MAX_BATCH_FIXES))]
        fixes: Vec<BatchFix>,
    },
    /// The wish to work.
    #[schemars(rename = "status")]
    Status { r#ref: Option<Reference>, status: Wish },
    /// An answer to an offer; there are none yet.
    #[schemars(rename = "offer.answer")]
    OfferAnswer { r#ref: Option<Reference>, offer_id: OfferId, answer: OfferAnswer, reason: Option<Reason> },
    /// How a delivery goes.
    #[schemars(rename = "delivery.update", transform = whole_update)]
    DeliveryUpdate {
        r#ref: Option<Reference>,
        delivery_id: Id,
        assignment_id: Id,
        status: Step,
        occurred_at: Option<Moment>,
        lat: Option<Latitude>,
        lon: Option<Longitude>,
        proof_url: Option<Link>,
        failure: Option<DriversFailure>,
    },
    /// A command arrived.
    #[schemars(rename = "ack")]
    Ack { r#ref: Option<Reference>, message_id: Id },
}

// ---- frames to drivers ----

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
    pickup: Stop,
    drop: Stop,
    #[schemars(default, with = "Id")]
    assignment_id: Option<Id>,
    #[schemars(default, with = "String")]
    order_code: Option<String>,
    #[schemars(default, with = "Vec<Item>")]
    items: Option<Vec<Item>>,
    #[schemars(default, with = "Moment")]
    ready_at: Option<Moment>,
    #[schemars(default, with = "Value")]
    metadata: Option<Value>,
}

/// A fix of a batch that was not taken.
#[derive(JsonSchema)]
pub struct RefusedFix {
    index: u32,
    code: String,
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
