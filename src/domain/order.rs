//! An order as a shop hands it over, parsed: what a delivery is made of.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::ids::ExternalId;
use super::position::Position;

/// One end of a delivery: a place, and whom to find there.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// Where.
    #[serde(flatten)]
    pub position: Position,
    /// Address, contact and notes.
    #[serde(flatten)]
    pub details: StopDetails,
}

impl Stop {
    /// The names of the fields in which two stops differ. A text that is absent is the same as an empty one: senders write
    /// either for what they do not know.
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

/// What a person needs at a stop; every field is optional.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StopDetails {
    /// Postal address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whom to ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_name: Option<String>,
    /// Their number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

/// A line of the order, shown to the driver.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// Stock keeping unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many, or how much: above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Number>,
}

/// Who sells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seller {
    /// The seller's id in the shop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The seller's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A seller order that is ready to be fetched.
#[derive(Clone, PartialEq, Debug)]
pub struct NewOrder {
    /// The shop's id of the seller order; unique within the shop.
    pub seller_order_id: ExternalId,
    /// The shop's channel.
    pub channel_id: ExternalId,
    /// Where to fetch it.
    pub pickup: Stop,
    /// Where to bring it.
    pub drop: Stop,
    /// The code that people know the order by.
    pub order_code: Option<String>,
    /// Who sells it.
    pub seller: Option<Seller>,
    /// What is in it.
    pub items: Option<Vec<Item>>,
    /// When it is ready; shown to the driver, delays nothing.
    pub ready_at: Option<DateTime<Utc>>,
    /// An id of the sender's own.
    pub external_id: Option<ExternalId>,
    /// JSON of the sender's own, at most 4 KiB; comes back in events, frames and REST.
    pub metadata: Option<Value>,
}

impl NewOrder {
    /// The fields of pickup and drop in which this repeat of an order differs from the order as it is stored, each by its path.
    /// Exact: both sides come from the same text through the same parser, so a sender that only rebuilds its body never
    /// differs.
    pub fn differs(&self, stored_pickup: &Stop, stored_drop: &Stop) -> Vec<String> {
        let of = |stop: &'static str, sent: &Stop, stored: &Stop| {
            sent.differs(stored).into_iter().map(move |field| format!("{stop}.{field}"))
        };
        of("pickup", &self.pickup, stored_pickup).chain(of("drop", &self.drop, stored_drop)).collect()
    }
}

/// A shop's word that a seller order is off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cancellation {
    /// The shop's id of the seller order.
    pub seller_order_id: ExternalId,
    /// The shop's channel.
    pub channel_id: ExternalId,
    /// Why, in the shop's words.
    pub reason: Option<String>,
}
