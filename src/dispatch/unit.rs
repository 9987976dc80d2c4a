//! The unit of work of a use case: a connection inside a transaction, the time of the change, and the effects to apply
//! after the commit.
//!
//! Every change of one unit has the same time. The unit does not commit, and it does not apply its effects.

use chrono::{DateTime, SubsecRound, Utc};
use h3o::Resolution;
use sqlx::PgConnection;

use super::DispatchError;
use crate::domain::ids::{DeliveryId, DriverId};
use crate::domain::region::Region;
use crate::store::deliveries::{self, Delivery};
use crate::store::drivers::DriverChanged;

/// The settings that the use cases need.
#[derive(Clone, Debug)]
pub struct DispatchSettings {
    /// Whether the configured shop has an address for its events. PostgreSQL holds the addresses of other shops.
    pub announces_configured_shop: bool,
    /// Delay before an event is posted for the first time, in seconds.
    pub first_delay_s: f64,
    /// The H3 resolution of regions.
    pub resolution: Resolution,
    /// A driver is assigned an order only if PostgreSQL has a heartbeat of theirs that is younger than this, in seconds. The
    /// value is the time to live of a heartbeat plus the time that a position may take to reach PostgreSQL.
    pub seen_within_s: f64,
}

/// What the caller must do after the commit.
///
/// Every part is a wake-up. A sweep finds the work of a wake-up that was lost.
#[derive(Debug, Default)]
pub struct Effects {
    /// Drivers whose state changed. Redis and their sessions are updated.
    pub drivers: Vec<DriverChanged>,
    /// Drivers with a new command.
    pub commands: Vec<DriverId>,
    /// Regions with a waiting order.
    pub waiting: Vec<Region>,
    /// Deliveries that were assigned or ended. Requests that wait for them are answered.
    pub resolved: Vec<DeliveryId>,
    /// Drivers whose sessions must check their own state again.
    pub sessions: Vec<DriverId>,
    /// Whether the outbox has a new event.
    pub outbox: bool,
}

/// A unit of work inside an open transaction.
pub struct Unit<'c> {
    /// The connection, inside the transaction.
    pub conn: &'c mut PgConnection,
    /// The settings of the use cases.
    pub settings: &'c DispatchSettings,
    /// The time of the change, by the database's clock, in whole milliseconds.
    pub now: DateTime<Utc>,
    /// What the caller must do after the commit.
    pub effects: Effects,
}

impl<'c> Unit<'c> {
    /// Begins a unit on a connection that is inside a transaction.
    pub async fn begin(conn: &'c mut PgConnection, settings: &'c DispatchSettings) -> Result<Self, DispatchError> {
        let now = deliveries::now(&mut *conn).await?.trunc_subsecs(3);
        Ok(Self { conn, settings, now, effects: Effects::default() })
    }

    /// Moves the time of this change to the last change of a locked delivery, if that one is later.
    ///
    /// The unit may have begun before the last change and then waited for the lock. The database's clock may also have been
    /// set back.
    pub fn advance_to_last_change(&mut self, delivery: &Delivery) {
        self.now = self.now.max(delivery.updated_at.trunc_subsecs(3));
    }
}
