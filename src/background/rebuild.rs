//! Rebuilds Redis from PostgreSQL when it is cold.

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};

use super::lease::Lease;
use super::reconcile_error::ReconcileError;
use crate::domain::heartbeat::Heartbeat;
use crate::domain::ids::DriverId;
use crate::domain::position::{Fix, Position};
use crate::presence::{Presence, PresenceError, RebuildDriver};
use crate::store::drivers::{self, RebuildRow};
use crate::store::{Database, StoreError};

/// Drivers in one page: large, since PostgreSQL reads the next one while Redis stores this one.
const PAGE: i64 = 4000;

/// How often a page is offered to a Redis that does not answer in time.
const LOAD_TRIES: u32 = 5;
/// Between two tries: longer than the breaker is open, and all of them shorter than the token lives.
const LOAD_PAUSE: Duration = Duration::from_millis(700);

/// Fills Redis and sets its generation, so that it is trusted. The holder of the lease does it; a token in Redis, taken before the first read of
/// PostgreSQL, makes it safe against another node, a flush and a restart of Redis in the middle.
pub(super) async fn rebuild(database: &Database, presence: &Presence, lease: &Lease) -> Result<(), ReconcileError> {
    let Some(token) = presence.begin_rebuild().await? else { return Err(ReconcileError::Elsewhere) };
    let began = Instant::now();
    let mut loaded = 0;
    let mut rows = read_page(database, None).await?;
    loop {
        let next = if rows.len() == PAGE as usize { rows.last().map(|row| row.changed.id) } else { None };
        let page: Vec<RebuildDriver> = rows.iter().map(rebuild_driver).collect();
        let reading = async {
            match next {
                Some(after) => read_page(database, Some(after)).await,
                None => Ok(Vec::new()),
            }
        };
        let (loading, read, renewed) = tokio::join!(load(presence, &page), reading, lease.acquire());
        loading?;
        // Lost to nobody as long as the token is ours.
        if let Err(error) = renewed {
            tracing::debug!(error = %error, "the lease was not renewed during a rebuild");
        }
        loaded += page.len();
        rows = read?;
        if next.is_none() {
            break;
        }
    }
    if !presence.finish_rebuild(token).await? {
        return Err(ReconcileError::Disturbed);
    }
    metrics::counter!("driver_tracker_redis_rebuilds_total").increment(1);
    tracing::info!(drivers = loaded, took_ms = began.elapsed().as_millis() as u64, "Redis rebuilt from PostgreSQL");
    Ok(())
}

/// A call that Redis did not answer in time costs its page and not the whole rebuild: what is loaded twice is no harm, and the
/// token shows whether what was loaded before is still there.
async fn load(presence: &Presence, page: &[RebuildDriver]) -> Result<(), PresenceError> {
    let mut tries = 1;
    loop {
        match presence.load(page).await {
            Err(PresenceError::Unavailable(outage)) if tries < LOAD_TRIES => {
                tracing::debug!(error = %outage, tries, "a page of a rebuild was not loaded; trying again");
                tries += 1;
                tokio::time::sleep(LOAD_PAUSE).await;
            }
            done => return done,
        }
    }
}

async fn read_page(database: &Database, after: Option<DriverId>) -> Result<Vec<RebuildRow>, StoreError> {
    database.transact(move |conn| Box::pin(async move { drivers::page_for_rebuild(conn, after, PAGE).await })).await
}

fn rebuild_driver(row: &RebuildRow) -> RebuildDriver {
    let changed = row.changed;
    let fix = row.fix.and_then(|(lat, lon, time)| Some(Fix { position: Position::new(lat, lon).ok()?, time }));
    let online = row.silent_ms.map(|silent_ms| Heartbeat {
        driver_id: changed.id,
        fix,
        fix_is_newest: false,
        received_at: Utc::now() - TimeDelta::milliseconds(silent_ms.max(0)),
        received: Instant::now(),
        session_epoch: row.session_epoch.unwrap_or(0),
    });
    RebuildDriver { change: (&changed).into(), online }
}
