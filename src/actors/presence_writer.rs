//! `PresenceWriter`: heartbeats on their way to Redis, in batches, and every few seconds to PostgreSQL.
//!
//! One latest-wins slot a driver, so that overload costs positions and never memory. A batch goes out when the one before it
//! is back, and not sooner than 5 ms after that one went: many small batches cost Redis and this node several times
//! what a few large ones do. A heartbeat is acknowledged after it is stored: in Redis, or in PostgreSQL while Redis is out.
//! A driver who (re)joins is in PostgreSQL before they are in GEO, so that a claim finds them fresh.
//!
//! PostgreSQL is told of a tenth of the drivers at a time, each once every `POSITION_FLUSH_MS`, so that it has the same to do
//! all the time; and of everybody at once while Redis is not believed, since that is where orders look then.
//!
//! Three kinds of work, each one at a time, beside each other: batches, joins, and positions for PostgreSQL. So heartbeats
//! never wait for PostgreSQL while Redis answers; and no handler waits, so that no work keeps the timers from running.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Flush` | sessions, by [`PresenceWriterHandle::offer`] | none | the next heartbeat's flush takes the slot along |
//! | `Settle` | the drain | whether nothing is left to do | it asks again |

mod slots;
mod storage;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::revive::Revived;
use super::wake::{Queued, Wake};
use super::{Node, lock};
use crate::domain::ids::DriverId;
use slots::Slots;
use storage::RETRY_PAUSE;

pub use slots::Slot;

/// Messages that may wait; more would say the same.
const MAILBOX: usize = 2;
/// Between the beginnings of two batches.
const LINGER: Duration = Duration::from_millis(5);
/// Turns in which all drivers are written to PostgreSQL once, and the shortest time between two.
const TURNS: u32 = 10;
const TURN_AT_LEAST: Duration = Duration::from_millis(100);
/// Between looks of the drain.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// There are slots to write.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush(Queued);

/// Nothing more will come: do all there is to do. Whether all is done.
#[derive(Message)]
#[rtype(result = "bool")]
struct Settle;

/// How heartbeats reach the writer.
#[derive(Clone)]
pub struct PresenceWriterHandle {
    waiting: Arc<Mutex<Slots>>,
    wake: Wake,
    writer: Arc<Revived<PresenceWriter>>,
}

impl PresenceWriterHandle {
    /// Starts the writer on `arbiter`.
    pub fn start(node: Node, arbiter: &ArbiterHandle) -> Self {
        let waiting: Arc<Mutex<Slots>> = Arc::default();
        let shared = waiting.clone();
        let writer = Revived::start("presence_writer", arbiter, MAILBOX, move || PresenceWriter {
            node: node.clone(),
            waiting: shared.clone(),
            joining: Slots::default(),
            unstored: Slots::default(),
            queued: None,
            next_batch: Instant::now(),
            turn: 0,
            is_writing: false,
            is_joining: false,
            is_storing: false,
            is_behind: false,
        });
        Self { waiting, wake: Wake::default(), writer: Arc::new(writer) }
    }

    /// Takes a heartbeat, together with what waits of the same driver.
    pub fn offer(&self, driver: DriverId, slot: Slot) {
        lock(&self.waiting).put(driver, slot);
        self.wake.send(&self.writer.addr(), Flush);
    }

    /// Writes whatever is pending, as far as it can be written within `limit`.
    pub async fn flush(&self, limit: Duration) {
        let settling = async {
            while !self.writer.addr().send(Settle).await.unwrap_or(false) {
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(limit, settling).await;
    }
}

/// The actor.
pub struct PresenceWriter {
    node: Node,
    /// Stored nowhere yet.
    waiting: Arc<Mutex<Slots>>,
    /// In Redis; their drivers are to join.
    joining: Slots,
    /// In Redis; PostgreSQL does not have them yet.
    unstored: Slots,
    /// Held until the next batch is taken: a thousand heartbeats meanwhile wake nobody.
    queued: Option<Queued>,
    /// When the next batch may go.
    next_batch: Instant,
    /// Whose turn it is to be written to PostgreSQL.
    turn: u32,
    is_writing: bool,
    is_joining: bool,
    is_storing: bool,
    /// The last write to PostgreSQL failed: it knows of some for too long already.
    is_behind: bool,
}

impl Actor for PresenceWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let every = self.node.config().heartbeat.position_flush;
        let turns = turns(every);
        ctx.run_interval(every / turns, move |this, ctx| {
            this.turn = (this.turn + 1) % turns;
            let turn = this.turn;
            this.store(ctx, &|driver| is_in_turn(driver, turn, turns));
        });
    }
}

/// In how many turns all drivers are written once.
fn turns(flush_every: Duration) -> u32 {
    let most = flush_every.as_millis() / TURN_AT_LEAST.as_millis();
    u32::try_from(most).unwrap_or(TURNS).clamp(1, TURNS)
}

/// Whether it is the driver's turn. The last byte of an id is random.
fn is_in_turn(driver: DriverId, turn: u32, turns: u32) -> bool {
    u32::from(driver.0.as_bytes()[15]) % turns == turn
}

impl Handler<Flush> for PresenceWriter {
    type Result = ();

    fn handle(&mut self, Flush(queued): Flush, ctx: &mut Self::Context) {
        self.queued = Some(queued);
        self.write(ctx);
    }
}

impl Handler<Settle> for PresenceWriter {
    type Result = bool;

    fn handle(&mut self, _: Settle, ctx: &mut Self::Context) -> bool {
        self.write(ctx);
        self.join(ctx);
        self.store(ctx, &|_| true);
        let is_working = self.is_writing || self.is_joining || self.is_storing;
        !is_working && lock(&self.waiting).is_empty()
    }
}

impl PresenceWriter {
    /// Stores what waits, batch after batch until nothing does.
    fn write(&mut self, ctx: &mut Context<Self>) {
        if self.is_writing {
            return;
        }
        if lock(&self.waiting).is_empty() {
            // Only without it does the next heartbeat wake us; one may have come just before.
            self.queued = None;
            if lock(&self.waiting).is_empty() {
                return;
            }
        }
        let queued = self.queued.take();
        self.is_writing = true;
        let (node, waiting, due) = (self.node.clone(), self.waiting.clone(), self.next_batch);
        let work = async move {
            tokio::time::sleep_until(due.into()).await;
            drop(queued);
            let (began, slots) = (Instant::now(), lock(&waiting).take());
            (began, storage::write(&node, slots).await)
        };
        ctx.spawn(work.into_actor(self).map(|(began, written), this, ctx| {
            this.is_writing = false;
            this.next_batch = if written.failed.is_empty() { began + LINGER } else { Instant::now() + RETRY_PAUSE };
            lock(&this.waiting).extend(written.failed);
            this.joining.extend(written.joining);
            this.unstored.extend(written.unstored);
            this.join(ctx);
            if this.node.finder().is_degraded() {
                this.store(ctx, &|_| true);
            }
            this.write(ctx);
        }));
    }

    /// Lets those join who are due. Who fails is tried again: their key is set, so that no later heartbeat looks like a return.
    fn join(&mut self, ctx: &mut Context<Self>) {
        if self.is_joining || self.joining.is_empty() {
            return;
        }
        self.is_joining = true;
        let (node, due) = (self.node.clone(), self.joining.take());
        let work = async move { storage::join_all(&node, due).await };
        ctx.spawn(work.into_actor(self).map(|failed, this, ctx| {
            this.is_joining = false;
            this.joining.extend(failed);
            this.join(ctx);
        }));
    }

    /// Tells PostgreSQL where some drivers are. What fails waits for its next turn; with the first that succeeds again
    /// everybody has theirs.
    fn store(&mut self, ctx: &mut Context<Self>, which: &dyn Fn(DriverId) -> bool) {
        if self.is_storing {
            return;
        }
        let due = self.unstored.take_of(which);
        if due.is_empty() {
            return;
        }
        self.is_storing = true;
        let node = self.node.clone();
        let work = async move { storage::store_all(&node, due).await };
        ctx.spawn(work.into_actor(self).map(|failed, this, ctx| {
            this.is_storing = false;
            let was_behind = std::mem::replace(&mut this.is_behind, !failed.is_empty());
            this.unstored.extend(failed);
            if was_behind && !this.is_behind {
                this.store(ctx, &|_| true);
            }
        }));
    }
}
