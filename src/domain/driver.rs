//! The state of a driver: requested duty, slots, and the status that is derived from both.
//!
//! - The status is never set. [`DriverState::status`] derives it.
//! - The number of used slots stays between 0 and the capacity. The capacity is at least 1.
//! - A deactivated driver is off duty and holds no delivery.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whether a driver can be assigned an order now. [`DriverState::status`] derives it; nothing sets it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DriverStatus {
    /// On duty with a free slot.
    Available,
    /// Every slot is taken.
    Busy,
    /// Off duty or deactivated, with a free slot.
    Offline,
}

impl DriverStatus {
    /// The wire and database name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "AVAILABLE",
            Self::Busy => "BUSY",
            Self::Offline => "OFFLINE",
        }
    }
}

impl fmt::Display for DriverStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The tier of a driver. It decides the interval of the driver's heartbeats.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HeartbeatTier {
    /// Off duty without a delivery. Nothing needs the position.
    Idle,
    /// On duty without a delivery.
    Ready,
    /// With a delivery. A shop and a customer wait for the driver.
    Busy,
}

impl HeartbeatTier {
    /// Returns the tier of a driver. A driver with a delivery is busy, also when off duty.
    pub fn of(on_duty: bool, used_slots: i32) -> Self {
        match (used_slots > 0, on_duty) {
            (true, _) => Self::Busy,
            (false, true) => Self::Ready,
            (false, false) => Self::Idle,
        }
    }
}

/// A text that is not the name of a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown state {0:?}")]
pub struct UnknownState(pub String);

impl FromStr for DriverStatus {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        match text {
            "AVAILABLE" => Ok(Self::Available),
            "BUSY" => Ok(Self::Busy),
            "OFFLINE" => Ok(Self::Offline),
            other => Err(UnknownState(other.to_owned())),
        }
    }
}

/// Everything that a driver's status is derived from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriverState {
    /// The requested duty.
    pub on_duty: bool,
    /// `false` if an operator deactivated the driver.
    pub active: bool,
    /// How many deliveries the driver holds.
    pub used_slots: i32,
    /// How many deliveries the driver can hold at once; at least 1.
    pub capacity: i32,
}

/// What can happen to a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriverChange {
    /// Sets the requested duty. The driver keeps their deliveries.
    SetDuty(bool),
    /// A delivery takes a slot.
    Take,
    /// A slot becomes free.
    Release,
    /// An operator reactivates or deactivates the driver.
    SetActive(bool),
    /// An operator changes the capacity.
    SetCapacity(i32),
}

/// Why a driver's state does not allow a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DriverRefusal {
    /// Every slot is used.
    #[error("the driver has no free slot")]
    Full,
    /// No slot is used, so none can be released.
    #[error("the driver holds no delivery")]
    NothingHeld,
    /// The driver holds deliveries.
    #[error("the driver still holds a delivery")]
    StillHolding,
    /// The driver is deactivated.
    #[error("the driver is deactivated")]
    Inactive,
    /// The capacity is below 1 or below the number of deliveries that the driver holds.
    #[error("the capacity is below the deliveries in hand")]
    CapacityBelowHeld,
}

impl DriverState {
    /// The tier of the driver.
    pub fn heartbeat_tier(&self) -> HeartbeatTier {
        HeartbeatTier::of(self.on_duty, self.used_slots)
    }

    /// BUSY if every slot is used; otherwise AVAILABLE if the driver is on duty and active; otherwise OFFLINE.
    pub fn status(&self) -> DriverStatus {
        if self.used_slots >= self.capacity {
            DriverStatus::Busy
        } else if self.on_duty && self.active {
            DriverStatus::Available
        } else {
            DriverStatus::Offline
        }
    }

    /// Returns the state after `change`, or the reason of the refusal.
    pub fn transition(self, change: DriverChange) -> Result<Self, DriverRefusal> {
        match change {
            DriverChange::SetDuty(true) if !self.active => Err(DriverRefusal::Inactive),
            DriverChange::SetDuty(on_duty) => Ok(Self { on_duty, ..self }),
            DriverChange::Take if !self.active => Err(DriverRefusal::Inactive),
            DriverChange::Take if self.used_slots >= self.capacity => Err(DriverRefusal::Full),
            DriverChange::Take => Ok(Self { used_slots: self.used_slots + 1, ..self }),
            DriverChange::Release if self.used_slots == 0 => Err(DriverRefusal::NothingHeld),
            DriverChange::Release => Ok(Self { used_slots: self.used_slots - 1, ..self }),
            DriverChange::SetActive(false) if self.used_slots > 0 => Err(DriverRefusal::StillHolding),
            DriverChange::SetActive(false) => Ok(Self { active: false, on_duty: false, ..self }),
            DriverChange::SetActive(true) => Ok(Self { active: true, ..self }),
            DriverChange::SetCapacity(n) if n < 1 || n < self.used_slots => Err(DriverRefusal::CapacityBelowHeld),
            DriverChange::SetCapacity(capacity) => Ok(Self { capacity, ..self }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_change() -> impl Strategy<Value = DriverChange> {
        prop_oneof![
            any::<bool>().prop_map(DriverChange::SetDuty),
            Just(DriverChange::Take),
            Just(DriverChange::Release),
            any::<bool>().prop_map(DriverChange::SetActive),
            (0..4i32).prop_map(DriverChange::SetCapacity),
        ]
    }

    proptest! {
        #[test]
        fn slots_stay_within_capacity_and_an_inactive_driver_holds_nothing(
            changes in prop::collection::vec(any_change(), 0..60),
        ) {
            let mut state = DriverState { on_duty: false, active: true, used_slots: 0, capacity: 1 };
            for change in changes {
                if let Ok(next) = state.transition(change) {
                    state = next;
                }
                prop_assert!(state.capacity >= 1);
                prop_assert!((0..=state.capacity).contains(&state.used_slots));
                prop_assert!(state.active || (state.used_slots == 0 && !state.on_duty));
                prop_assert_eq!(state.status() == DriverStatus::Busy, state.used_slots == state.capacity);
            }
        }
    }

    #[test]
    fn offline_said_during_a_delivery_holds_after_it() {
        let busy = DriverState { on_duty: true, active: true, used_slots: 1, capacity: 1 };
        let tired = busy.transition(DriverChange::SetDuty(false)).unwrap();
        assert_eq!(tired.status(), DriverStatus::Busy);
        assert_eq!(tired.transition(DriverChange::Release).unwrap().status(), DriverStatus::Offline);
    }
}
