//! `PresenceWriter`: stores heartbeats in Redis, in batches, and every few seconds in PostgreSQL.
//!
//! One latest-wins slot a driver, so that overload costs positions and never memory. A batch starts when the one before it
//! ended, and not sooner than 5 ms after that one started: many small batches cost Redis and this node several times what
//! a few large ones do. A heartbeat is acknowledged after it is stored: in Redis, or in PostgreSQL while Redis is out.
//! A driver who joins or returns is stored in PostgreSQL before they are in GEO, so that a claim finds them fresh.
//!
//! PostgreSQL gets a tenth of the drivers at a time, each once every `POSITION_FLUSH_MS`, so that its load is even; and
//! everybody at once while Redis is not trusted, since candidates then come from there.
//!
//! Three kinds of work, each one at a time, beside each other: batches, joins, and positions for PostgreSQL. So heartbeats
//! never wait for PostgreSQL while Redis answers; and no handler blocks, so that no work keeps the timers from running.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `WriteBatch` | the `Notify` of [`PresenceQueue`] | none | the next heartbeat's batch takes the slots along |
//! | `Settle` | the drain | whether nothing is left to do | it asks again |

mod slots;
mod storage;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::Notify;

use crate::domain::ids::DriverId;
use crate::effects::EffectsApplier;
use crate::process::{Supervised, forward_wake_ups, lock};
use slots::Slots;
use storage::RETRY_PAUSE;

pub use slots::{AckReceiver, Slot};

/// Messages that may wait.
const MAILBOX: usize = 2;
/// Between the starts of two batches.
const LINGER: Duration = Duration::from_millis(5);
/// Turns in which all drivers are written to PostgreSQL once, and the shortest time between two.
const TURNS: u32 = 10;
const TURN_AT_LEAST: Duration = Duration::from_millis(100);
/// Between two questions of the drain whether all is written.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// There are heartbeats to store.
#[derive(Message)]
#[rtype(result = "()")]
struct WriteBatch;

/// Nothing more will come: write everything. Answers whether everything is written.
#[derive(Message)]
#[rtype(result = "bool")]
struct Settle;

/// Heartbeats that wait for the writer, one slot a driver; clones share them.
#[derive(Clone, Default)]
pub struct PresenceQueue {
    waiting: Arc<Mutex<Slots>>,
    notify: Arc<Notify>,
}

impl PresenceQueue {
    /// Adds a heartbeat, merged with what waits of the same driver.
    #[tracing::instrument(level = "trace", skip_all)]
    pub fn push(&self, slot: Slot) {
        lock(&self.waiting).put(slot);
        self.notify.notify_one();
    }

    fn is_empty(&self) -> bool {
        lock(&self.waiting).is_empty()
    }
}

/// What the writer stores with.
#[derive(Clone)]
pub struct PresenceWriterServices {
    /// Redis, PostgreSQL, and the orders that wait for a driver who joins.
    pub effects: EffectsApplier,
    /// `POSITION_FLUSH_MS`.
    pub position_flush: Duration,
}

/// The actor.
pub struct PresenceWriter {
    services: PresenceWriterServices,
    /// Stored nowhere yet.
    queue: PresenceQueue,
    /// In Redis; their drivers are to join.
    joining: Slots,
    /// In Redis; not in PostgreSQL yet.
    unstored: Slots,
    /// When the next batch may start.
    next_batch: Instant,
    /// Whose turn it is to be written to PostgreSQL.
    turn: u32,
    is_writing: bool,
    is_joining: bool,
    is_storing: bool,
    /// The last write to PostgreSQL failed: its positions of some drivers are too old.
    is_behind: bool,
}

impl PresenceWriter {
    /// Starts the writer on `arbiter`.
    pub fn start(
        queue: PresenceQueue,
        services: PresenceWriterServices,
        arbiter: &ArbiterHandle,
    ) -> Arc<Supervised<Self>> {
        let make = move || Self {
            services: services.clone(),
            queue: queue.clone(),
            joining: Slots::default(),
            unstored: Slots::default(),
            next_batch: Instant::now(),
            turn: 0,
            is_writing: false,
            is_joining: false,
            is_storing: false,
            is_behind: false,
        };
        Arc::new(Supervised::start("presence_writer", arbiter, MAILBOX, make))
    }

    /// Writes everything that waits, as far as that is possible within `limit`.
    pub async fn flush(writer: &Supervised<Self>, limit: Duration) {
        let settling = async {
            while !writer.addr().send(Settle).await.unwrap_or(false) {
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(limit, settling).await;
    }
}

impl Actor for PresenceWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        forward_wake_ups(self.queue.notify.clone(), ctx, || WriteBatch);
        let every = self.services.position_flush;
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

impl Handler<WriteBatch> for PresenceWriter {
    type Result = ResponseActFuture<Self, ()>;

    /// One batch. The next message comes when this one is handled, so that heartbeats in between wake nobody.
    fn handle(&mut self, _: WriteBatch, _: &mut Self::Context) -> Self::Result {
        self.is_writing = true;
        let (services, queue, due) = (self.services.clone(), self.queue.clone(), self.next_batch);
        let work = async move {
            tokio::time::sleep_until(due.into()).await;
            let (began, slots) = (Instant::now(), lock(&queue.waiting).take());
            (began, storage::write(&services.effects, slots).await)
        };
        Box::pin(work.into_actor(self).map(|(began, written), this, ctx| this.batch_ended(began, written, ctx)))
    }
}

impl Handler<Settle> for PresenceWriter {
    type Result = bool;

    fn handle(&mut self, _: Settle, ctx: &mut Self::Context) -> bool {
        self.join(ctx);
        self.store(ctx, &|_| true);
        let is_working = self.is_writing || self.is_joining || self.is_storing;
        let is_all_taken = self.queue.is_empty();
        if !is_all_taken {
            self.queue.notify.notify_one();
        }
        !is_working && is_all_taken
    }
}

impl PresenceWriter {
    fn batch_ended(&mut self, began: Instant, written: storage::Written, ctx: &mut Context<Self>) {
        self.is_writing = false;
        self.next_batch = began + LINGER;
        if !written.failed.is_empty() {
            self.next_batch = Instant::now() + RETRY_PAUSE;
            lock(&self.queue.waiting).extend(written.failed);
            self.queue.notify.notify_one();
        }
        self.joining.extend(written.joining);
        self.unstored.extend(written.unstored);
        self.join(ctx);
        if !self.services.effects.presence.is_trusted() {
            self.store(ctx, &|_| true);
        }
    }

    /// Lets drivers join who are due. One that fails is tried again: its key is set, so that no later heartbeat looks like a
    /// return.
    fn join(&mut self, ctx: &mut Context<Self>) {
        if self.is_joining || self.joining.is_empty() {
            return;
        }
        self.is_joining = true;
        let (services, due) = (self.services.clone(), self.joining.take());
        let work = async move { storage::join_all(&services.effects, due).await };
        ctx.spawn(work.into_actor(self).map(|failed, this, ctx| {
            this.is_joining = false;
            this.joining.extend(failed);
            this.join(ctx);
        }));
    }

    /// Writes the positions of some drivers to PostgreSQL. What fails waits for its next turn; with the first write that
    /// succeeds again, everybody's are written.
    fn store(&mut self, ctx: &mut Context<Self>, which: &dyn Fn(DriverId) -> bool) {
        if self.is_storing {
            return;
        }
        let due = self.unstored.take_of(which);
        if due.is_empty() {
            return;
        }
        self.is_storing = true;
        let services = self.services.clone();
        let work = async move { storage::store_all(&services.effects, due).await };
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
