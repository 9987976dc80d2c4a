//! `TrackWriter`: fixes of drivers with a delivery in hand on their way to PostgreSQL, beside the heartbeats and never before
//! them. What waits is bounded: when PostgreSQL cannot take it, the oldest fixes go and are counted.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Store` | its own interval, and whoever finds that much waits | none | the next interval |

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;

use super::revive::Revived;
use super::{Node, lock};
use crate::domain::ids::DriverId;
use crate::domain::position::Fix;
use crate::store::{StoreError, tracks};

/// Fixes written in one statement.
const BATCH: usize = 1000;
/// Fixes that may wait: some minutes of a thousand busy drivers.
const MAX_WAITING: usize = 50_000;
/// Wake-ups that may wait; more would say the same.
const MAILBOX: usize = 2;
type Point = (DriverId, Fix);

/// Fixes that wait, oldest first.
#[derive(Debug, Default)]
struct Waiting {
    points: VecDeque<Point>,
}

/// What came of fixes that were added.
struct Pushed {
    /// Old ones that had to go.
    dropped: usize,
    /// A batch waits from now on, and did not before: said once, however many more come while PostgreSQL stalls.
    fills_batch: bool,
}

impl Waiting {
    fn push(&mut self, points: impl IntoIterator<Item = Point>) -> Pushed {
        let before = self.points.len();
        self.points.extend(points);
        let dropped = self.points.len().saturating_sub(MAX_WAITING);
        drop(self.points.drain(..dropped));
        Pushed { dropped, fills_batch: before < BATCH && self.points.len() >= BATCH }
    }

    fn take(&mut self) -> Vec<Point> {
        let count = self.points.len().min(BATCH);
        self.points.drain(..count).collect()
    }

    /// What could not be written waits again, as far as there is room; gives how many had to go.
    fn put_back(&mut self, points: Vec<Point>) -> usize {
        let room = MAX_WAITING.saturating_sub(self.points.len());
        let too_many = points.len().saturating_sub(room);
        for point in points.into_iter().skip(too_many).rev() {
            self.points.push_front(point);
        }
        too_many
    }
}

/// Time to write.
#[derive(Message)]
#[rtype(result = "()")]
struct Store;

/// How fixes reach the writer.
#[derive(Clone)]
pub struct TrackWriterHandle {
    waiting: Arc<Mutex<Waiting>>,
    writer: Arc<Revived<TrackWriter>>,
}

impl TrackWriterHandle {
    /// Starts the writer on `arbiter`.
    pub fn start(node: Node, arbiter: &ArbiterHandle) -> Self {
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        let shared = waiting.clone();
        let writer = Revived::start("track_writer", arbiter, MAILBOX, move || TrackWriter {
            node: node.clone(),
            waiting: shared.clone(),
        });
        Self { waiting, writer: Arc::new(writer) }
    }

    /// Takes believed fixes of a driver. PostgreSQL decides which of them belong to a delivery.
    pub fn offer(&self, driver: DriverId, fixes: impl IntoIterator<Item = Fix>) {
        let pushed = lock(&self.waiting).push(fixes.into_iter().map(|fix| (driver, fix)));
        count_dropped(pushed.dropped);
        if pushed.fills_batch {
            let _ = self.writer.addr().try_send(Store);
        }
    }

    /// Sees that the writer lives: nobody else may send it anything for long.
    pub fn look(&self) {
        self.writer.addr();
    }

    /// Writes what waits, as far as it can be written within `limit`.
    pub async fn flush(&self, limit: Duration) {
        let _ = self.writer.addr().send(Store).timeout(limit).await;
    }
}

fn count_dropped(count: usize) {
    if count > 0 {
        metrics::counter!("driver_tracker_track_fixes_dropped_total").increment(count as u64);
    }
}

/// The actor.
pub struct TrackWriter {
    node: Node,
    waiting: Arc<Mutex<Waiting>>,
}

impl Actor for TrackWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.node.config().heartbeat.position_flush, |_, ctx| {
            let _ = ctx.address().try_send(Store);
        });
    }
}

impl Handler<Store> for TrackWriter {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Store, _: &mut Self::Context) -> Self::Result {
        let (node, waiting) = (self.node.clone(), self.waiting.clone());
        AtomicResponse::new(Box::pin(async move { store(&node, &waiting).await }.into_actor(self)))
    }
}

/// Writes until nothing waits, or PostgreSQL does not take it.
async fn store(node: &Node, waiting: &Mutex<Waiting>) {
    loop {
        let batch = lock(waiting).take();
        if batch.is_empty() {
            return;
        }
        let points = batch.clone();
        let recorded: Result<u64, StoreError> = node
            .database()
            .transact_relaxed(move |conn| Box::pin(async move { tracks::record(conn, &points).await }))
            .await;
        match recorded {
            Ok(count) => metrics::counter!("driver_tracker_track_fixes_stored_total").increment(count),
            Err(error) if error.is_unavailable() => {
                tracing::debug!(error = %error, fixes = batch.len(), "fixes of tracks were not stored; trying again");
                return count_dropped(lock(waiting).put_back(batch));
            }
            Err(error) => {
                // The same batch would fail for ever.
                tracing::warn!(error = %error, fixes = batch.len(), "fixes of tracks cannot be stored");
                count_dropped(batch.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Position;
    use chrono::{DateTime, TimeDelta};

    fn points(range: std::ops::Range<usize>) -> Vec<Point> {
        let driver = DriverId::new();
        let fix = |second: usize| Fix {
            position: Position::new(1.0, 1.0).unwrap(),
            time: DateTime::UNIX_EPOCH + TimeDelta::seconds(second as i64),
        };
        range.map(|second| (driver, fix(second))).collect()
    }

    fn second(point: Option<&Point>) -> i64 {
        point.unwrap().1.time.timestamp()
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_go_first() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.push(points(0..MAX_WAITING)).dropped, 0);
        assert_eq!(waiting.push(points(MAX_WAITING..MAX_WAITING + 100)).dropped, 100);
        assert_eq!((waiting.points.len(), second(waiting.points.front())), (MAX_WAITING, 100));
        let batch = waiting.take();
        assert_eq!((batch.len(), second(batch.first())), (BATCH, 100));
        assert_eq!(waiting.put_back(batch), 0);
        assert_eq!((waiting.points.len(), second(waiting.points.front())), (MAX_WAITING, 100), "as it was");
        let batch = waiting.take();
        waiting.push(points(0..BATCH - 10));
        assert_eq!(waiting.put_back(batch), BATCH - 10, "newer ones took their place");
        assert_eq!((waiting.points.len(), second(waiting.points.front())), (MAX_WAITING, 100 + BATCH as i64 - 10));
    }

    #[test]
    fn a_batch_that_waits_is_said_once() {
        let mut waiting = Waiting::default();
        let fills: Vec<bool> =
            [BATCH - 1, 1, 1, BATCH].map(|count| waiting.push(points(0..count)).fills_batch).to_vec();
        assert_eq!(fills, [false, true, false, false]);
        while !waiting.take().is_empty() {}
        assert!(waiting.push(points(0..BATCH)).fills_batch);
    }
}
