//! Keeps the daily partitions of the tracks: creates those of the coming days, and prunes those past their retention.

use super::driver::{Task, TaskError};
use super::lease::Lease;
use crate::store::{Database, StoreError, tracks};

/// Partitions that are created before their day.
const DAYS_AHEAD: i32 = 2;
/// Fixes without a partition of their own that are deleted at once, and how often in one run: more than come meanwhile.
const PRUNE_MOST: i64 = 10_000;
const PRUNE_STEPS: u32 = 500;

/// The task; one node at a time does it.
#[derive(Clone)]
pub struct TrackPartitions {
    /// PostgreSQL.
    pub database: Database,
    /// The lease `tracks`.
    pub lease: Lease,
    /// `TRACK_RETENTION_DAYS`; `None`: tracks are kept.
    pub retention_days: Option<i32>,
}

impl Task for TrackPartitions {
    async fn run(&mut self) -> Result<(), TaskError> {
        if !self.lease.acquire().await? {
            return Ok(());
        }
        if let Err(error) = self.create_coming().await {
            tracing::debug!(error = %error, "partitions of tracks were not created");
        }
        if let Some(days) = self.retention_days {
            self.prune(days).await?;
        }
        Ok(())
    }
}

impl TrackPartitions {
    async fn create_coming(&self) -> Result<(), StoreError> {
        for ahead in 0..=DAYS_AHEAD {
            let created =
                self.database.transact(move |conn| Box::pin(async move { tracks::make_day(conn, ahead).await }));
            if !created.await? {
                tracing::debug!("the role may create no table: fixes of tracks go into the default partition");
                break;
            }
        }
        Ok(())
    }

    /// Whole partitions first; then, piece by piece, fixes in the default partition.
    async fn prune(&self, days: i32) -> Result<(), StoreError> {
        let dropped: Result<_, StoreError> =
            self.database.transact(move |conn| Box::pin(async move { tracks::drop_days(conn, days).await })).await;
        match dropped {
            Ok((0, 0)) => {}
            Ok((gone, 0)) => tracing::info!(days = gone, "old partitions of tracks were dropped"),
            Ok((_, kept)) => {
                tracing::warn!(
                    days = kept,
                    "old partitions of tracks could not be dropped: another role owns them, or they are being read"
                );
            }
            Err(error) => tracing::debug!(error = %error, "old partitions of tracks were not dropped"),
        }
        for _ in 0..PRUNE_STEPS {
            let deleted: Result<u64, StoreError> = self
                .database
                .transact(move |conn| Box::pin(async move { tracks::prune_others(conn, days, PRUNE_MOST).await }))
                .await;
            if deleted? < PRUNE_MOST as u64 {
                break;
            }
        }
        Ok(())
    }
}
