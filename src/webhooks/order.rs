//! The bodies that shops post: an order that is ready, and one that is called off.
//!
//! Ids have 1 to 128 characters, metadata at most 4 KiB. More bounds, so that nothing without end is stored:
//! `address` and `notes` 1,000 characters, `contactName` 256, `phone` 64, `orderCode` 128, `seller.name` 256, at most 500
//! `items` with `sku` 128, `name` 256 and `quantity` above 0 and at most 1,000,000,000; `reason` 1,000; metadata nests 64 levels deep.
//! Metadata numbers are doubles, or integers of 64 bits; longer integers come back rounded.
//!
//! Coordinates are JSON numbers, never numeric strings. `phone`, `orderCode` and `sku` may be JSON integers, which are taken
//! as their decimal text. A byte order mark before the JSON is ignored. Unknown fields are ignored. Every fault is named at once.

use super::reader::{NotJson, Object, Reader};
use crate::domain::fields::FieldError;
use crate::domain::ids::ShopName;
use crate::domain::order::{Cancellation, Item, NewOrder, Seller, Stop, StopDetails};
use crate::domain::position::{Position, check_latitude, check_longitude};

/// The most characters of an address, a note or a reason.
pub const MAX_LINE_CHARS: usize = 1_000;
/// The most characters of a name.
pub const MAX_NAME_CHARS: usize = 256;
/// The most characters of an order's code or an item's.
pub const MAX_CODE_CHARS: usize = 128;
/// The most characters of a telephone number.
pub const MAX_PHONE_CHARS: usize = 64;
/// The most items of an order.
pub const MAX_ITEMS: usize = 500;
/// The largest quantity of an item.
pub const MAX_QUANTITY: i64 = 1_000_000_000;
const MAX_METADATA_BYTES: usize = 4_096;

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OrderError {
    /// Not JSON at all: 400.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// JSON of another shape, or fields at fault: 422. Never empty.
    #[error("{} fields of the body are at fault", .0.len())]
    Invalid(Vec<FieldError>),
}

impl From<NotJson> for OrderError {
    fn from(error: NotJson) -> Self {
        Self::NotJson(error.0)
    }
}

/// Reads a `seller-order-ready` body.
pub fn parse_order(body: &[u8]) -> Result<NewOrder, OrderError> {
    read(body, order)
}

/// Reads the same body with the optional `shop` that an operator's request may name.
pub fn parse_order_with_shop(body: &[u8]) -> Result<(Option<ShopName>, NewOrder), OrderError> {
    read(body, |reader, root| {
        let shop = shop(reader, root);
        Some((shop, order(reader, root)?))
    })
}

/// Reads a `seller-order-cancelled` body.
pub fn parse_cancellation(body: &[u8]) -> Result<Cancellation, OrderError> {
    read(body, |reader, root| {
        let seller_order_id = reader.required_id(root, "sellerOrderId");
        let channel_id = reader.required_id(root, "channelId");
        let reason = reader.text(root, "reason", MAX_LINE_CHARS);
        Some(Cancellation { seller_order_id: seller_order_id?, channel_id: channel_id?, reason })
    })
}

/// Opens `body`, reads it by `parse`, and gives its value only when nothing was at fault.
fn read<T>(body: &[u8], parse: impl FnOnce(&mut Reader, &Object<'_>) -> Option<T>) -> Result<T, OrderError> {
    let mut reader = Reader::default();
    let value = match reader.open(body)? {
        Some(root) => parse(&mut reader, &root),
        None => None,
    };
    match value {
        Some(value) if reader.is_clean() => Ok(value),
        _ => Err(OrderError::Invalid(reader.into_errors())),
    }
}

/// Reads every field before it gives up on any, so that all faults are found.
fn order(reader: &mut Reader, root: &Object<'_>) -> Option<NewOrder> {
    let seller_order_id = reader.required_id(root, "sellerOrderId");
    let channel_id = reader.required_id(root, "channelId");
    let pickup = stop(reader, root, "pickup");
    let drop = stop(reader, root, "drop");
    let order_code = reader.text_or_number(root, "orderCode", MAX_CODE_CHARS);
    let seller = seller(reader, root);
    let items = items(reader, root);
    let ready_at = reader.time(root, "readyAt");
    let external_id = reader.id(root, "externalId");
    let metadata = reader.json(root, "metadata", MAX_METADATA_BYTES);
    Some(NewOrder {
        seller_order_id: seller_order_id?,
        channel_id: channel_id?,
        pickup: pickup?,
        drop: drop?,
        order_code,
        seller,
        items,
        ready_at,
        external_id,
        metadata,
    })
}

fn stop(reader: &mut Reader, root: &Object<'_>, key: &str) -> Option<Stop> {
    let object = reader.object_or_empty(root, key)?;
    let lat = reader.required_number(&object, "lat", check_latitude);
    let lon = reader.required_number(&object, "lon", check_longitude);
    let details = StopDetails {
        address: reader.text(&object, "address", MAX_LINE_CHARS),
        contact_name: reader.text(&object, "contactName", MAX_NAME_CHARS),
        phone: reader.text_or_number(&object, "phone", MAX_PHONE_CHARS),
        notes: reader.text(&object, "notes", MAX_LINE_CHARS),
    };
    let position = Position::new(lat?, lon?).ok()?;
    Some(Stop { position, details })
}

fn seller(reader: &mut Reader, root: &Object<'_>) -> Option<Seller> {
    let object = reader.optional_object(root, "seller")?;
    let id = reader.id(&object, "id").map(|id| id.as_str().to_owned());
    Some(Seller { id, name: reader.text(&object, "name", MAX_NAME_CHARS) })
}

fn items(reader: &mut Reader, root: &Object<'_>) -> Option<Vec<Item>> {
    let objects = reader.objects(root, "items", MAX_ITEMS)?;
    let item = |object: &Object<'_>| Item {
        sku: reader.text_or_number(object, "sku", MAX_CODE_CHARS),
        name: reader.text(object, "name", MAX_NAME_CHARS),
        quantity: reader.positive(object, "quantity", MAX_QUANTITY),
    };
    Some(objects.iter().map(item).collect())
}

fn shop(reader: &mut Reader, root: &Object<'_>) -> Option<ShopName> {
    let text = reader.text(root, "shop", MAX_NAME_CHARS)?;
    let name = ShopName::parse(&text);
    if name.is_none() {
        reader.fault("shop", "form", "must be a shop's name: 1 to 63 of a-z, 0-9 and -, the first not -");
    }
    name
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
