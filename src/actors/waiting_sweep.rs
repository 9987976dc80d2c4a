//! `WaitingSweep`: no accepted order is forgotten. Wakes the coordinator of every region that has an order due, whatever
//! resolution its region was made with, and forgets old bookkeeping.

use std::time::{Duration, Instant};

use actix::prelude::*;

use super::Node;
use crate::store::{StoreError, commands, deliveries, idempotency};

/// How often old commands and answers are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

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
}

/// Time to look.
#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

impl Actor for WaitingSweep {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let every = self.node.config().assignment.pending_sweep;
        ctx.run_interval(every, |_, ctx| {
            // A full mailbox means that a sweep is due already.
            let _ = ctx.address().try_send(Tick);
        });
    }
}

impl Handler<Tick> for WaitingSweep {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Tick, _: &mut Self::Context) -> Self::Result {
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
        AtomicResponse::new(Box::pin(sweep.into_actor(self)))
    }
}

async fn wake_regions(node: &Node) -> Result<(), StoreError> {
    let regions =
        node.database().transact(|conn| Box::pin(async move { deliveries::waiting_regions(conn).await })).await?;
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
