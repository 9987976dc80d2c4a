//! The pace that a session's app was last told: how often to speak up. It follows what the driver is doing, and is told anew
//! when it changes, whoever changed it.

use crate::config::HeartbeatConfig;
use crate::domain::driver::Attention;
use crate::protocol::outbound::Pace;
use crate::store::drivers::DriverChanged;

/// The heartbeat interval of drivers of this tier, and the TTL, which is one for all: every interval fits into it three
/// times.
pub fn interval_of(attention: Attention, config: &HeartbeatConfig) -> Pace {
    Pace {
        heartbeat_interval_ms: config.interval_of(attention).as_millis() as u64,
        ttl_ms: config.ttl.as_millis() as u64,
    }
}

/// Of one session. Nothing is told before its `welcome`.
#[derive(Debug, Clone, Copy)]
pub struct SessionPace {
    attention: Attention,
    /// The epoch of the driver's state that `attention` is of: answers may overtake news.
    epoch: i64,
}

impl SessionPace {
    /// As a driver's `welcome` tells it.
    pub fn of(state: &DriverChanged) -> Self {
        Self { attention: state.attention(), epoch: state.epoch }
    }

    /// How closely the app believes to be followed.
    pub fn attention(&self) -> Attention {
        self.attention
    }

    /// Takes a newer state in; true when the app must be told another pace.
    pub fn follow(&mut self, state: &DriverChanged) -> bool {
        if state.epoch < self.epoch {
            return false;
        }
        self.epoch = state.epoch;
        std::mem::replace(&mut self.attention, state.attention()) != self.attention
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
        let mut pace = SessionPace::of(&state(3, false, 0));
        assert!(pace.follow(&state(5, true, 1)));
        assert!(!pace.follow(&state(4, true, 0)), "the answer to the driver's own frame, overtaken by an order");
        assert_eq!(pace.attention(), Attention::Busy);
        assert!(!pace.follow(&state(6, false, 1)), "off duty with an order in hand is as busy");
        assert!(pace.follow(&state(7, false, 0)));
        assert!(!pace.follow(&state(7, false, 0)));
    }
}
