//! The types of the wire format, from which the schemas are generated.
//!
//! The service itself parses and writes the wire format by hand-written code, so that it can report all errors of a message at
//! once and handle a heartbeat cheaply. Tests compare that code with these types.
//!
//! `null` means absent everywhere: an optional field may be `null`. Unknown fields are ignored.

// No code creates or reads values of these types. They exist only for the derived schemas.
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

/// Returns every schema with its file name.
pub fn all() -> Vec<(&'static str, Schema)> {
    let generator =
        || SchemaSettings::draft2020_12().with_transform(RecursiveTransform(remove_rust_details)).into_generator();
    vec![
        ("seller-order-ready.json", generator().into_root_schema_for::<SellerOrderReady>()),
        ("seller-order-cancelled.json", generator().into_root_schema_for::<SellerOrderCancelled>()),
        ("delivery-event.json", generator().into_root_schema_for::<DeliveryEvent>()),
        ("driver-frames.json", generator().into_root_schema_for::<DriverFrame>()),
        ("server-frames.json", generator().into_root_schema_for::<ServerFrame>()),
    ]
}

/// Removes what is specific to Rust: the sizes of integers and `null` defaults.
fn remove_rust_details(schema: &mut Schema) {
    let of_rust = |format: &Value| format.as_str().is_some_and(|name| name.contains("int") || name == "double");
    if schema.get("format").is_some_and(of_rust) {
        schema.remove("format");
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
}

/// Returns the text of the file of a schema.
pub fn text_of(schema: &Schema) -> String {
    format!("{:#}\n", schema.as_value())
}

/// Defines types whose schema is given as JSON.
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
    /// An opaque id of the shop. An integer is accepted as its decimal text.
    ShopId = {
        "type": ["string", "integer"], "minLength": 1, "maxLength": (ExternalId::MAX_CHARS),
        "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
    };
    /// An opaque id of the shop, as the service writes it.
    ShopIdText = {"type": "string", "minLength": 1, "maxLength": (ExternalId::MAX_CHARS)};
    /// An id of the service: a UUID.
    Id = {"type": "string", "format": "uuid"};
    /// A time by RFC 3339.
    Moment = {"type": "string", "format": "date-time"};
    /// A line of text. PostgreSQL cannot store NUL, so the pattern excludes it here and below.
    Line = {"type": "string", "maxLength": MAX_LINE_CHARS, "pattern": "^[^\\u0000]*$"};
    /// A name.
    Name = {"type": "string", "maxLength": MAX_NAME_CHARS, "pattern": "^[^\\u0000]*$"};
    /// A code.
    Code = {"type": "string", "maxLength": MAX_CODE_CHARS, "pattern": "^[^\\u0000]*$"};
    /// A code, as shops write it. An integer is accepted as its decimal text.
    SentCode = {"type": ["string", "number"], "maxLength": MAX_CODE_CHARS, "pattern": "^[^\\u0000]*$"};
    /// A telephone number.
    Phone = {"type": "string", "maxLength": MAX_PHONE_CHARS, "pattern": "^[^\\u0000]*$"};
    /// A telephone number, as shops write it. An integer is accepted as its decimal text.
    SentPhone = {"type": ["string", "number"], "maxLength": MAX_PHONE_CHARS, "pattern": "^[^\\u0000]*$"};
    /// A latitude in degrees. The bound is that of Redis GEO.
    Latitude = {"type": "number", "minimum": (-MAX_LATITUDE), "maximum": MAX_LATITUDE};
    /// A longitude in degrees.
    Longitude = {"type": "number", "minimum": (-180), "maximum": 180};
    /// A number of pieces or an amount.
    Quantity = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_QUANTITY};
    /// A reference of the sender, which the answer repeats.
    Reference = {"type": "string", "maxLength": MAX_REF_CHARS};
    /// A reason.
    Reason = {"type": "string", "maxLength": MAX_REASON_CHARS, "pattern": "^[^\\u0000]*$"};
    /// An id of an offer.
    OfferId = {"type": "string", "maxLength": 128, "pattern": "^[^\\u0000]*$"};
    /// A link to a proof. An invalid value does not refuse the frame: it is ignored.
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
