//! An order as a shop hands it over, parsed: what a delivery is made of.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<i64>,
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
    /// Whether the same order was sent before with another pickup or drop. Exact: both sides come from the same decimal
    /// text through the same parser, so a sender that only rebuilds its body never differs.
    pub fn coordinates_differ(&self, stored_pickup: &Position, stored_drop: &Position) -> bool {
        self.pickup.position != *stored_pickup || self.drop.position != *stored_drop
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
