//! One heartbeat of a driver, on its way from the session to Redis and PostgreSQL.

use std::time::Instant;

use chrono::{DateTime, Utc};

use super::ids::DriverId;
use super::position::Fix;

/// A heartbeat.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Heartbeat {
    /// Whose.
    pub driver_id: DriverId,
    /// The position and its time; `None`: alive, with an unchanged position.
    pub fix: Option<Fix>,
    /// The fix came with this heartbeat through the driver's session: Redis stores it without a comparison, at half the
    /// cost. Otherwise the fix with the later time wins.
    pub fix_is_newest: bool,
    /// When it reached the node, by the node's wall clock: liveness in Redis is counted from here.
    pub received_at: DateTime<Utc>,
    /// The same moment by the monotonic clock: PostgreSQL gets ages, so that it trusts no node's wall clock.
    pub received: Instant,
    /// The epoch of the session that it came through.
    pub session_epoch: i64,
}
