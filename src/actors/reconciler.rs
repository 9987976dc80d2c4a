//! `Reconciler`: keeps Redis equal to PostgreSQL. Renews what makes Redis believed, rebuilds it when it came back empty or
//! strange, applies again what changed lately (a node may have died between commit and script), looks for drift, and sweeps
//! out the silent.
//!
//! Every node renews (that is how it knows whether Redis may be believed) and sweeps (Redis alone, also while PostgreSQL is
//! out). Rebuild, re-application and comparison read PostgreSQL: one node at a time does them, by a lease that only a node
//! takes whom Redis answers.
//!
//! It takes no messages: its own timer begins what it does, one thing at a time, so that nothing piles up while it waits.

use std::time::{Duration, Instant};

use actix::prelude::*;

use super::Node;
use super::comparison::Comparison;
use super::lease::Lease;
use super::rebuild::rebuild;
use crate::domain::ids::DriverId;
use crate::presence::{PresenceError, StatusChange, TransitionOutcome};
use crate::store::{StoreError, drivers, schema};

/// Between looks at Redis; each node's are spread by [`JITTER`], so that nodes do not look together.
const TICK_EVERY: Duration = Duration::from_millis(1000);
/// How much sooner or later a tick may come.
const JITTER: f64 = 0.15;
/// Between applying again what changed lately.
const REAPPLY_EVERY: Duration = Duration::from_millis(2000);
/// What counts as lately for a node that has just begun, in seconds: far more than a transaction may take.
const LATELY_S: f64 = 60.0;
/// How far one re-application reaches behind the one before it, in seconds: more than a transaction may take.
pub(super) const OVERLAP_S: f64 = 12.0;
/// The most drivers that one re-application covers.
const REAPPLY_LIMIT: i64 = 20_000;
/// The most members that one sweep looks at: a fleet that falls silent at once is out within a few ticks.
const SWEEP_LIMIT: usize = 20_000;
/// Between asking PostgreSQL who it is (a promotion changes it).
const IDENTITY_EVERY: Duration = Duration::from_secs(2);

/// The actor.
pub struct Reconciler {
    node: Node,
    state: State,
}

/// What one tick leaves to the next.
#[derive(Clone)]
struct State {
    lease: Lease,
    holds_lease: bool,
    identified: Option<Instant>,
    reapplied: Option<Instant>,
    comparison: Comparison,
}

impl Reconciler {
    /// Works for `node`.
    pub fn new(node: Node) -> Self {
        let state = State {
            lease: Lease::new(node.clone(), "reconcile"),
            holds_lease: false,
            identified: None,
            reapplied: None,
            comparison: Comparison::new(node.config().redis.compare_every),
        };
        Self { node, state }
    }
}

impl Actor for Reconciler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        tick_and_again(self, ctx);
    }
}

/// A tick now, and the next one later, whatever becomes of this one.
fn tick_and_again(this: &mut Reconciler, ctx: &mut Context<Reconciler>) {
    let (node, mut state) = (this.node.clone(), this.state.clone());
    let tick = async move {
        reconcile(&node, &mut state).await;
        state
    };
    ctx.wait(tick.into_actor(this).map(|state, this, _| this.state = state));
    let pause = TICK_EVERY.mul_f64(rand::random_range(1.0 - JITTER..1.0 + JITTER));
    ctx.run_later(pause, tick_and_again);
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|at| at.elapsed() >= every)
}

async fn reconcile(node: &Node, state: &mut State) {
    if is_due(state.identified, IDENTITY_EVERY) {
        match identify(node).await {
            Ok(()) => state.identified = Some(Instant::now()),
            Err(error) => tracing::debug!(error = %error, "the database was not identified"),
        }
    }
    let warmth = warm(node, state).await;
    node.finder().note(warmth.as_ref().err().map(|error| error as _));
    metrics::gauge!("driver_tracker_redis_believed").set(if warmth.is_ok() { 1.0 } else { 0.0 });
    if let Err(error) = warmth {
        if matches!(error, ReconcileError::Presence(PresenceError::Unavailable(_))) {
            release_lease(state).await;
        }
        return;
    }
    match node.presence().sweep(SWEEP_LIMIT).await {
        Ok(swept) => {
            metrics::counter!("driver_tracker_presence_swept_total").increment(swept.removed as u64);
        }
        Err(error) => tracing::debug!(error = %error, "Redis was not swept"),
    }
    if !acquire_lease(state).await {
        return;
    }
    if is_due(state.reapplied, REAPPLY_EVERY) {
        match reapply(node, state.reapplied).await {
            Ok(asked_at) => state.reapplied = Some(asked_at),
            Err(error) => tracing::debug!(error = %error, "recent changes were not applied again"),
        }
    }
    if let Err(error) = state.comparison.step(node).await {
        tracing::debug!(error = %error, "a page of Redis was not compared with PostgreSQL");
    }
}

/// Why Redis and PostgreSQL could not be brought together.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error(transparent)]
    Presence(#[from] PresenceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("another node rebuilds Redis")]
    Elsewhere,
    #[error("Redis was emptied during its rebuild")]
    Disturbed,
}

async fn identify(node: &Node) -> Result<(), StoreError> {
    let identity = node.database().transact(|conn| Box::pin(async move { schema::identity(conn).await })).await?;
    node.presence().set_database_identity(identity);
    Ok(())
}

/// Makes sure that Redis may be believed: renews its generation, or rebuilds it.
async fn warm(node: &Node, state: &mut State) -> Result<(), ReconcileError> {
    if node.presence().renew_generation().await? {
        return Ok(());
    }
    if !acquire_lease(state).await {
        return Err(ReconcileError::Elsewhere);
    }
    rebuild(node, &state.lease).await
}

/// Acquires or renews the lease; only after Redis answered this node. What is applied and compared begins anew with it.
async fn acquire_lease(state: &mut State) -> bool {
    let holds = state.lease.acquire().await.unwrap_or_else(|error| {
        tracing::debug!(error = %error, "the lease was not acquired");
        false
    });
    if holds && !state.holds_lease {
        tracing::info!("this node keeps Redis equal to PostgreSQL from now on");
        state.reapplied = None;
    }
    note_lease(state, holds);
    holds
}

/// Redis does not answer this node: another one may be luckier.
async fn release_lease(state: &mut State) {
    if state.holds_lease {
        state.lease.release().await;
    }
    note_lease(state, false);
}

fn note_lease(state: &mut State, holds: bool) {
    state.holds_lease = holds;
    metrics::gauge!("driver_tracker_reconcile_lease_held").set(if holds { 1.0 } else { 0.0 });
}

/// Applies again, fenced by their epochs, the states that changed since PostgreSQL was asked the `last` time; when it was now:
/// what is committed while Redis is told belongs to the next one.
async fn reapply(node: &Node, last: Option<Instant>) -> Result<Instant, ReconcileError> {
    let asked_at = Instant::now();
    let lately_s = last.map_or(LATELY_S, |at| at.elapsed().as_secs_f64() + OVERLAP_S);
    let changed = node
        .database()
        .transact(move |conn| Box::pin(async move { drivers::changed_within(conn, lately_s, REAPPLY_LIMIT).await }))
        .await?;
    let changes: Vec<StatusChange> = changed.iter().map(StatusChange::from).collect();
    let outcomes = node.presence().transition(&changes).await?;
    let stale = stale_of(&changes, &outcomes);
    if !stale.is_empty() {
        Comparison::examine(node, stale).await?;
    }
    Ok(asked_at)
}

/// The drivers of whom Redis knows a newer epoch than the one it was sent.
pub(super) fn stale_of(changes: &[StatusChange], outcomes: &[TransitionOutcome]) -> Vec<DriverId> {
    let stale = changes.iter().zip(outcomes).filter(|(_, outcome)| **outcome == TransitionOutcome::Stale);
    stale.map(|(change, _)| change.driver_id).collect()
}
