//! Where heartbeats go: Redis, PostgreSQL while Redis is out, and both for whoever joins.

use std::time::Duration;

use super::slots::Slot;
use crate::actors::Node;
use crate::actors::session_directory::ToSession;
use crate::domain::ids::DriverId;
use crate::presence::{Heartbeat, JoinOutcome};
use crate::store::positions::{self, PositionUpdate};
use crate::store::{StoreError, drivers};

/// Heartbeats that are dealt with together: acknowledged at once, and written by one statement where they go to PostgreSQL.
const BATCH: usize = 1000;

/// Pause before what failed is tried again.
pub const RETRY_PAUSE: Duration = Duration::from_millis(500);

type Batch = Vec<(DriverId, Slot)>;

/// What came of heartbeats.
#[derive(Default)]
pub struct Written {
    /// In Redis, and not in PostgreSQL yet.
    pub unstored: Batch,
    /// In Redis, whose drivers were absent: first PostgreSQL is to know of them, then they join.
    pub joining: Batch,
    /// Stored nowhere.
    pub failed: Batch,
}

/// Stores heartbeats in Redis or, while it is out, in PostgreSQL, and acknowledges what is stored.
pub async fn write(node: &Node, slots: Batch) -> Written {
    let (mut written, mut slots) = (Written::default(), slots.into_iter());
    loop {
        let batch: Batch = slots.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return written;
        }
        metrics::histogram!("driver_tracker_heartbeat_batch_size").record(batch.len() as f64);
        let heartbeats: Vec<Heartbeat> = batch.iter().map(|(driver, slot)| heartbeat(*driver, slot)).collect();
        match node.presence().heartbeats(&heartbeats).await {
            Ok(lapsed) => {
                acknowledge(&batch, "redis");
                for ((driver, slot), lapsed) in batch.into_iter().zip(lapsed) {
                    let kind = if lapsed || slot.first { &mut written.joining } else { &mut written.unstored };
                    kind.push((driver, Slot { ack: None, ..slot }));
                }
            }
            Err(error) => {
                tracing::debug!(error = %error, "heartbeats go to PostgreSQL");
                if let Err(error) = store(node, &batch).await {
                    tracing::debug!(error = %error, "heartbeats were stored nowhere; trying again");
                    written.failed.extend(batch.into_iter().chain(slots));
                    return written;
                }
                acknowledge(&batch, "postgresql");
            }
        }
    }
}

fn heartbeat(driver_id: DriverId, slot: &Slot) -> Heartbeat {
    let Slot { fix, fix_is_newest, received_at, session_epoch, .. } = *slot;
    Heartbeat { driver_id, fix, fix_is_newest, received_at, session_epoch }
}

fn acknowledge(batch: &[(DriverId, Slot)], stored_in: &'static str) {
    metrics::counter!("driver_tracker_heartbeats_stored_total", "in" => stored_in).increment(batch.len() as u64);
    for (session, seq) in batch.iter().filter_map(|(_, slot)| slot.ack.as_ref()) {
        // A session that is gone needs none.
        session.put(ToSession::Acked(*seq));
    }
}

/// Writes positions to PostgreSQL and gives those that were not written, after a pause.
pub async fn store_all(node: &Node, slots: Batch) -> Batch {
    in_chunks(slots, async |chunk| {
        let stored = store(node, chunk).await;
        if let Err(error) = &stored {
            tracing::debug!(error = %error, "positions were not stored; trying again");
        }
        stored.is_ok()
    })
    .await
}

/// Brings drivers who are back into PostgreSQL, then into GEO, and gives those for whom it is to be done again, after a pause.
pub async fn join_all(node: &Node, slots: Batch) -> Batch {
    in_chunks(slots, async |chunk| join(node, chunk).await).await
}

/// Does the work until a piece of it fails: a PostgreSQL that hangs is not asked once more for each.
async fn in_chunks(slots: Batch, work: impl AsyncFn(&[(DriverId, Slot)]) -> bool) -> Batch {
    for (number, chunk) in slots.chunks(BATCH).enumerate() {
        if !work(chunk).await {
            tokio::time::sleep(RETRY_PAUSE).await;
            return slots[number * BATCH..].to_vec();
        }
    }
    Vec::new()
}

/// `false` when something failed.
async fn join(node: &Node, joining: &[(DriverId, Slot)]) -> bool {
    if let Err(error) = store(node, joining).await {
        tracing::debug!(error = %error, "joining drivers were not stored");
        return false;
    }
    let ids: Vec<DriverId> = joining.iter().map(|(driver, _)| *driver).collect();
    let outcomes = match node.presence().join(&ids).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            tracing::debug!(error = %error, "drivers did not join");
            return false;
        }
    };
    let (mut joined, mut unknown) = (Vec::new(), Vec::new());
    for (driver, outcome) in ids.iter().zip(outcomes) {
        match outcome {
            JoinOutcome::Joined => joined.push(*driver),
            JoinOutcome::UnknownStatus => unknown.push(*driver),
            JoinOutcome::NotAvailable | JoinOutcome::NoPosition => {}
        }
    }
    node.announce_available(joined);
    if unknown.is_empty() {
        return true;
    }
    let states: Result<_, StoreError> =
        node.database().transact(move |conn| Box::pin(async move { drivers::states(conn, &unknown).await })).await;
    match states {
        Ok(states) => node.publish_drivers(&states).await,
        Err(error) => {
            tracing::debug!(error = %error, "drivers' states were not read");
            false
        }
    }
}

async fn store(node: &Node, slots: &[(DriverId, Slot)]) -> Result<(), StoreError> {
    let mut updates: Vec<PositionUpdate> = slots
        .iter()
        .map(|(driver_id, slot)| PositionUpdate {
            driver_id: *driver_id,
            fix: slot.fix,
            age_ms: slot.received.elapsed().as_millis() as i64,
            session_epoch: slot.session_epoch,
        })
        .collect();
    // One order of rows everywhere, so that two nodes cannot deadlock.
    updates.sort_by_key(|update| update.driver_id);
    node.database().transact_relaxed(move |conn| Box::pin(async move { positions::upsert(conn, &updates).await })).await
}
