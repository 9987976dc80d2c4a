//! Keeps Redis equal to PostgreSQL: renews its generation, rebuilds it when it is cold, sends recent changes again (a node
//! may have died between commit and script), compares all of it slowly, and removes silent drivers from GEO.
//!
//! Every node renews (that is how it knows whether Redis is trusted) and sweeps (Redis alone, also while PostgreSQL is
//! out). Rebuild, repeated changes and comparison read PostgreSQL: one node at a time does them, by a lease that only a
//! node acquires to which Redis answers.

use std::time::{Duration, Instant};

use super::driver::{Task, TaskError};
use super::full_resync::FullResync;
use super::lease::Lease;
use super::rebuild::rebuild;
use super::reconcile_error::{OVERLAP_S, RECENT_S, ReconcileError};
use crate::effects::StaleEpochs;
use crate::presence::{Presence, PresenceError, StatusChange};
use crate::store::{Database, StoreError, drivers, schema};

/// Between runs.
pub const EVERY: Duration = Duration::from_millis(1000);
/// Between two repetitions of recent changes.
const REAPPLY_EVERY: Duration = Duration::from_millis(2000);
/// The most drivers that one repetition covers.
const REAPPLY_LIMIT: i64 = 20_000;
/// The most members that one sweep looks at: a fleet that falls silent at once is out within a few runs.
const SWEEP_LIMIT: usize = 20_000;
/// Between two reads of PostgreSQL's identity (a promotion changes it).
const IDENTITY_EVERY: Duration = Duration::from_secs(2);

/// The task.
pub struct Reconciliation {
    database: Database,
    presence: Presence,
    lease: Lease,
    holds_lease: bool,
    identified: Option<Instant>,
    reapplied: Option<Instant>,
    full_resync: FullResync,
    stale_epochs: StaleEpochs,
}

impl Reconciliation {
    /// Compares all of Redis with PostgreSQL once each `compare_every`.
    pub fn new(
        database: Database,
        presence: Presence,
        lease: Lease,
        stale_epochs: StaleEpochs,
        compare_every: Duration,
    ) -> Self {
        let full_resync = FullResync::new(database.clone(), presence.clone(), compare_every);
        Self {
            database,
            presence,
            lease,
            holds_lease: false,
            identified: None,
            reapplied: None,
            full_resync,
            stale_epochs,
        }
    }
}

impl Task for Reconciliation {
    async fn run(&mut self) -> Result<(), TaskError> {
        if is_due(self.identified, IDENTITY_EVERY) {
            match self.identify().await {
                Ok(()) => self.identified = Some(Instant::now()),
                Err(error) => tracing::debug!(error = %error, "the database was not identified"),
            }
        }
        let warmth = self.warm().await;
        metrics::gauge!("driver_tracker_redis_believed").set(if warmth.is_ok() { 1.0 } else { 0.0 });
        match &warmth {
            Ok(()) => self.presence.note_trusted(),
            Err(error) => self.presence.note_distrusted(error),
        }
        if let Err(error) = warmth {
            if matches!(error, ReconcileError::Presence(PresenceError::Unavailable(_))) {
                self.release_lease().await;
            }
            return Err(error.into());
        }
        match self.presence.sweep(SWEEP_LIMIT).await {
            Ok(swept) => {
                metrics::counter!("driver_tracker_presence_swept_total").increment(swept.removed as u64);
            }
            Err(error) => tracing::debug!(error = %error, "Redis was not swept"),
        }
        if !self.acquire_lease().await {
            return Ok(());
        }
        if is_due(self.reapplied, REAPPLY_EVERY) {
            match self.reapply().await {
                Ok(asked_at) => self.reapplied = Some(asked_at),
                Err(error) => tracing::debug!(error = %error, "recent changes were not sent to Redis again"),
            }
        }
        Ok(self.full_resync.step().await?)
    }
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|at| at.elapsed() >= every)
}

impl Reconciliation {
    async fn identify(&self) -> Result<(), StoreError> {
        let identity = self.database.transact(|conn| Box::pin(async move { schema::identity(conn).await })).await?;
        self.presence.set_database_identity(identity);
        Ok(())
    }

    /// Renews the generation of Redis, or rebuilds Redis.
    async fn warm(&mut self) -> Result<(), ReconcileError> {
        if self.presence.renew_generation().await? {
            return Ok(());
        }
        if !self.acquire_lease().await {
            return Err(ReconcileError::Elsewhere);
        }
        rebuild(&self.database, &self.presence, &self.lease).await
    }

    /// Acquires or renews the lease; only after Redis answered this node. A new holder repeats all recent changes.
    async fn acquire_lease(&mut self) -> bool {
        let holds = self.lease.acquire().await.unwrap_or_else(|error| {
            tracing::debug!(error = %error, "the lease was not acquired");
            false
        });
        if holds && !self.holds_lease {
            tracing::info!("this node keeps Redis equal to PostgreSQL from now on");
            self.reapplied = None;
        }
        self.note_lease(holds);
        holds
    }

    /// Redis does not answer this node; it may answer another.
    async fn release_lease(&mut self) {
        if self.holds_lease {
            self.lease.release().await;
        }
        self.note_lease(false);
    }

    fn note_lease(&mut self, holds: bool) {
        self.holds_lease = holds;
        metrics::gauge!("driver_tracker_reconcile_lease_held").set(if holds { 1.0 } else { 0.0 });
    }

    /// Sends the states that changed since the last repetition again, fenced by their epochs. Returns when PostgreSQL was
    /// asked: what is committed after that belongs to the next repetition.
    async fn reapply(&self) -> Result<Instant, ReconcileError> {
        let asked_at = Instant::now();
        let recent_s = self.reapplied.map_or(RECENT_S, |at| at.elapsed().as_secs_f64() + OVERLAP_S);
        let changed = self
            .database
            .transact(move |conn| Box::pin(async move { drivers::changed_within(conn, recent_s, REAPPLY_LIMIT).await }))
            .await?;
        let changes: Vec<StatusChange> = changed.iter().map(StatusChange::from).collect();
        let outcomes = self.presence.transition(&changes).await?;
        self.stale_epochs.note(&changes, &outcomes);
        Ok(asked_at)
    }
}
