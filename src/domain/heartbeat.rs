//! One heartbeat of a driver, as the session passes it to Redis and PostgreSQL.

use std::time::Instant;

use chrono::{DateTime, Utc};

use super::ids::DriverId;
use super::position::Fix;

/// A heartbeat of a driver.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Heartbeat {
    /// The driver who sent the heartbeat.
    pub driver_id: DriverId,
    /// The position and its time. `None` means that the driver is alive and the position is unchanged.
    pub fix: Option<Fix>,
    /// Whether the fix came with this heartbeat through the driver's session. Redis then stores it without a comparison, at
    /// half the cost. Otherwise the fix with the later time wins.
    pub fix_is_newest: bool,
    /// When the heartbeat reached the node, by the node's wall clock. Liveness in Redis is counted from this time.
    pub received_at: DateTime<Utc>,
    /// The same time by the monotonic clock. PostgreSQL gets ages, so that it does not depend on a node's wall clock.
    pub received: Instant,
    /// The epoch of the session that received the heartbeat.
    pub session_epoch: i64,
}
