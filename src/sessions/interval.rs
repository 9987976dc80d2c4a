//! The heartbeat interval of a session, as the app last received it. The session sends a new interval when the driver's
//! tier changes.

use crate::config::HeartbeatConfig;
use crate::domain::driver::HeartbeatTier;
use crate::protocol::outbound::HeartbeatInterval;
use crate::store::drivers::DriverChanged;

/// The heartbeat interval of this tier, and the TTL. All tiers share one TTL: every interval fits into it three times.
pub fn interval_of(tier: HeartbeatTier, config: &HeartbeatConfig) -> HeartbeatInterval {
    HeartbeatInterval {
        heartbeat_interval_ms: config.interval_of(tier).as_millis() as u64,
        ttl_ms: config.ttl.as_millis() as u64,
    }
}

/// The interval of one session. It exists from its `welcome` on.
#[derive(Debug, Clone, Copy)]
pub struct SessionInterval {
    tier: HeartbeatTier,
    /// The epoch of the driver's state that `tier` comes from. It is compared because an answer may arrive after a
    /// newer state.
    epoch: i64,
}

impl SessionInterval {
    /// The interval that the `welcome` of a driver sends.
    pub fn of(state: &DriverChanged) -> Self {
        Self { tier: state.heartbeat_tier(), epoch: state.epoch }
    }

    /// The tier that the app knows.
    pub fn heartbeat_tier(&self) -> HeartbeatTier {
        self.tier
    }

    /// Applies a newer state. `true` when the app needs another interval.
    pub fn follow(&mut self, state: &DriverChanged) -> bool {
        if state.epoch < self.epoch {
            return false;
        }
        self.epoch = state.epoch;
        std::mem::replace(&mut self.tier, state.heartbeat_tier()) != self.tier
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::driver::DriverStatus;
    use crate::domain::ids::DriverId;

    fn state(epoch: i64, on_duty: bool, used_slots: i32) -> DriverChanged {
        DriverChanged { id: DriverId::new(), epoch, status: DriverStatus::Offline, on_duty, used_slots }
    }

    #[test]
    fn an_older_state_that_comes_late_changes_nothing() {
        let mut interval = SessionInterval::of(&state(3, false, 0));
        assert!(interval.follow(&state(5, true, 1)));
        assert!(!interval.follow(&state(4, true, 0)), "the answer to the driver's own frame, overtaken by an order");
        assert_eq!(interval.heartbeat_tier(), HeartbeatTier::Busy);
        assert!(!interval.follow(&state(6, false, 1)), "off duty with an order is as busy");
        assert!(interval.follow(&state(7, false, 0)));
        assert!(!interval.follow(&state(7, false, 0)));
    }
}
