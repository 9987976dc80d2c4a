//! A delivery's states and the one function that moves between them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::driver::UnknownState;

/// Where a delivery stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeliveryStatus {
    /// Waiting for a driver.
    Pending,
    /// A driver is on the way to the pickup.
    Assigned,
    /// The driver has it.
    PickedUp,
    /// On the way to the drop; may be skipped.
    InTransit,
    /// Done.
    Delivered,
    /// Ended without delivery.
    Failed,
    /// Called off by the shop or an operator.
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

    /// DELIVERED, FAILED and CANCELLED: nothing but a retry leaves them.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Delivered | Self::Failed | Self::Cancelled)
    }

    /// ASSIGNED, PICKED_UP and IN_TRANSIT: a driver's slot is taken.
    pub fn holds_driver(self) -> bool {
        matches!(self, Self::Assigned | Self::PickedUp | Self::InTransit)
    }

    /// The state after `action`, or a refusal that names the state that holds.
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
    /// A driver is given the order.
    Assign,
    /// The order waits again: the driver was lost, or rejected it before pickup.
    TakeBack,
    /// The driver has the goods.
    PickUp,
    /// The driver is on the way to the drop.
    Depart,
    /// Handed over.
    Deliver,
    /// Ended without delivery.
    Fail,
    /// Called off.
    Cancel,
    /// An operator tries again.
    Retry,
}

/// An action that the present state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delivery is {holds}, which does not allow {action:?}")]
pub struct InvalidTransition {
    /// The state that holds.
    pub holds: DeliveryStatus,
    /// What was asked.
    pub action: DeliveryAction,
}

/// Why a delivery failed, as events and REST name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureCode {
    /// The driver would not do it.
    DriverRejected,
    /// The driver was lost.
    DriverOffline,
    /// The goods could not be fetched.
    PickupFailed,
    /// The goods could not be handed over.
    DeliveryFailed,
    /// Took too long.
    Timeout,
    /// An operator ended it.
    ManualCancel,
    /// No driver was found.
    NoDriver,
}

impl FailureCode {
    /// The codes that a driver may give with FAILED.
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

    /// A state or an action that is added must be added to the lists, or nothing here tries it.
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
