//! The types of the audit trail, and of the events that are posted to shops.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::driver::UnknownState;
use super::ids::DeliveryId;

/// A row of a delivery's audit trail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuditType {
    /// The order arrived.
    Created,
    /// A driver was given it.
    Assigned,
    /// It was taken or given back.
    Unassigned,
    /// The driver has it.
    PickedUp,
    /// On the way to the drop.
    InTransit,
    /// Handed over.
    Delivered,
    /// Ended without delivery.
    Failed,
    /// Called off.
    Cancelled,
    /// An operator tried again.
    Retried,
    /// Its data was changed by an operator.
    Changed,
    /// The shop sent the same order with another body.
    Conflict,
}

impl AuditType {
    /// The wire and database name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Assigned => "ASSIGNED",
            Self::Unassigned => "UNASSIGNED",
            Self::PickedUp => "PICKED_UP",
            Self::InTransit => "IN_TRANSIT",
            Self::Delivered => "DELIVERED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Retried => "RETRIED",
            Self::Changed => "CHANGED",
            Self::Conflict => "CONFLICT",
        }
    }

    /// The event that a shop receives for it, if any.
    pub fn outbound(self) -> Option<OutboundType> {
        match self {
            Self::Assigned => Some(OutboundType::Assigned),
            Self::Unassigned => Some(OutboundType::Unassigned),
            Self::PickedUp => Some(OutboundType::PickedUp),
            Self::Delivered => Some(OutboundType::Delivered),
            Self::Failed => Some(OutboundType::Failed),
            Self::Cancelled => Some(OutboundType::Cancelled),
            Self::Created | Self::InTransit | Self::Retried | Self::Changed | Self::Conflict => None,
        }
    }
}

/// An event that goes out to a shop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutboundType {
    /// `DELIVERY_ASSIGNED_V1`
    Assigned,
    /// `DELIVERY_UNASSIGNED_V1`
    Unassigned,
    /// `DELIVERY_PICKED_UP_V1`
    PickedUp,
    /// `DELIVERY_DELIVERED_V1`
    Delivered,
    /// `DELIVERY_FAILED_V1`
    Failed,
    /// `DELIVERY_CANCELLED_V1`
    Cancelled,
}

impl OutboundType {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Assigned, Self::Unassigned, Self::PickedUp, Self::Delivered, Self::Failed, Self::Cancelled];

    /// By its wire name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "DELIVERY_ASSIGNED_V1",
            Self::Unassigned => "DELIVERY_UNASSIGNED_V1",
            Self::PickedUp => "DELIVERY_PICKED_UP_V1",
            Self::Delivered => "DELIVERY_DELIVERED_V1",
            Self::Failed => "DELIVERY_FAILED_V1",
            Self::Cancelled => "DELIVERY_CANCELLED_V1",
        }
    }
}

/// Who made a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Actor {
    /// A driver.
    Driver(Uuid),
    /// An operator, by API key.
    Operator(Uuid),
    /// The service itself.
    System,
    /// A shop, by name.
    Shop(String),
}

impl Actor {
    /// `driver`, `operator`, `system` or `shop`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Driver(_) => "driver",
            Self::Operator(_) => "operator",
            Self::System => "system",
            Self::Shop(_) => "shop",
        }
    }

    /// The actor's id as text; the service itself has none.
    pub fn id(&self) -> Option<String> {
        match self {
            Self::Driver(id) | Self::Operator(id) => Some(id.to_string()),
            Self::Shop(name) => Some(name.clone()),
            Self::System => None,
        }
    }
}

/// Where an outbox row stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutboundState {
    /// To be posted, or posted again.
    Pending,
    /// The shop answered 2xx.
    Delivered,
    /// Given up until an operator replays it.
    Dead,
}

impl OutboundState {
    /// The wire and database name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl std::str::FromStr for OutboundState {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        match text {
            "pending" => Ok(Self::Pending),
            "delivered" => Ok(Self::Delivered),
            "dead" => Ok(Self::Dead),
            other => Err(UnknownState(other.to_owned())),
        }
    }
}
/// Which events to shops; `None` is any.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// What they are now.
    pub state: Option<OutboundState>,
    /// Only of this shop.
    pub shop: Option<String>,
    /// Only of this delivery.
    pub delivery_id: Option<DeliveryId>,
    /// Only of this type.
    pub kind: Option<OutboundType>,
    /// Only written at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only written before this time.
    pub to: Option<DateTime<Utc>>,
}

impl Selection {
    /// Dead ones are posted again unless others are asked for.
    pub fn state_to_replay(&self) -> OutboundState {
        self.state.unwrap_or(OutboundState::Dead)
    }

    /// A forgotten filter must not post a whole history again: for events that are not dead, a shop or delivery is required.
    pub fn may_be_replayed(&self) -> bool {
        self.state_to_replay() == OutboundState::Dead || self.shop.is_some() || self.delivery_id.is_some()
    }
}
