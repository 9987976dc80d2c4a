//! `PresenceWriter`: heartbeats on their way to Redis, in batches, and every few seconds to PostgreSQL.
//!
//! One latest-wins slot a driver, so that overload costs positions and never memory. A batch goes out when the one before it
//! is back, and not sooner than 5 ms after that one went: many small batches cost Redis and this node several times
//! what a few large ones do. A heartbeat is acknowledged after it is stored: in Redis, or in PostgreSQL while Redis is out.
//! A driver who (re)joins is in PostgreSQL before they are in GEO, so that a claim finds them fresh.
//!
//! PostgreSQL is told of a tenth of the drivers at a time, each once every `POSITION_FLUSH_MS`, so that it has the same to do
//! all the time; heartbeats never wait for it while Redis answers.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Flush` | sessions, by [`PresenceWriterHandle::offer`] | none | the next heartbeat's flush takes the slot along |
//! | `StoreTurn` | its own interval | none | the next turn of these drivers |
//! | `StoreAll` | the reconciler while Redis is cold; the drain | when all is stored or failed | the next one, and the turns |

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::prelude::*;
use chrono::{DateTime, Utc};

use super::Node;
use super::revive::Revived;
use super::session_directory::ToSession;
use super::session_mailbox::SessionMailbox;
use crate::domain::ids::DriverId;
use crate::domain::position::Fix;
use crate::presence::{Heartbeat, JoinOutcome};
use crate::store::positions::{self, PositionUpdate};
use crate::store::{StoreError, drivers};

/// Slots written in one round.
const BATCH: usize = 2048;
/// Wake-ups that may wait; more would say the same.
const MAILBOX: usize = 2;
/// Positions written to PostgreSQL in one statement.
const STORE_BATCH: usize = 1000;
/// Between the beginnings of two batches.
const LINGER: Duration = Duration::from_millis(5);
/// Turns in which all drivers are written to PostgreSQL once, and the shortest time between two.
const TURNS: u32 = 10;
const TURN_AT_LEAST: Duration = Duration::from_millis(100);
/// Pause before heartbeats that could be stored nowhere are tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// One driver's newest heartbeat.
#[derive(Clone)]
pub struct Slot {
    /// Last known place.
    pub fix: Option<Fix>,
    /// When heard, by the server's clock.
    pub received_at: DateTime<Utc>,
    /// When heard, for ages.
    pub received: Instant,
    /// By which session.
    pub session_epoch: i64,
    /// A new session: the driver's membership is due for a look whatever Redis says.
    pub first: bool,
    /// Whom to acknowledge, and up to which `seq`.
    pub ack: Option<(SessionMailbox, i64)>,
}

/// There are slots to write.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

/// Time to write the positions of the next drivers in turn to PostgreSQL.
#[derive(Message)]
#[rtype(result = "()")]
struct StoreTurn;

/// Time to write all positions to PostgreSQL; the reply comes when they are there.
#[derive(Message)]
#[rtype(result = "()")]
struct StoreAll;

/// How heartbeats reach the writer.
#[derive(Clone)]
pub struct PresenceWriterHandle {
    slots: Arc<Mutex<HashMap<DriverId, Slot>>>,
    writer: Arc<Revived<PresenceWriter>>,
}

impl PresenceWriterHandle {
    /// Starts the writer on `arbiter`.
    pub fn start(node: Node, arbiter: &ArbiterHandle) -> Self {
        let slots: Arc<Mutex<HashMap<DriverId, Slot>>> = Arc::default();
        let shared = slots.clone();
        let writer = Revived::start("presence_writer", arbiter, MAILBOX, move || PresenceWriter {
            node: node.clone(),
            slots: shared.clone(),
            written_at: None,
            unstored: HashMap::new(),
            turn: 0,
            storing: false,
        });
        let writer = Arc::new(writer);
        Self { slots, writer }
    }

    /// Takes a heartbeat; an older one of the same driver that is not written yet is superseded.
    pub fn offer(&self, driver: DriverId, mut slot: Slot) {
        {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(old) = slots.get(&driver) {
                if old.session_epoch > slot.session_epoch {
                    return;
                }
                slot.first |= old.first;
                slot.ack = slot.ack.or_else(|| old.ack.clone());
            }
            slots.insert(driver, slot);
        }
        // A full mailbox means that a flush is due already.
        let _ = self.writer.addr().try_send(Flush);
    }

    /// Has PostgreSQL told now what it does not know yet.
    pub fn store_soon(&self) {
        let _ = self.writer.addr().try_send(StoreAll);
    }

    /// Writes whatever is pending, as far as it can be written within `limit`.
    pub async fn flush(&self, limit: Duration) {
        let writing = async {
            let _ = self.writer.addr().send(Flush).await;
            let _ = self.writer.addr().send(StoreAll).await;
        };
        let _ = tokio::time::timeout(limit, writing).await;
    }
}

/// The actor.
pub struct PresenceWriter {
    node: Node,
    slots: Arc<Mutex<HashMap<DriverId, Slot>>>,
    /// When the last batch went.
    written_at: Option<Instant>,
    /// What Redis has and PostgreSQL does not have yet.
    unstored: HashMap<DriverId, Slot>,
    /// Whose turn it is to be written to PostgreSQL.
    turn: u32,
    /// Whether a turn is being written.
    storing: bool,
}

impl Actor for PresenceWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let every = self.node.config().heartbeat.position_flush;
        ctx.run_interval(every / turns(every), |_, ctx| drop(ctx.address().try_send(StoreTurn)));
    }
}

/// In how many turns all drivers are written once.
fn turns(flush_every: Duration) -> u32 {
    let most = flush_every.as_millis() / TURN_AT_LEAST.as_millis();
    u32::try_from(most).unwrap_or(TURNS).clamp(1, TURNS)
}

/// Whether it is the driver's turn. The last byte of an id is random.
fn is_in_turn(driver: DriverId, turn: u32, turns: u32) -> bool {
    u32::from(driver.0.as_bytes()[15]) % turns == turn % turns
}

impl Handler<Flush> for PresenceWriter {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Flush, _: &mut Self::Context) -> Self::Result {
        let (node, slots) = (self.node.clone(), self.slots.clone());
        let linger = self.written_at.map_or(Duration::ZERO, |at| LINGER.saturating_sub(at.elapsed()));
        let write = async move {
            if is_empty(&slots) {
                return None;
            }
            tokio::time::sleep(linger).await;
            let began = Instant::now();
            Some((began, write(&node, take(&slots)).await))
        };
        AtomicResponse::new(Box::pin(write.into_actor(self).map(|written, this, ctx| {
            let Some((began, written)) = written else { return };
            this.written_at = Some(began);
            this.unstored.extend(written.unstored);
            let failed = !written.failed.is_empty();
            this.put_back(written.failed);
            if failed {
                ctx.run_later(RETRY_PAUSE, |_, ctx| drop(ctx.address().try_send(Flush)));
            } else if !is_empty(&this.slots) {
                let _ = ctx.address().try_send(Flush);
            }
        })))
    }
}

impl Handler<StoreTurn> for PresenceWriter {
    type Result = ();

    /// Not atomic: heartbeats go on while PostgreSQL works.
    fn handle(&mut self, _: StoreTurn, ctx: &mut Self::Context) {
        if std::mem::replace(&mut self.storing, true) {
            return;
        }
        let turns = turns(self.node.config().heartbeat.position_flush);
        self.turn = self.turn.wrapping_add(1) % turns;
        let turn = self.turn;
        let due = self.unstored.extract_if(|driver, _| is_in_turn(*driver, turn, turns)).collect();
        let work = store_in_chunks(self.node.clone(), due);
        ctx.spawn(work.into_actor(self).map(|failed, this, _| {
            this.storing = false;
            this.store_later(failed);
        }));
    }
}

impl Handler<StoreAll> for PresenceWriter {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: StoreAll, _: &mut Self::Context) -> Self::Result {
        let all = std::mem::take(&mut self.unstored).into_iter().collect();
        let work = store_in_chunks(self.node.clone(), all);
        AtomicResponse::new(Box::pin(work.into_actor(self).map(|failed, this, _| this.store_later(failed))))
    }
}

/// Writes positions to PostgreSQL and gives those that were not written.
async fn store_in_chunks(node: Node, batch: Vec<(DriverId, Slot)>) -> Vec<(DriverId, Slot)> {
    for (number, chunk) in batch.chunks(STORE_BATCH).enumerate() {
        if let Err(error) = store(&node, chunk).await {
            // A PostgreSQL that hangs is not asked once more for each chunk.
            let failed = batch[number * STORE_BATCH..].to_vec();
            tracing::debug!(error = %error, drivers = failed.len(), "positions were not stored; trying again");
            return failed;
        }
    }
    Vec::new()
}

fn is_empty(slots: &Mutex<HashMap<DriverId, Slot>>) -> bool {
    slots.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
}

/// The slots of one round.
fn take(slots: &Mutex<HashMap<DriverId, Slot>>) -> Vec<(DriverId, Slot)> {
    let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
    if slots.len() <= BATCH {
        return slots.drain().collect();
    }
    let some: Vec<DriverId> = slots.keys().take(BATCH).copied().collect();
    some.into_iter().filter_map(|driver| slots.remove_entry(&driver)).collect()
}

impl PresenceWriter {
    /// What was not written to PostgreSQL waits for its next turn, unless something newer does.
    fn store_later(&mut self, failed: Vec<(DriverId, Slot)>) {
        for (driver, slot) in failed {
            self.unstored.entry(driver).or_insert(slot);
        }
    }

    /// What is not dealt with waits again; something newer that waits inherits what was still due.
    fn put_back(&self, failed: Vec<(DriverId, Slot)>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for (driver, slot) in failed {
            match slots.entry(driver) {
                Entry::Vacant(vacant) => drop(vacant.insert(slot)),
                Entry::Occupied(mut newer) => {
                    let newer = newer.get_mut();
                    newer.first |= slot.first;
                    newer.ack = newer.ack.take().or(slot.ack);
                }
            }
        }
    }
}

/// What came of a batch.
#[derive(Default)]
struct Written {
    /// In Redis; PostgreSQL hears of it with the next `Store`.
    unstored: Vec<(DriverId, Slot)>,
    /// Stored nowhere.
    failed: Vec<(DriverId, Slot)>,
}

async fn write(node: &Node, batch: Vec<(DriverId, Slot)>) -> Written {
    if batch.is_empty() {
        return Written::default();
    }
    metrics::histogram!("driver_tracker_heartbeat_batch_size").record(batch.len() as f64);
    let heartbeats: Vec<Heartbeat> = batch
        .iter()
        .map(|(driver_id, slot)| Heartbeat {
            driver_id: *driver_id,
            fix: slot.fix,
            received_at: slot.received_at,
            session_epoch: slot.session_epoch,
        })
        .collect();
    match node.presence().heartbeats(&heartbeats).await {
        Ok(lapsed) => {
            acknowledge(&batch, "redis");
            joined(node, batch, &lapsed).await
        }
        Err(error) => {
            tracing::debug!(error = %error, "heartbeats go to PostgreSQL");
            while_redis_is_out(node, batch).await
        }
    }
}

/// Redis has them all. Who was absent joins: first in PostgreSQL, then in GEO. While Redis is not believed, everybody's
/// position goes to PostgreSQL at once, since that is where orders look.
async fn joined(node: &Node, batch: Vec<(DriverId, Slot)>, lapsed: &[bool]) -> Written {
    let believed = !node.finder().is_degraded();
    let (mut joining, mut staying) = (Vec::new(), Vec::new());
    for ((driver, slot), lapsed) in batch.into_iter().zip(lapsed) {
        if *lapsed || slot.first { joining.push((driver, slot)) } else { staying.push((driver, slot)) }
    }
    if !believed && store(node, &staying).await.is_ok() {
        staying.clear();
    }
    // Their key is set now, so that no later heartbeat looks like a return: who does not join is tried again.
    let failed = if joining.is_empty() || join(node, &joining).await { Vec::new() } else { joining };
    let failed = failed.into_iter().map(|(driver, slot)| (driver, Slot { first: true, ack: None, ..slot })).collect();
    Written { unstored: staying, failed }
}

/// Brings drivers who are back into PostgreSQL, then into GEO. `false` when something failed and is to be done again.
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

async fn while_redis_is_out(node: &Node, batch: Vec<(DriverId, Slot)>) -> Written {
    match store(node, &batch).await {
        Ok(()) => {
            acknowledge(&batch, "postgresql");
            Written::default()
        }
        Err(error) => {
            tracing::debug!(error = %error, "heartbeats were stored nowhere; trying again");
            Written { unstored: Vec::new(), failed: batch }
        }
    }
}

fn acknowledge(batch: &[(DriverId, Slot)], stored_in: &'static str) {
    metrics::counter!("driver_tracker_heartbeats_stored_total", "in" => stored_in).increment(batch.len() as u64);
    for (session, seq) in batch.iter().filter_map(|(_, slot)| slot.ack.as_ref()) {
        // A session that is gone needs none.
        session.put(ToSession::Acked(*seq));
    }
}

async fn store(node: &Node, slots: &[(DriverId, Slot)]) -> Result<(), StoreError> {
    if slots.is_empty() {
        return Ok(());
    }
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
