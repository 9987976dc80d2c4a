//! Repairs drift: data in Redis that differs from what PostgreSQL committed.
//!
//! Drift comes from a field deleted by hand, an old file or a bug. The reconciliation compares Redis with PostgreSQL page by
//! page and calls this module.
//!
//! Invariants: the scripts that repair are fenced by epochs like every other script. A repair never overwrites a newer epoch.
//!
//! Must not: read PostgreSQL.

use redis::{Cmd, Value};

use super::keys::{driver_of, member};
use super::membership::StatusChange;
use super::{BATCH, Inner, Outage, Presence, PresenceError, scripts};
use crate::domain::ids::DriverId;

/// The `COUNT` of one page of `drivers:geo`. Redis returns a small set as a whole.
const SCAN_COUNT: usize = 500;

/// The state that PostgreSQL has for a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Status and epoch.
    pub change: StatusChange,
    /// Whether Redis must have a status of the driver. It may have none of an OFFLINE driver who has not sent anything yet.
    pub must_be_known: bool,
    /// Whether to add the driver to `drivers:geo` when the driver belongs there and is missing. A driver who is missing for the
    /// first time may be joining: PostgreSQL records a driver between the heartbeat and the join.
    pub must_be_found: bool,
}

/// What a repair found in Redis for a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repaired {
    /// The same state as PostgreSQL.
    Equal,
    /// Another state, which was repaired.
    Repairs {
        /// Whether the status or its epoch was repaired.
        status: bool,
        /// Whether the membership in `drivers:geo` was repaired.
        membership: bool,
    },
    /// The driver is AVAILABLE, online with a position, and missing in `drivers:geo`. The driver was not added, because
    /// [`Expected::must_be_found`] was not set.
    Absent {
        /// Whether the status or its epoch was repaired.
        status: bool,
    },
    /// A newer epoch. The caller must read PostgreSQL again before it can be called wrong.
    Newer(i64),
}

/// One page of the members of `drivers:geo`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberPage {
    /// The drivers of the page.
    pub drivers: Vec<DriverId>,
    /// Members that are not driver ids of this service.
    pub unknown_members: Vec<Vec<u8>>,
    /// The cursor of the next page. 0 after the last page.
    pub cursor: u64,
}

impl Presence {
    /// Makes Redis match the expected state of each driver, unless Redis has a newer epoch. Returns the outcomes in the order
    /// given.
    pub async fn repair(&self, expected: &[Expected]) -> Result<Vec<Repaired>, PresenceError> {
        let mut outcomes = Vec::with_capacity(expected.len());
        for chunk in expected.chunks(BATCH) {
            let commands = chunk.iter().map(|one| self.inner.repair(one)).collect();
            for answer in self.inner.link.batch("heal", commands).await? {
                outcomes.push(repaired(&answer)?);
            }
        }
        Ok(outcomes)
    }

    /// Replaces epochs that PostgreSQL never committed. Each entry is the driver's true state and the wrong epoch. The caller
    /// must read PostgreSQL after the wrong epoch was seen. Returns how many wrong epochs were still stored.
    pub async fn correct(&self, wrong: &[(StatusChange, i64)]) -> Result<usize, PresenceError> {
        let mut corrected = 0;
        for chunk in wrong.chunks(BATCH) {
            let commands = chunk.iter().map(|(change, wrong)| self.inner.correct(change, *wrong)).collect();
            let answers = self.inner.link.batch("correct", commands).await?;
            corrected += answers.iter().filter(|answer| matches!(answer, Value::Int(1))).count();
        }
        Ok(corrected)
    }

    /// Reads a page of `drivers:geo` from `cursor` on. 0 is the first page. A member that is present during the whole scan is
    /// returned at least once.
    pub async fn members(&self, cursor: u64) -> Result<MemberPage, PresenceError> {
        let mut command = redis::cmd("ZSCAN");
        command.arg(&self.inner.keys.geo).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
        let answer = self.inner.link.batch("members", vec![command]).await?.pop().ok_or(Outage::Unexpected("ZSCAN"))?;
        let (cursor, found): (u64, Vec<(Vec<u8>, f64)>) =
            redis::from_redis_value(answer).map_err(|_| Outage::Unexpected("ZSCAN"))?;
        let mut page = MemberPage { cursor, ..MemberPage::default() };
        for (name, _) in found {
            match driver_of(&name) {
                Some(driver) => page.drivers.push(driver),
                None => page.unknown_members.push(name),
            }
        }
        Ok(page)
    }

    /// Removes members from `drivers:geo` and `drivers:expiry` that do not exist in PostgreSQL.
    pub async fn expel(&self, drivers: &[DriverId], unknown_members: &[Vec<u8>]) -> Result<(), PresenceError> {
        let names = drivers.iter().map(|driver| member(*driver).into_bytes()).chain(unknown_members.iter().cloned());
        let keys = &self.inner.keys;
        let commands = names.flat_map(|name| {
            [&keys.geo, &keys.expiry].map(|key| {
                let mut command = redis::cmd("ZREM");
                command.arg(key).arg(&name);
                command
            })
        });
        self.inner.link.batch("expel", commands.collect()).await.map(drop)
    }
}

impl Inner {
    fn repair(&self, expected: &Expected) -> Cmd {
        let StatusChange { driver_id, status, epoch } = expected.change;
        let known = if expected.must_be_known { "1" } else { "0" };
        let found = if expected.must_be_found { "1" } else { "0" };
        let args = [&driver_id.to_string(), &member(driver_id), status.as_str(), &epoch.to_string(), known, found];
        scripts::REPAIR.call(&self.script_keys(&self.keys.online(driver_id)), &args)
    }

    fn correct(&self, change: &StatusChange, wrong: i64) -> Cmd {
        let StatusChange { driver_id, status, epoch } = *change;
        let (id, wrong) = (driver_id.to_string(), wrong.to_string());
        let args = [&id, &member(driver_id), status.as_str(), &epoch.to_string(), &wrong];
        scripts::CORRECT.call(&self.script_keys(&self.keys.online(driver_id)), &args)
    }
}

fn repaired(answer: &Value) -> Result<Repaired, Outage> {
    match answer {
        Value::Int(0) => Ok(Repaired::Equal),
        Value::Int(bits @ 4..=5) => Ok(Repaired::Absent { status: bits & 1 == 1 }),
        Value::Int(bits @ 1..=3) => Ok(Repaired::Repairs { status: bits & 1 == 1, membership: bits & 2 == 2 }),
        Value::BulkString(text) => {
            let epoch = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            epoch.map(Repaired::Newer).ok_or(Outage::Unexpected("heal"))
        }
        _ => Err(Outage::Unexpected("heal")),
    }
}
