//! Applies the effects of a committed use case.

use std::collections::HashSet;

use h3o::Resolution;

use super::{AssignmentQueue, AssignmentWaiters, OutboxWakeUp, SessionNotifications, StaleEpochs};
use crate::dispatch::Effects;
use crate::domain::driver::DriverStatus;
use crate::domain::ids::DriverId;
use crate::domain::position::Fix;
use crate::domain::region::Region;
use crate::presence::{Presence, StatusChange};
use crate::store::drivers::DriverChanged;
use crate::store::{Database, StoreError, positions, waiting};

/// Waiting orders that are compared with the place of a driver who became available.
const PICKUPS: i64 = 500;

/// Applies effects; cheap to clone.
#[derive(Clone)]
pub struct EffectsApplier {
    /// PostgreSQL, to see which orders wait near a driver.
    pub database: Database,
    /// Redis.
    pub presence: Presence,
    /// Webhook requests that wait for an outcome.
    pub waiters: AssignmentWaiters,
    /// The coordinators' work.
    pub assignment: AssignmentQueue,
    /// Wakes the outbox relay.
    pub outbox: OutboxWakeUp,
    /// The sessions, here and on other nodes.
    pub sessions: SessionNotifications,
    /// Drivers whose epoch in Redis is newer than in PostgreSQL.
    pub stale_epochs: StaleEpochs,
    /// The resolution of regions.
    pub resolution: Resolution,
    /// How far from its pickup an order looks for a driver, in metres.
    pub max_radius_m: f64,
}

/// The state that Redis is sent. Defined here, since neither store knows the other.
impl From<&DriverChanged> for StatusChange {
    fn from(driver: &DriverChanged) -> Self {
        Self { driver_id: driver.id, status: driver.status, epoch: driver.epoch }
    }
}

impl EffectsApplier {
    /// Applies what follows a commit. Every part may fail; a sweep or the reconciliation finds it.
    #[tracing::instrument(level = "trace", skip_all)]
    pub async fn apply(&self, effects: Effects) {
        for delivery in &effects.resolved {
            self.waiters.resolve(*delivery);
        }
        self.publish_drivers(&effects.drivers).await;
        for region in &effects.waiting {
            self.assignment.search_due(*region);
        }
        if effects.outbox {
            self.outbox.wake();
        }
        let changed = effects.drivers.iter().map(|changed| changed.id);
        let concerned: HashSet<DriverId> =
            effects.sessions.iter().chain(&effects.commands).copied().chain(changed).collect();
        for driver in concerned {
            self.sessions.notify_everywhere(driver, effects.sessions.contains(&driver));
        }
    }

    /// Sends drivers' states to Redis, and wakes the orders that wait near those who became available. `false` when Redis
    /// did not take them; the reconciliation sends all that changed recently again.
    pub async fn publish_drivers(&self, drivers: &[DriverChanged]) -> bool {
        if drivers.is_empty() {
            return true;
        }
        let changes: Vec<StatusChange> = drivers.iter().map(StatusChange::from).collect();
        let sent = self.presence.transition(&changes).await;
        match &sent {
            Ok(outcomes) => self.stale_epochs.note(&changes, outcomes),
            Err(error) => {
                tracing::debug!(error = %error, "drivers' states were not sent to Redis; the reconciliation sends them again");
            }
        }
        let available = drivers.iter().filter(|c| c.status == DriverStatus::Available).map(|c| c.id);
        self.announce_available(available.collect());
        sent.is_ok()
    }

    /// Wakes the orders that wait within reach of drivers who became available. Thousands of drivers who come back at once
    /// cost one query where no order waits: an order that arrives later finds them by itself.
    pub fn announce_available(&self, drivers: Vec<DriverId>) {
        if drivers.is_empty() {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.wake_orders_near(drivers).await {
                tracing::debug!(error = %error, "orders near an available driver were not woken; the next sweep wakes them");
            }
        });
    }

    async fn wake_orders_near(&self, drivers: Vec<DriverId>) -> Result<(), StoreError> {
        let read = self.database.transact(move |conn| {
            Box::pin(async move {
                let waiting = waiting::pickups(conn, PICKUPS).await?;
                let places = if waiting.is_empty() { Vec::new() } else { positions::get(conn, &drivers).await? };
                Ok::<_, StoreError>((waiting, places))
            })
        });
        let (waiting, places) = read.await?;
        let more_wait = waiting.len() as i64 == PICKUPS;
        for place in places {
            let Some(Fix { position, .. }) = place.fix else { continue };
            if more_wait || waiting.iter().any(|pickup| pickup.distance_m(&position) <= self.max_radius_m) {
                let region = Region::of(&position, self.resolution);
                self.assignment.driver_available(region, place.driver_id, position);
            }
        }
        Ok(())
    }
}
