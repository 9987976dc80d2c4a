//! One unit of work: a connection inside a transaction, its moment, and what must follow its commit.

use chrono::{DateTime, SubsecRound, Utc};
use h3o::Resolution;
use sqlx::PgConnection;

use super::DispatchError;
use crate::domain::ids::{DeliveryId, DriverId};
use crate::domain::region::Region;
use crate::store::deliveries::{self, Delivery};
use crate::store::drivers::DriverChanged;

/// What the configuration says about dispatching.
#[derive(Clone, Debug)]
pub struct DispatchSettings {
    /// Whether there is anywhere to post the events of the configured shop to; of others, PostgreSQL knows.
    pub announces_configured_shop: bool,
    /// Delay of the first try of an event, in seconds.
    pub first_delay_s: f64,
    /// Size of regions.
    pub resolution: Resolution,
    /// How recently PostgreSQL must have received a heartbeat of a driver who is assigned an order, in seconds: the heartbeat's time to live,
    /// and the time that a position may take to get there.
    pub seen_within_s: f64,
}

/// What must follow the commit. Every part of it is a wake-up: a sweep finds what is lost.
#[derive(Debug, Default)]
pub struct Effects {
    /// Drivers whose state changed, for Redis and for their sessions.
    pub drivers: Vec<DriverChanged>,
    /// Drivers with a new command.
    pub commands: Vec<DriverId>,
    /// Regions with an order that waits.
    pub waiting: Vec<Region>,
    /// Deliveries that were assigned or ended, for the requests that wait for them.
    pub resolved: Vec<DeliveryId>,
    /// Drivers whose sessions must look at themselves again.
    pub sessions: Vec<DriverId>,
    /// There is something to post.
    pub outbox: bool,
}

/// A transaction under way.
pub struct Unit<'c> {
    /// The connection, inside the transaction.
    pub conn: &'c mut PgConnection,
    /// The configuration's part.
    pub settings: &'c DispatchSettings,
    /// The moment of the change, by the database's clock, in whole milliseconds.
    pub now: DateTime<Utc>,
    /// What must follow the commit.
    pub effects: Effects,
}

impl<'c> Unit<'c> {
    /// Begins a unit on a connection that is inside a transaction.
    pub async fn begin(conn: &'c mut PgConnection, settings: &'c DispatchSettings) -> Result<Self, DispatchError> {
        let now = deliveries::now(&mut *conn).await?.trunc_subsecs(3);
        Ok(Self { conn, settings, now, effects: Effects::default() })
    }

    /// Moves the moment of this change behind the last change of a locked delivery. The unit may have begun before that one
    /// and then waited for the lock, or the database's clock may have been set back.
    pub fn follow_last_change(&mut self, delivery: &Delivery) {
        self.now = self.now.max(delivery.updated_at.trunc_subsecs(3));
    }
}
