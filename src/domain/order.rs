//! Orders and cancellations as shops send them, after parsing. An order becomes a delivery.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::ids::ExternalId;
use super::position::Position;

/// The pickup or the drop of a delivery: a position and its details.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// The position of the stop.
    #[serde(flatten)]
    pub position: Position,
    /// Address, contact and notes.
    #[serde(flatten)]
    pub details: StopDetails,
}

impl Stop {
    /// Returns the names of the fields in which two stops differ.
    ///
    /// An absent text equals an empty text. Senders use both for a value that they do not know.
    fn differs(&self, other: &Self) -> Vec<&'static str> {
        fn text(text: &Option<String>) -> &str {
            text.as_deref().unwrap_or_default()
        }
        let (ours, theirs) = (&self.details, &other.details);
        let fields = [
            ("lat", self.position.lat() != other.position.lat()),
            ("lon", self.position.lon() != other.position.lon()),
            ("address", text(&ours.address) != text(&theirs.address)),
            ("contactName", text(&ours.contact_name) != text(&theirs.contact_name)),
            ("phone", text(&ours.phone) != text(&theirs.phone)),
            ("notes", text(&ours.notes) != text(&theirs.notes)),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// What a driver needs to know at a stop. Every field is optional.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StopDetails {
    /// Postal address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Name of the contact person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_name: Option<String>,
    /// Telephone number of the contact person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Further notes for the driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

/// A line of an order. The driver sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// Stock keeping unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// Name of the product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number or amount; above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Number>,
}

/// The seller of an order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seller {
    /// The seller's id in the shop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The seller's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A seller order that a driver is to deliver.
#[derive(Clone, PartialEq, Debug)]
pub struct NewOrder {
    /// The shop's id of the seller order; unique within the shop.
    pub seller_order_id: ExternalId,
    /// The shop's channel.
    pub channel_id: ExternalId,
    /// Where the driver picks the goods up.
    pub pickup: Stop,
    /// Where the driver hands the goods over.
    pub drop: Stop,
    /// The code of the order that people use.
    pub order_code: Option<String>,
    /// The seller.
    pub seller: Option<Seller>,
    /// The lines of the order.
    pub items: Option<Vec<Item>>,
    /// When the goods are ready. The driver sees it. It delays nothing.
    pub ready_at: Option<DateTime<Utc>>,
    /// An id that the sender chose.
    pub external_id: Option<ExternalId>,
    /// JSON that the sender chose, at most 4 KiB. Events, frames and REST return it.
    pub metadata: Option<Value>,
}

impl NewOrder {
    /// Returns the paths of the pickup and drop fields in which this order differs from the stored order.
    ///
    /// The comparison is exact. Both sides come from the same text through the same parser, so a sender that only builds its
    /// body again never differs.
    pub fn differs(&self, stored_pickup: &Stop, stored_drop: &Stop) -> Vec<String> {
        let of = |stop: &'static str, sent: &Stop, stored: &Stop| {
            sent.differs(stored).into_iter().map(move |field| format!("{stop}.{field}"))
        };
        of("pickup", &self.pickup, stored_pickup).chain(of("drop", &self.drop, stored_drop)).collect()
    }
}

/// A shop's cancellation of a seller order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cancellation {
    /// The shop's id of the seller order.
    pub seller_order_id: ExternalId,
    /// The shop's channel.
    pub channel_id: ExternalId,
    /// The shop's reason.
    pub reason: Option<String>,
}
