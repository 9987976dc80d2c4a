//! The states of a delivery, and the one function that changes them.
//!
//! - [`DeliveryStatus::transition`] defines every allowed state change. No other code may choose a next state.
//! - DELIVERED is final. Only a retry leaves FAILED or CANCELLED.
//! - Only an assignment takes a driver's slot.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::driver::UnknownState;

/// The state of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeliveryStatus {
    /// Waiting for a driver.
    Pending,
    /// A driver is on the way to the pickup.
    Assigned,
    /// The driver has the goods.
    PickedUp,
    /// The driver is on the way to the drop. A delivery may skip this state.
    InTransit,
    /// The goods were handed over.
    Delivered,
    /// The delivery ended without a handover.
    Failed,
    /// The shop or an operator cancelled the delivery.
    Cancelled,
}

impl DeliveryStatus {
    /// The wire and database name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Assigned => "ASSIGNED",
            Self::PickedUp => "PICKED_UP",
            Self::InTransit => "IN_TRANSIT",
            Self::Delivered => "DELIVERED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether the delivery has ended: DELIVERED, FAILED or CANCELLED. Only a retry leaves FAILED and CANCELLED.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Delivered | Self::Failed | Self::Cancelled)
    }

    /// Whether the delivery occupies a driver's slot: ASSIGNED, PICKED_UP or IN_TRANSIT.
    pub fn holds_driver(self) -> bool {
        matches!(self, Self::Assigned | Self::PickedUp | Self::InTransit)
    }

    /// Returns the state after `action`, or a refusal that names the present state.
    pub fn transition(self, action: DeliveryAction) -> Result<Self, InvalidTransition> {
        use DeliveryAction as A;
        use DeliveryStatus as S;
        let next = match (self, action) {
            (S::Pending, A::Assign) => Some(S::Assigned),
            (S::Assigned, A::TakeBack) => Some(S::Pending),
            (S::Assigned, A::PickUp) => Some(S::PickedUp),
            (S::PickedUp, A::Depart) => Some(S::InTransit),
            (S::PickedUp | S::InTransit, A::Deliver) => Some(S::Delivered),
            (S::Assigned | S::PickedUp | S::InTransit, A::Fail) => Some(S::Failed),
            (S::Pending | S::Assigned | S::PickedUp | S::InTransit, A::Cancel) => Some(S::Cancelled),
            (S::Failed | S::Cancelled, A::Retry) => Some(S::Pending),
            _ => None,
        };
        next.ok_or(InvalidTransition { holds: self, action })
    }
}

impl fmt::Display for DeliveryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DeliveryStatus {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        [Self::Pending, Self::Assigned, Self::PickedUp, Self::InTransit, Self::Delivered, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// What can happen to a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DeliveryAction {
    /// The delivery is assigned to a driver.
    Assign,
    /// The delivery returns to PENDING: the driver is offline or rejected it before pickup, or an operator unassigned it.
    TakeBack,
    /// The driver takes the goods.
    PickUp,
    /// The driver starts for the drop.
    Depart,
    /// The driver hands the goods over.
    Deliver,
    /// The delivery ends without a handover.
    Fail,
    /// The shop or an operator cancels the delivery.
    Cancel,
    /// An operator starts a new attempt.
    Retry,
}

/// An action that the present state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delivery is {holds}, which does not allow {action:?}")]
pub struct InvalidTransition {
    /// The delivery's present state.
    pub holds: DeliveryStatus,
    /// The action that was requested.
    pub action: DeliveryAction,
}

/// Why a delivery failed, as events and REST name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureCode {
    /// The driver refused the delivery.
    DriverRejected,
    /// The driver went offline.
    DriverOffline,
    /// The driver could not pick up the goods.
    PickupFailed,
    /// The driver could not hand over the goods.
    DeliveryFailed,
    /// The delivery took too long.
    Timeout,
    /// An operator ended the delivery.
    ManualCancel,
    /// No driver was found.
    NoDriver,
}

impl FailureCode {
    /// Whether a driver may report this code with FAILED.
    pub fn allowed_from_driver(self) -> bool {
        matches!(self, Self::PickupFailed | Self::DeliveryFailed | Self::DriverRejected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATES: [DeliveryStatus; 7] = [
        DeliveryStatus::Pending,
        DeliveryStatus::Assigned,
        DeliveryStatus::PickedUp,
        DeliveryStatus::InTransit,
        DeliveryStatus::Delivered,
        DeliveryStatus::Failed,
        DeliveryStatus::Cancelled,
    ];
    const ACTIONS: [DeliveryAction; 8] = [
        DeliveryAction::Assign,
        DeliveryAction::TakeBack,
        DeliveryAction::PickUp,
        DeliveryAction::Depart,
        DeliveryAction::Deliver,
        DeliveryAction::Fail,
        DeliveryAction::Cancel,
        DeliveryAction::Retry,
    ];

    #[test]
    fn exactly_the_transitions_of_the_contract() {
        use DeliveryAction as A;
        use DeliveryStatus as S;
        let allowed = [
            (S::Pending, A::Assign, S::Assigned),
            (S::Pending, A::Cancel, S::Cancelled),
            (S::Assigned, A::TakeBack, S::Pending),
            (S::Assigned, A::PickUp, S::PickedUp),
            (S::Assigned, A::Fail, S::Failed),
            (S::Assigned, A::Cancel, S::Cancelled),
            (S::PickedUp, A::Depart, S::InTransit),
            (S::PickedUp, A::Deliver, S::Delivered),
            (S::PickedUp, A::Fail, S::Failed),
            (S::PickedUp, A::Cancel, S::Cancelled),
            (S::InTransit, A::Deliver, S::Delivered),
            (S::InTransit, A::Fail, S::Failed),
            (S::InTransit, A::Cancel, S::Cancelled),
            (S::Failed, A::Retry, S::Pending),
            (S::Cancelled, A::Retry, S::Pending),
        ];
        for state in STATES {
            for action in ACTIONS {
                let edge = allowed.iter().find(|(from, by, _)| (*from, *by) == (state, action));
                let expected = edge.map(|(_, _, to)| *to).ok_or(InvalidTransition { holds: state, action });
                assert_eq!(state.transition(action), expected, "{state} {action:?}");
            }
        }
    }

    /// A new state or action must be added to the lists. Otherwise no test here covers it.
    #[test]
    fn the_lists_hold_every_state_and_action() {
        let state_at = |state| match state {
            DeliveryStatus::Pending => 0,
            DeliveryStatus::Assigned => 1,
            DeliveryStatus::PickedUp => 2,
            DeliveryStatus::InTransit => 3,
            DeliveryStatus::Delivered => 4,
            DeliveryStatus::Failed => 5,
            DeliveryStatus::Cancelled => 6,
        };
        let action_at = |action| match action {
            DeliveryAction::Assign => 0,
            DeliveryAction::TakeBack => 1,
            DeliveryAction::PickUp => 2,
            DeliveryAction::Depart => 3,
            DeliveryAction::Deliver => 4,
            DeliveryAction::Fail => 5,
            DeliveryAction::Cancel => 6,
            DeliveryAction::Retry => 7,
        };
        assert_eq!(STATES.map(state_at), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(ACTIONS.map(action_at), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    proptest! {
        #[test]
        fn delivered_is_final_and_only_assign_takes_a_driver(actions in prop::collection::vec(0usize..8, 0..40)) {
            let mut state = DeliveryStatus::Pending;
            for index in actions {
                let action = ACTIONS[index];
                match state.transition(action) {
                    Ok(next) => {
                        prop_assert_ne!(state, DeliveryStatus::Delivered);
                        if !state.holds_driver() && next.holds_driver() {
                            prop_assert_eq!(action, DeliveryAction::Assign);
                        }
                        state = next;
                    }
                    Err(refusal) => prop_assert_eq!(refusal.holds, state),
                }
            }
        }

        #[test]
        fn names_read_back(index in 0usize..7) {
            prop_assert_eq!(STATES[index].as_str().parse::<DeliveryStatus>().unwrap(), STATES[index]);
        }
    }
}
