//! Maintains which drivers are in `drivers:geo`: status transitions, joins and the sweep.
//!
//! Invariants: every change of membership goes through `settle` in `common.lua`. A rebuild and a repair change the
//! membership too, by the same function.

use redis::{Cmd, Value};

use super::keys::{driver_of, member};
use super::{BATCH, Inner, Outage, Presence, PresenceError, scripts};
use crate::domain::driver::DriverStatus;
use crate::domain::ids::DriverId;

/// A driver's status as PostgreSQL committed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusChange {
    /// The driver.
    pub driver_id: DriverId,
    /// The driver's status from this epoch on.
    pub status: DriverStatus,
    /// The row's epoch, from the UPDATE that changed it. At most 2^53.
    pub epoch: i64,
}

/// The outcome of a [`StatusChange`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransitionOutcome {
    /// The change was applied.
    Applied {
        /// Whether searches can find the driver: AVAILABLE, and online with a position.
        in_geo: bool,
    },
    /// Redis already has a newer epoch. Nothing changed.
    Stale,
}

/// The outcome of a join: whether the driver was added to `drivers:geo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinOutcome {
    /// Searches can find the driver now.
    Joined,
    /// The driver is BUSY or OFFLINE.
    NotAvailable,
    /// The driver is AVAILABLE, but not online or without a known position.
    NoPosition,
    /// Redis has no status of the driver. The caller applies it with [`Presence::transition`], which joins too.
    UnknownStatus,
}

/// The result of a sweep.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SweepReport {
    /// Members removed because their heartbeat had expired.
    pub removed: usize,
    /// Members still online. A later sweep checks them again.
    pub kept: usize,
}

/// The members of one page of a sweep.
const SWEEP_PAGE: usize = 1000;

impl Presence {
    /// Applies committed status changes. A change is skipped when Redis has a newer epoch. Returns the outcomes in the order
    /// given.
    pub async fn transition(&self, changes: &[StatusChange]) -> Result<Vec<TransitionOutcome>, PresenceError> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for chunk in changes.chunks(BATCH) {
            let commands = chunk.iter().map(|change| self.inner.transition(change)).collect();
            for answer in self.inner.link.batch("transition", commands).await? {
                outcomes.push(match answer {
                    Value::Int(0) => TransitionOutcome::Stale,
                    Value::Int(in_geo @ 1..=2) => TransitionOutcome::Applied { in_geo: in_geo == 2 },
                    _ => return Err(Outage::Unexpected("transition").into()),
                });
            }
        }
        Ok(outcomes)
    }

    /// Adds the drivers to `drivers:geo` that belong there. Returns the outcomes in the order given.
    pub async fn join(&self, drivers: &[DriverId]) -> Result<Vec<JoinOutcome>, PresenceError> {
        let mut outcomes = Vec::with_capacity(drivers.len());
        for chunk in drivers.chunks(BATCH) {
            let commands = chunk.iter().map(|driver| self.inner.join(*driver)).collect();
            for answer in self.inner.link.batch("join", commands).await? {
                outcomes.push(join_outcome(&answer)?);
            }
        }
        Ok(outcomes)
    }

    /// Checks the members whose heartbeat should have expired by now, page by page, until none is due or `limit` members were
    /// checked. Members that are still online are postponed. The others are removed.
    pub async fn sweep(&self, limit: usize) -> Result<SweepReport, PresenceError> {
        let mut report = SweepReport::default();
        loop {
            let wanted = SWEEP_PAGE.min(limit - report.removed - report.kept);
            let found = self.sweep_page(wanted, &mut report).await?;
            if found < SWEEP_PAGE {
                return Ok(report);
            }
        }
    }

    /// Sweeps one page. Returns how many members were due, at most `limit`.
    async fn sweep_page(&self, limit: usize, report: &mut SweepReport) -> Result<usize, PresenceError> {
        let inner = &self.inner;
        let due = scripts::DUE.call(&[&inner.keys.expiry], &[&limit.to_string()]);
        let members: Vec<Vec<u8>> = match inner.link.batch("sweep", vec![due]).await?.pop() {
            Some(answer) => parsed(answer)?,
            None => Vec::new(),
        };
        for chunk in members.chunks(BATCH) {
            let lapsed = self.score_anew(chunk).await?;
            report.kept += chunk.len() - lapsed.len();
            let commands = lapsed.into_iter().map(|member| inner.sweep_one(member)).collect();
            for answer in inner.link.batch("sweep", commands).await? {
                match join_outcome(&answer) {
                    Ok(JoinOutcome::Joined) => report.kept += 1,
                    _ => report.removed += 1,
                }
            }
        }
        Ok(members.len())
    }

    /// Postpones the members that are online and available, without a script for each, and returns the others. Nearly all due
    /// members are online and available. With XX a member that was removed meanwhile stays removed.
    async fn score_anew<'m>(&self, members: &'m [Vec<u8>]) -> Result<Vec<&'m Vec<u8>>, PresenceError> {
        let inner = &self.inner;
        let (ours, mut others): (Vec<_>, Vec<_>) = members.iter().partition(|member| driver_of(member).is_some());
        let drivers: Vec<DriverId> = ours.iter().filter_map(|member| driver_of(member)).collect();
        if drivers.is_empty() {
            return Ok(others);
        }
        let mut statuses = redis::cmd("HMGET");
        statuses.arg(&inner.keys.status).arg(drivers.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut commands = vec![redis::cmd("TIME"), statuses];
        commands.extend(drivers.iter().map(|driver| {
            let mut left = redis::cmd("PTTL");
            left.arg(inner.keys.online(*driver));
            left
        }));
        let mut answers = inner.link.batch("sweep", commands).await?.into_iter();
        let mut next = || answers.next().ok_or(Outage::Unexpected("sweep"));
        let (seconds, micros): (i64, i64) = parsed(next()?)?;
        let now_ms = seconds * 1000 + micros / 1000;
        let statuses: Vec<Option<String>> = parsed(next()?)?;
        let mut alive = redis::cmd("ZADD");
        alive.arg(&inner.keys.expiry).arg("XX");
        let mut any = false;
        for (member, status) in ours.into_iter().zip(statuses) {
            let left_ms: i64 = parsed(next()?)?;
            if left_ms > 0 && status.is_some_and(|status| status.starts_with("AVAILABLE:")) {
                alive.arg(now_ms + left_ms).arg(member);
                any = true;
            } else {
                others.push(member);
            }
        }
        if any {
            inner.link.batch("sweep", vec![alive]).await?;
        }
        Ok(others)
    }
}

fn parsed<T: redis::FromRedisValue>(answer: Value) -> Result<T, Outage> {
    redis::from_redis_value(answer).map_err(|_| Outage::Unexpected("sweep"))
}

impl Inner {
    pub(super) fn transition(&self, change: &StatusChange) -> Cmd {
        let StatusChange { driver_id, status, epoch } = change;
        let args = [&driver_id.to_string(), &member(*driver_id), status.as_str(), &epoch.to_string()];
        scripts::TRANSITION.call(&self.script_keys(&self.keys.online(*driver_id)), &args)
    }

    pub(super) fn join(&self, driver: DriverId) -> Cmd {
        let args = [&*driver.to_string(), &member(driver)];
        scripts::JOIN.call(&self.script_keys(&self.keys.online(driver)), &args)
    }

    /// A join of one member. A member that belongs to `drivers:geo` gets a new expiry. Any other member is removed.
    fn sweep_one(&self, member: &[u8]) -> Cmd {
        match driver_of(member) {
            Some(driver) => self.join(driver),
            None => {
                // The service did not write this member. Left in place, it would be first in every later sweep.
                let mut command = redis::cmd("ZREM");
                command.arg(&self.keys.expiry).arg(member);
                command
            }
        }
    }

    pub(super) fn script_keys<'a>(&'a self, online: &'a str) -> [&'a str; 4] {
        [&self.keys.status, &self.keys.geo, &self.keys.expiry, online]
    }
}

fn join_outcome(answer: &Value) -> Result<JoinOutcome, Outage> {
    match answer {
        Value::Int(0) => Ok(JoinOutcome::Joined),
        Value::Int(1) => Ok(JoinOutcome::NotAvailable),
        Value::Int(2) => Ok(JoinOutcome::NoPosition),
        Value::Int(3) => Ok(JoinOutcome::UnknownStatus),
        _ => Err(Outage::Unexpected("join")),
    }
}
