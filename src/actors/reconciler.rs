//! `Reconciler`: keeps Redis equal to PostgreSQL. Renews what makes Redis believed, rebuilds it when it came back empty or
//! strange, applies again what changed lately (a node may have died between commit and script), and sweeps out the silent.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Tick` | its own interval | none | the next interval |

use std::time::{Duration, Instant};

use actix::prelude::*;
use chrono::{TimeDelta, Utc};

use super::Node;
use crate::domain::ids::DriverId;
use crate::domain::position::{Fix, Position};
use crate::presence::{Heartbeat, PresenceError, RebuildDriver, StatusChange};
use crate::store::drivers::{self, RebuildRow};
use crate::store::{StoreError, schema};

/// Between looks at Redis.
const TICK_EVERY: Duration = Duration::from_millis(1000);
/// Between applying again what changed lately.
const REAPPLY_EVERY: Duration = Duration::from_millis(2000);
/// What counts as lately, in seconds: far more than a transaction may take.
const LATELY_S: f64 = 60.0;
/// Drivers in one page of a rebuild or a re-application.
const PAGE: i64 = 1000;
/// The most drivers that one re-application covers.
const REAPPLY_LIMIT: i64 = 20_000;
/// Members that one sweep looks at.
const SWEEP_LIMIT: usize = 1000;
/// Between asking PostgreSQL who it is (a promotion changes it).
const IDENTITY_EVERY: Duration = Duration::from_secs(10);

#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

/// The actor.
pub struct Reconciler {
    node: Node,
    identified: Option<Instant>,
    reapplied: Option<Instant>,
}

impl Reconciler {
    /// Works for `node`.
    pub fn new(node: Node) -> Self {
        Self { node, identified: None, reapplied: None }
    }
}

impl Actor for Reconciler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let _ = ctx.address().try_send(Tick);
        ctx.run_interval(TICK_EVERY, |_, ctx| drop(ctx.address().try_send(Tick)));
    }
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|at| at.elapsed() >= every)
}

impl Handler<Tick> for Reconciler {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Tick, _: &mut Self::Context) -> Self::Result {
        let node = self.node.clone();
        let identify = is_due(self.identified, IDENTITY_EVERY);
        let reapply = is_due(self.reapplied, REAPPLY_EVERY);
        let tick = async move { reconcile(&node, identify, reapply).await };
        AtomicResponse::new(Box::pin(tick.into_actor(self).map(|done, this, _| {
            if done.identified {
                this.identified = Some(Instant::now());
            }
            if done.reapplied {
                this.reapplied = Some(Instant::now());
            }
        })))
    }
}

#[derive(Default)]
struct Done {
    identified: bool,
    reapplied: bool,
}

async fn reconcile(node: &Node, identify_due: bool, reapply_due: bool) -> Done {
    let mut done = Done { identified: !identify_due, reapplied: false };
    if identify_due {
        match identify(node).await {
            Ok(()) => done.identified = true,
            Err(error) => tracing::debug!(error = %error, "the database was not identified"),
        }
    }
    let warmth = warm(node).await;
    match &warmth {
        Ok(()) => node.finder().set_degraded(false, ""),
        Err(error) => node.finder().set_degraded(true, &error.to_string()),
    }
    metrics::gauge!("driver_tracker_redis_believed").set(if warmth.is_ok() { 1.0 } else { 0.0 });
    if warmth.is_err() {
        // Orders look into PostgreSQL now: it must know where everybody is.
        if let Some(actors) = node.actors() {
            actors.writer.store_soon();
        }
        return done;
    }
    if reapply_due {
        match reapply(node).await {
            Ok(()) => done.reapplied = true,
            Err(error) => tracing::debug!(error = %error, "recent changes were not applied again"),
        }
    }
    match node.presence().sweep(SWEEP_LIMIT).await {
        Ok(swept) => {
            metrics::counter!("driver_tracker_presence_swept_total").increment(swept.removed as u64);
        }
        Err(error) => tracing::debug!(error = %error, "Redis was not swept"),
    }
    done
}

/// Why Redis and PostgreSQL could not be brought together.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
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
async fn warm(node: &Node) -> Result<(), ReconcileError> {
    if node.presence().renew_generation().await? {
        return Ok(());
    }
    let Some(token) = node.presence().begin_rebuild().await? else { return Err(ReconcileError::Elsewhere) };
    let began = Instant::now();
    let mut after: Option<DriverId> = None;
    let mut loaded = 0;
    loop {
        let rows = node
            .database()
            .transact(move |conn| Box::pin(async move { drivers::page_for_rebuild(conn, after, PAGE).await }))
            .await?;
        let page: Vec<RebuildDriver> = rows.iter().map(rebuild_driver).collect();
        node.presence().load(&page).await?;
        loaded += page.len();
        after = rows.last().map(|row| row.changed.id);
        if rows.len() < PAGE as usize {
            break;
        }
    }
    if !node.presence().finish_rebuild(token).await? {
        return Err(ReconcileError::Disturbed);
    }
    metrics::counter!("driver_tracker_redis_rebuilds_total").increment(1);
    tracing::info!(drivers = loaded, took_ms = began.elapsed().as_millis() as u64, "Redis rebuilt from PostgreSQL");
    Ok(())
}

fn rebuild_driver(row: &RebuildRow) -> RebuildDriver {
    let changed = row.changed;
    let fix = row.fix.and_then(|(lat, lon, time)| Some(Fix { position: Position::new(lat, lon).ok()?, time }));
    let online = row.silent_ms.map(|silent_ms| Heartbeat {
        driver_id: changed.id,
        fix,
        received_at: Utc::now() - TimeDelta::milliseconds(silent_ms.max(0)),
        session_epoch: row.session_epoch.unwrap_or(0),
    });
    RebuildDriver {
        change: StatusChange { driver_id: changed.id, status: changed.status, epoch: changed.epoch },
        online,
    }
}

/// Applies again, fenced by their epochs, the states that changed lately.
async fn reapply(node: &Node) -> Result<(), ReconcileError> {
    let changed = node
        .database()
        .transact(|conn| Box::pin(async move { drivers::changed_within(conn, LATELY_S, REAPPLY_LIMIT).await }))
        .await?;
    let changes: Vec<StatusChange> =
        changed.iter().map(|c| StatusChange { driver_id: c.id, status: c.status, epoch: c.epoch }).collect();
    node.presence().transition(&changes).await?;
    Ok(())
}
