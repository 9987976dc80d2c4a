//! The slow full comparison of Redis with PostgreSQL: drift that no change of a driver will ever repair, such as a field that
//! somebody deleted. One page a tick, by the node that holds the lease; what changed lately is left to the re-application.

use std::time::{Duration, Instant};

use super::reconcile_error::{OVERLAP_S, ReconcileError};
use crate::domain::driver::DriverStatus;
use crate::domain::ids::DriverId;
use crate::presence::{Expected, Presence, Repaired, StatusChange};
use crate::store::Database;
use crate::store::drivers::{self, DriverChanged};

/// Drivers in one page.
const PAGE: i64 = 1000;

/// Where the comparison stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// The next pass begins at this time.
    Resting(Instant),
    /// Drivers after this one are next; first those of PostgreSQL.
    Drivers(Option<DriverId>),
    /// Members of `drivers:geo` from this cursor on, whom PostgreSQL may not know.
    Members(u64),
}

/// One node's comparison.
pub struct FullResync {
    database: Database,
    presence: Presence,
    every: Duration,
    began: Instant,
    stage: Stage,
    /// Who could not be found and should be, by the page before.
    absent: Vec<DriverId>,
    repaired: Repairs,
}

/// What one pass repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Repairs {
    statuses: u64,
    memberships: u64,
    stale_members: u64,
}

impl FullResync {
    /// Begins a pass each `every`; a random part of that passes before the first, so that nodes do not begin together.
    pub fn new(database: Database, presence: Presence, every: Duration) -> Self {
        let now = Instant::now();
        let first = every.mul_f64(rand::random_range(0.0..1.0));
        let stage = Stage::Resting(now + first);
        Self { database, presence, every, began: now, stage, absent: Vec::new(), repaired: Repairs::default() }
    }

    /// Does the next page, if it is time.
    pub(super) async fn step(&mut self) -> Result<(), ReconcileError> {
        if !self.absent.is_empty() {
            return self.look_again().await;
        }
        if let Stage::Resting(until) = self.stage {
            if Instant::now() < until {
                return Ok(());
            }
            self.began = Instant::now();
            self.repaired = Repairs::default();
            self.stage = Stage::Drivers(None);
        }
        let next = match self.stage {
            Stage::Resting(_) => return Ok(()),
            Stage::Drivers(after) => match self.drivers(after).await? {
                Some(after) => Stage::Drivers(Some(after)),
                None => Stage::Members(0),
            },
            Stage::Members(cursor) => match self.members(cursor).await? {
                0 => self.end(),
                cursor => Stage::Members(cursor),
            },
        };
        self.stage = next;
        Ok(())
    }

    /// Compares some drivers at once.
    pub(super) async fn compare(&mut self, ids: Vec<DriverId>) -> Result<(), ReconcileError> {
        let states =
            self.database.transact(move |conn| Box::pin(async move { drivers::states(conn, &ids).await })).await?;
        self.repair(&states, false).await
    }

    fn end(&self) -> Stage {
        let Repairs { statuses, memberships, stale_members } = self.repaired;
        if self.repaired != Repairs::default() {
            tracing::warn!(
                statuses,
                memberships,
                stale_members,
                "Redis said what PostgreSQL does not, and was repaired"
            );
        }
        Stage::Resting(self.began + self.every)
    }

    /// One page of drivers who did not change lately; the last of them, if there are more.
    async fn drivers(&mut self, after: Option<DriverId>) -> Result<Option<DriverId>, ReconcileError> {
        let page = self
            .database
            .transact(move |conn| {
                Box::pin(async move { drivers::page_for_comparison(conn, after, Some(OVERLAP_S), PAGE).await })
            })
            .await?;
        self.repair(&page, false).await?;
        Ok(if page.len() == PAGE as usize { page.last().map(|driver| driver.id) } else { None })
    }

    /// A driver who was absent a run ago was just joining, or is lost: PostgreSQL learns of a driver between their
    /// heartbeat and their join.
    async fn look_again(&mut self) -> Result<(), ReconcileError> {
        let ids = std::mem::take(&mut self.absent);
        let states =
            self.database.transact(move |conn| Box::pin(async move { drivers::states(conn, &ids).await })).await?;
        self.repair(&states, true).await
    }

    /// Makes Redis say of drivers what PostgreSQL says; of who can be found, only with `must_be_found` that they can.
    async fn repair(&mut self, drivers: &[DriverChanged], must_be_found: bool) -> Result<(), ReconcileError> {
        let expect = |driver: &DriverChanged| Expected {
            change: driver.into(),
            must_be_known: driver.status != DriverStatus::Offline,
            must_be_found,
        };
        let outcomes = self.presence.repair(&drivers.iter().map(expect).collect::<Vec<_>>()).await?;
        let mut newer = Vec::new();
        for (driver, outcome) in drivers.iter().zip(outcomes) {
            match outcome {
                Repaired::Equal => {}
                Repaired::Repairs { status, membership } => self.note(status.into(), membership.into(), 0),
                Repaired::Absent { status } => {
                    self.note(status.into(), 0, 0);
                    self.absent.push(driver.id);
                }
                Repaired::Newer(epoch) => newer.push((driver.id, epoch)),
            }
        }
        self.unfounded(&newer).await
    }

    /// Redis knows newer epochs than the page. PostgreSQL, asked after that, knows each that was committed.
    async fn unfounded(&mut self, newer: &[(DriverId, i64)]) -> Result<(), ReconcileError> {
        if newer.is_empty() {
            return Ok(());
        }
        let ids: Vec<DriverId> = newer.iter().map(|(id, _)| *id).collect();
        let states =
            self.database.transact(move |conn| Box::pin(async move { drivers::states(conn, &ids).await })).await?;
        let wrong: Vec<(StatusChange, i64)> = newer
            .iter()
            .filter_map(|(id, epoch)| {
                let state = states.iter().find(|state| state.id == *id && state.epoch < *epoch)?;
                Some((state.into(), *epoch))
            })
            .collect();
        let corrected = self.presence.correct(&wrong).await?;
        self.note(corrected as u64, 0, 0);
        Ok(())
    }

    /// One page of `drivers:geo`: whom PostgreSQL does not know goes; where the next page begins.
    async fn members(&mut self, cursor: u64) -> Result<u64, ReconcileError> {
        let page = self.presence.members(cursor).await?;
        let ids = page.drivers.clone();
        let known =
            self.database.transact(move |conn| Box::pin(async move { drivers::states(conn, &ids).await })).await?;
        let known: std::collections::HashSet<DriverId> = known.iter().map(|state| state.id).collect();
        let unknown: Vec<DriverId> = page.drivers.into_iter().filter(|id| !known.contains(id)).collect();
        self.presence.expel(&unknown, &page.unknown_members).await?;
        self.note(0, 0, (unknown.len() + page.unknown_members.len()) as u64);
        Ok(page.cursor)
    }

    fn note(&mut self, statuses: u64, memberships: u64, stale_members: u64) {
        self.repaired.statuses += statuses;
        self.repaired.memberships += memberships;
        self.repaired.stale_members += stale_members;
        for (what, count) in [("status", statuses), ("membership", memberships), ("ghost", stale_members)] {
            if count > 0 {
                metrics::counter!("driver_tracker_presence_mended_total", "what" => what).increment(count);
            }
        }
    }
}
