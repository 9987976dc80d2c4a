//! Stores heartbeats: in Redis, in PostgreSQL while Redis is out, and in both for drivers who join.

use std::time::Duration;

use super::slots::Slot;
use crate::domain::heartbeat::Heartbeat;
use crate::domain::ids::DriverId;
use crate::effects::EffectsApplier;
use crate::presence::JoinOutcome;
use crate::store::{StoreError, drivers, positions};

/// Heartbeats that are stored together: acknowledged at once, and written by one statement where they go to PostgreSQL.
const BATCH: usize = 1000;

/// Pause before what failed is tried again.
pub const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The outcome of a batch.
#[derive(Default)]
pub struct Written {
    /// In Redis, and not in PostgreSQL yet.
    pub unstored: Vec<Slot>,
    /// In Redis, where their drivers were absent: they are stored in PostgreSQL first, and then join.
    pub joining: Vec<Slot>,
    /// Stored nowhere.
    pub failed: Vec<Slot>,
}

/// Stores heartbeats in Redis or, while it is out, in PostgreSQL, and acknowledges those that are stored.
#[tracing::instrument(level = "trace", skip_all)]
pub async fn write(effects: &EffectsApplier, slots: Vec<Slot>) -> Written {
    let (mut written, mut slots) = (Written::default(), slots.into_iter());
    loop {
        let batch: Vec<Slot> = slots.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return written;
        }
        metrics::histogram!("driver_tracker_heartbeat_batch_size").record(batch.len() as f64);
        let heartbeats: Vec<Heartbeat> = batch.iter().map(|slot| slot.heartbeat).collect();
        match effects.presence.heartbeats(&heartbeats).await {
            Ok(lapsed) => {
                acknowledge(&batch, "redis");
                for (slot, lapsed) in batch.into_iter().zip(lapsed) {
                    let kind = if lapsed || slot.is_first { &mut written.joining } else { &mut written.unstored };
                    kind.push(Slot { ack: None, ..slot });
                }
            }
            Err(error) => {
                tracing::debug!(error = %error, "heartbeats go to PostgreSQL");
                if let Err(error) = store(effects, &batch).await {
                    tracing::debug!(error = %error, "heartbeats were stored nowhere; trying again");
                    written.failed.extend(batch.into_iter().chain(slots));
                    return written;
                }
                acknowledge(&batch, "postgresql");
            }
        }
    }
}

#[tracing::instrument(level = "trace", skip_all)]
fn acknowledge(batch: &[Slot], stored_in: &'static str) {
    metrics::counter!("driver_tracker_heartbeats_stored_total", "in" => stored_in).increment(batch.len() as u64);
    for (receiver, seq) in batch.iter().filter_map(|slot| slot.ack.as_ref()) {
        receiver.acknowledge(*seq);
    }
}

/// Writes positions to PostgreSQL and returns those that were not written, after a pause.
pub async fn store_all(effects: &EffectsApplier, slots: Vec<Slot>) -> Vec<Slot> {
    in_chunks(slots, async |chunk| {
        let stored = store(effects, chunk).await;
        if let Err(error) = &stored {
            tracing::debug!(error = %error, "positions were not stored; trying again");
        }
        stored.is_ok()
    })
    .await
}

/// Stores drivers who join in PostgreSQL, then adds them to GEO; returns those that failed, after a pause.
pub async fn join_all(effects: &EffectsApplier, slots: Vec<Slot>) -> Vec<Slot> {
    in_chunks(slots, async |chunk| join(effects, chunk).await).await
}

/// Works chunk by chunk until one fails: a PostgreSQL that hangs is not asked once more for each.
async fn in_chunks(slots: Vec<Slot>, work: impl AsyncFn(&[Slot]) -> bool) -> Vec<Slot> {
    for (number, chunk) in slots.chunks(BATCH).enumerate() {
        if !work(chunk).await {
            tokio::time::sleep(RETRY_PAUSE).await;
            return slots[number * BATCH..].to_vec();
        }
    }
    Vec::new()
}

/// `false` when something failed.
async fn join(effects: &EffectsApplier, joining: &[Slot]) -> bool {
    if let Err(error) = store(effects, joining).await {
        tracing::debug!(error = %error, "joining drivers were not stored");
        return false;
    }
    let ids: Vec<DriverId> = joining.iter().map(|slot| slot.heartbeat.driver_id).collect();
    let outcomes = match effects.presence.join(&ids).await {
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
    effects.announce_available(joined);
    if unknown.is_empty() {
        return true;
    }
    let states: Result<_, StoreError> =
        effects.database.transact(move |conn| Box::pin(async move { drivers::states(conn, &unknown).await })).await;
    match states {
        Ok(states) => effects.publish_drivers(&states).await,
        Err(error) => {
            tracing::debug!(error = %error, "drivers' states were not read");
            false
        }
    }
}

async fn store(effects: &EffectsApplier, slots: &[Slot]) -> Result<(), StoreError> {
    let mut heartbeats: Vec<Heartbeat> = slots.iter().map(|slot| slot.heartbeat).collect();
    // One order of rows everywhere, so that two nodes cannot deadlock.
    heartbeats.sort_by_key(|heartbeat| heartbeat.driver_id);
    effects
        .database
        .transact_relaxed(move |conn| Box::pin(async move { positions::upsert(conn, &heartbeats).await }))
        .await
}
