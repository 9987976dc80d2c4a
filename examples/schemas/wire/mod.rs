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
use driver_tracker::webhooks::order::{
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
    /// The same where shops write it; a number is taken as its text.
    SentCode = {"type": ["string", "number"], "maxLength": MAX_CODE_CHARS, "pattern": "^[^\\u0000]*$"};
    /// A telephone number.
    Phone = {"type": "string", "maxLength": MAX_PHONE_CHARS, "pattern": "^[^\\u0000]*$"};
    /// The same where shops write it; a number is taken as its text.
    SentPhone = {"type": ["string", "number"], "maxLength": MAX_PHONE_CHARS, "pattern": "^[^\\u0000]*$"};
    /// Degrees; the bound is that of Redis GEO.
    Latitude = {"type": "number", "minimum": (-MAX_LATITUDE), "maximum": MAX_LATITUDE};
    /// Degrees.
    Longitude = {"type": "number", "minimum": (-180), "maximum": 180};
    /// How many, or how much.
    Quantity = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_QUANTITY};
    /// Comes back in the answer.
    Reference = {"type": "string", "maxLength": MAX_REF_CHARS};
    /// A reason.
    Reason = {"type": "string", "maxLength": MAX_REASON_CHARS, "pattern": "^[^\\u0000]*$"};
    /// An id of an offer.
    OfferId = {"type": "string", "maxLength": 128, "pattern": "^[^\\u0000]*$"};
    /// A link that blocks nothing: whatever is no link is left out.
    ProofLink = {
        "description": (format!("An http or https address of at most {MAX_URL_CHARS} characters. Any other value is left out, \
            and the answer names the field in `ignored`."))
    };
}

mod driver_frames;
mod events;
mod orders;
mod server_frames;

use driver_frames::*;
use events::*;
use orders::*;
use server_frames::*;
