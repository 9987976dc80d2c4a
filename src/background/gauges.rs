//! Counts orders that wait and events that are not posted, for the metrics.

use super::driver::{Task, TaskError};
use crate::store::outbox::{self, OutboxStats};
use crate::store::{Database, StoreError, overview};

/// The task.
#[derive(Clone)]
pub struct Gauges {
    /// PostgreSQL.
    pub database: Database,
}

impl Task for Gauges {
    /// While PostgreSQL is out, the last counts stay.
    async fn run(&mut self) -> Result<(), TaskError> {
        let counted: Result<(i64, OutboxStats), StoreError> = self
            .database
            .transact(|conn| Box::pin(async move { Ok((overview::waiting(conn).await?, outbox::stats(conn).await?)) }))
            .await;
        let (waiting, outbox) = counted?;
        let oldest_ms = outbox.oldest_pending_ms.unwrap_or(0).max(0);
        metrics::gauge!("driver_tracker_orders_waiting").set(waiting as f64);
        metrics::gauge!("driver_tracker_outbox_pending").set(outbox.pending as f64);
        metrics::gauge!("driver_tracker_outbox_dead").set(outbox.dead as f64);
        metrics::gauge!("driver_tracker_outbox_oldest_pending_seconds").set(oldest_ms as f64 / 1000.0);
        Ok(())
    }
}
