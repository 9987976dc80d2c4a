//! `TrackDays`: keeps the days of tracks of deliveries: makes those to come, forgets those that are over.
//!
//! It takes no messages: its own timer begins what it does, one thing at a time, so that nothing piles up while it waits.

use std::time::Duration;

use actix::prelude::*;

use super::Node;
use super::lease::Lease;
use crate::store::{StoreError, tracks};

/// Between looks at the days of the track, the first one aside.
const KEEP_EVERY: Duration = Duration::from_secs(600);
/// Days that are made before they come.
const DAYS_AHEAD: i32 = 2;
/// Fixes without a day of their own that go at once, and how often in one look: more than come meanwhile.
const FORGET_MOST: i64 = 10_000;
const FORGET_STEPS: u32 = 500;

/// The actor.
pub struct TrackDays {
    node: Node,
    lease: Lease,
}

impl TrackDays {
    /// Keeps the days for `node`, while it has the lease.
    pub fn new(node: Node) -> Self {
        Self { lease: Lease::new(node.clone(), "tracks"), node }
    }

    fn keep_and_again(&mut self, ctx: &mut Context<Self>) {
        let (node, lease) = (self.node.clone(), self.lease.clone());
        let keeping = async move {
            if let Err(error) = keep(&node, &lease).await {
                tracing::debug!(error = %error, "the days of tracks were not kept");
            }
        };
        ctx.wait(keeping.into_actor(self));
        ctx.run_later(KEEP_EVERY.mul_f64(rand::random_range(0.8..1.2)), Self::keep_and_again);
    }
}

impl Actor for TrackDays {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.keep_and_again(ctx);
    }
}

/// Makes the days to come and forgets those that are over; one node at a time.
async fn keep(node: &Node, lease: &Lease) -> Result<(), StoreError> {
    if !lease.acquire().await? {
        return Ok(());
    }
    if let Err(error) = make_days(node).await {
        tracing::debug!(error = %error, "days of tracks were not made");
    }
    match node.config().heartbeat.track_retention_days {
        Some(days) => forget(node, days).await,
        None => Ok(()),
    }
}

async fn make_days(node: &Node) -> Result<(), StoreError> {
    for ahead in 0..=DAYS_AHEAD {
        let made = node.database().transact(move |conn| Box::pin(async move { tracks::make_day(conn, ahead).await }));
        if !made.await? {
            tracing::debug!("the role may make no table: fixes of tracks go into the default partition");
            break;
        }
    }
    Ok(())
}

/// Whole days first, then, piece by piece, what has no day of its own.
async fn forget(node: &Node, days: i32) -> Result<(), StoreError> {
    let dropped: Result<_, StoreError> =
        node.database().transact(move |conn| Box::pin(async move { tracks::drop_days(conn, days).await })).await;
    match dropped {
        Ok((0, 0)) => {}
        Ok((gone, 0)) => tracing::info!(days = gone, "old days of tracks were forgotten"),
        Ok((_, kept)) => {
            tracing::warn!(days = kept, "old days of tracks could not be dropped: another role's, or being read");
        }
        Err(error) => tracing::debug!(error = %error, "old days of tracks were not dropped"),
    }
    for _ in 0..FORGET_STEPS {
        let forgotten: Result<u64, StoreError> = node
            .database()
            .transact(move |conn| Box::pin(async move { tracks::forget_others(conn, days, FORGET_MOST).await }))
            .await;
        if forgotten? < FORGET_MOST as u64 {
            break;
        }
    }
    Ok(())
}
