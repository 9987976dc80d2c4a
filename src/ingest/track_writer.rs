//! Fixes of drivers with a delivery on their way to PostgreSQL, beside the heartbeats and never before them.
//!
//! The queue is bounded: when PostgreSQL does not take them, the oldest fixes are dropped and counted. [`TrackWriter`] is
//! run by the background driver, every `POSITION_FLUSH_MS` and when a batch waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::domain::ids::DriverId;
use crate::domain::position::Fix;
use crate::process::lock;
use crate::store::{Database, StoreError, tracks};

/// Fixes written in one statement.
const BATCH: usize = 1000;
/// Fixes that may wait: some minutes of a thousand busy drivers.
const MAX_WAITING: usize = 50_000;

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

/// Fixes that wait for the writer; clones share them.
#[derive(Clone, Default)]
pub struct TrackQueue {
    waiting: Arc<Mutex<Waiting>>,
    notify: Arc<Notify>,
}

impl TrackQueue {
    /// Adds accepted fixes of a driver. PostgreSQL decides which of them belong to a delivery.
    pub fn push(&self, driver: DriverId, fixes: impl IntoIterator<Item = Fix>) {
        let pushed = lock(&self.waiting).push(fixes.into_iter().map(|fix| (driver, fix)));
        count_dropped(pushed.dropped);
        if pushed.fills_batch {
            self.notify.notify_one();
        }
    }

    /// What the writer is woken by before its interval ends.
    pub fn notify(&self) -> Arc<Notify> {
        self.notify.clone()
    }
}

fn count_dropped(count: usize) {
    if count > 0 {
        metrics::counter!("driver_tracker_track_fixes_dropped_total").increment(count as u64);
    }
}

/// Writes the queue to PostgreSQL.
#[derive(Clone)]
pub struct TrackWriter {
    /// PostgreSQL.
    pub database: Database,
    /// What waits.
    pub queue: TrackQueue,
}

impl TrackWriter {
    /// Writes until nothing waits. An error when PostgreSQL is not available; the fixes of that batch wait again.
    pub async fn write(&self) -> Result<(), StoreError> {
        loop {
            let batch = lock(&self.queue.waiting).take();
            if batch.is_empty() {
                return Ok(());
            }
            let points = batch.clone();
            let recorded: Result<u64, StoreError> = self
                .database
                .transact_relaxed(move |conn| Box::pin(async move { tracks::record(conn, &points).await }))
                .await;
            match recorded {
                Ok(count) => metrics::counter!("driver_tracker_track_fixes_stored_total").increment(count),
                Err(error) if error.is_unavailable() => {
                    count_dropped(lock(&self.queue.waiting).put_back(batch));
                    return Err(error);
                }
                Err(error) => {
                    // The same batch would fail every time.
                    tracing::warn!(error = %error, fixes = batch.len(), "fixes of tracks cannot be stored");
                    count_dropped(batch.len());
                }
            }
        }
    }

    /// Writes what waits, as far as that is possible within `limit`.
    pub async fn flush(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.write()).await;
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
