//! The entries of a delivery's audit trail, and the events that shops receive for them.
//!
//! Not every entry has an event: [`AuditType::outbound`] decides.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::driver::UnknownState;
use super::ids::DeliveryId;

/// The type of an entry in a delivery's audit trail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuditType {
    /// The order arrived.
    Created,
    /// The delivery was assigned to a driver.
    Assigned,
    /// The delivery was unassigned by the service, an operator or the driver.
    Unassigned,
    /// The driver has the goods.
    PickedUp,
    /// The driver is on the way to the drop.
    InTransit,
    /// The goods were handed over.
    Delivered,
    /// The delivery ended without a handover.
    Failed,
    /// The delivery was cancelled.
    Cancelled,
    /// An operator started a new attempt.
    Retried,
    /// An operator changed the delivery's data.
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

    /// The type of the event that a shop receives for this entry, if any.
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

/// The type of an event that is posted to a shop.
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
    /// Every type.
    pub const ALL: [Self; 6] =
        [Self::Assigned, Self::Unassigned, Self::PickedUp, Self::Delivered, Self::Failed, Self::Cancelled];

    /// Finds a type by its wire name.
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

    /// The actor's id as text. The service itself has no id.
    pub fn id(&self) -> Option<String> {
        match self {
            Self::Driver(id) | Self::Operator(id) => Some(id.to_string()),
            Self::Shop(name) => Some(name.clone()),
            Self::System => None,
        }
    }
}

/// The state of an event in the outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutboundState {
    /// The event is to be posted, for the first time or again.
    Pending,
    /// The shop answered 2xx.
    Delivered,
    /// No more attempts are made until an operator replays the event.
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

/// Selects events to shops. A field that is `None` matches every event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// Only events in this state.
    pub state: Option<OutboundState>,
    /// Only events of this shop.
    pub shop: Option<String>,
    /// Only events of this delivery.
    pub delivery_id: Option<DeliveryId>,
    /// Only events of this type.
    pub kind: Option<OutboundType>,
    /// Only events written at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only events written before this time.
    pub to: Option<DateTime<Utc>>,
}

impl Selection {
    /// The state of the events that a replay posts again. The default is dead.
    pub fn state_to_replay(&self) -> OutboundState {
        self.state.unwrap_or(OutboundState::Dead)
    }

    /// Whether a replay of this selection is allowed.
    ///
    /// A replay of events that are not dead must name a shop or a delivery. This prevents a replay of the whole history by a
    /// filter that was left out.
    pub fn may_be_replayed(&self) -> bool {
        self.state_to_replay() == OutboundState::Dead || self.shop.is_some() || self.delivery_id.is_some()
    }
}
