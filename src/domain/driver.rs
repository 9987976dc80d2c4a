//! A driver's state: the requested duty, the slots, and the status derived from both.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a driver can be given right now. Derived by [`DriverState::status`], never set.
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

/// How closely a driver is followed: what the interval of their heartbeats hangs on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HeartbeatTier {
    /// Off duty without a delivery: the position is not needed.
    Idle,
    /// On duty without a delivery.
    Ready,
    /// With a delivery: a customer waits for the driver.
    Busy,
}

impl HeartbeatTier {
    /// A driver with a delivery is followed closely, on duty or not.
    pub fn of(on_duty: bool, used_slots: i32) -> Self {
        match (used_slots > 0, on_duty) {
            (true, _) => Self::Busy,
            (false, true) => Self::Ready,
            (false, false) => Self::Idle,
        }
    }
}

/// The text names no state.
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

/// Everything that a driver's status follows from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriverState {
    /// The requested duty.
    pub on_duty: bool,
    /// Not deactivated by an operator.
    pub active: bool,
    /// Active deliveries.
    pub used_slots: i32,
    /// Deliveries that the driver can hold at once, at least 1.
    pub capacity: i32,
}

/// What can happen to a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriverChange {
    /// The requested duty: on or off. Active deliveries stay.
    SetDuty(bool),
    /// A delivery takes a slot.
    Take,
    /// A slot becomes free.
    Release,
    /// An operator brings the driver back or deactivates them.
    SetActive(bool),
    /// An operator changes how many deliveries fit.
    SetCapacity(i32),
}

/// Why a driver cannot change so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DriverRefusal {
    /// No free slot.
    #[error("the driver has no free slot")]
    Full,
    /// No slot is taken.
    #[error("the driver holds no delivery")]
    NothingHeld,
    /// The driver has active deliveries.
    #[error("the driver still holds a delivery")]
    StillHolding,
    /// The driver is deactivated.
    #[error("the driver is deactivated")]
    Inactive,
    /// A capacity below 1, or below the number of active deliveries.
    #[error("the capacity is below the deliveries in hand")]
    CapacityBelowHeld,
}

impl DriverState {
    /// How closely the driver is followed.
    pub fn heartbeat_tier(&self) -> HeartbeatTier {
        HeartbeatTier::of(self.on_duty, self.used_slots)
    }

    /// BUSY while every slot is taken, else AVAILABLE if on duty and active, else OFFLINE.
    pub fn status(&self) -> DriverStatus {
        if self.used_slots >= self.capacity {
            DriverStatus::Busy
        } else if self.on_duty && self.active {
            DriverStatus::Available
        } else {
            DriverStatus::Offline
        }
    }

    /// The state after `change`, or why there is none.
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
