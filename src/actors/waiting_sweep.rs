//! `WaitingSweep`: no accepted order is forgotten. Wakes the coordinator of every region that has an order due, whatever
//! resolution its region was made with, forgets old bookkeeping, and measures what waits.
//!
//! It takes no messages: its own timer begins what it does, one thing at a time, so that nothing piles up while it waits.

use std::time::{Duration, Instant};

use actix::prelude::*;

use super::Node;
use crate::store::outbox::{self, OutboxStats};
use crate::store::{StoreError, commands, idempotency, overview, waiting};

/// How often old commands and answers are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// How often what waits is counted, for the metrics.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// The actor.
pub struct WaitingSweep {
    node: Node,
    pruned: Instant,
}

impl WaitingSweep {
    /// Sweeps for `node`.
    pub fn new(node: Node) -> Self {
        Self { node, pruned: Instant::now() }
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        let node = self.node.clone();
        let prune = self.pruned.elapsed() >= PRUNE_EVERY;
        if prune {
            self.pruned = Instant::now();
        }
        let sweep = async move {
            if let Err(error) = wake_regions(&node).await {
                tracing::debug!(error = %error, "waiting orders were not swept");
            }
            if prune && let Err(error) = forget_old(&node).await {
                tracing::debug!(error = %error, "old rows were not pruned");
            }
        };
        ctx.wait(sweep.into_actor(self));
    }

    fn measure(&mut self, ctx: &mut Context<Self>) {
        let node = self.node.clone();
        ctx.wait(async move { measure(&node).await }.into_actor(self));
    }
}

impl Actor for WaitingSweep {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let every = self.node.config().assignment.pending_sweep;
        ctx.run_interval(every, |this, ctx| this.sweep(ctx));
        self.measure(ctx);
        ctx.run_interval(MEASURE_EVERY, |this, ctx| this.measure(ctx));
    }
}

/// While PostgreSQL is out, the last counts stand.
async fn measure(node: &Node) {
    let counted: Result<(i64, OutboxStats), StoreError> = node
        .database()
        .transact(|conn| Box::pin(async move { Ok((overview::waiting(conn).await?, outbox::stats(conn).await?)) }))
        .await;
    match counted {
        Ok((waiting, outbox)) => {
            let oldest_ms = outbox.oldest_pending_ms.unwrap_or(0).max(0);
            metrics::gauge!("driver_tracker_orders_waiting").set(waiting as f64);
            metrics::gauge!("driver_tracker_outbox_pending").set(outbox.pending as f64);
            metrics::gauge!("driver_tracker_outbox_dead").set(outbox.dead as f64);
            metrics::gauge!("driver_tracker_outbox_oldest_pending_seconds").set(oldest_ms as f64 / 1000.0);
        }
        Err(error) => tracing::debug!(error = %error, "what waits was not counted"),
    }
}

async fn wake_regions(node: &Node) -> Result<(), StoreError> {
    let regions = node.database().transact(|conn| Box::pin(async move { waiting::regions(conn).await })).await?;
    metrics::gauge!("driver_tracker_regions_waiting").set(regions.len() as f64);
    if let Some(actors) = node.actors() {
        for region in regions {
            actors.coordinators.search_due(region);
        }
    }
    Ok(())
}

async fn forget_old(node: &Node) -> Result<(), StoreError> {
    node.database()
        .transact(|conn| {
            Box::pin(async move {
                commands::prune(conn).await?;
                idempotency::prune(conn).await?;
                Ok(())
            })
        })
        .await
}
