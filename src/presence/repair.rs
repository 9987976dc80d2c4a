//! Drift: what Redis says although nobody committed it, or fails to say (a field deleted by hand, an old file, a bug). Looked
//! for page by page against PostgreSQL, and repaired by scripts that are fenced as every other.

use redis::{Cmd, Value};

use super::keys::{driver_of, member};
use super::membership::StatusChange;
use super::{BATCH, Inner, Outage, Presence, PresenceError, scripts};
use crate::domain::ids::DriverId;

/// Members of `drivers:geo` that one page asks for; a small set comes whole.
const SCAN_COUNT: usize = 500;

/// What PostgreSQL says of a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Status and epoch.
    pub change: StatusChange,
    /// Redis must know of them; of an OFFLINE driver it may know nothing until they speak.
    pub must_be_known: bool,
    /// Add them if they belong into `drivers:geo` and are not there. A driver who is absent for the first time may just be joining:
    /// PostgreSQL learns of a driver between their heartbeat and their join.
    pub must_be_found: bool,
}

/// What Redis said of a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repaired {
    /// What PostgreSQL says.
    Equal,
    /// Something else, which was repaired.
    Repairs {
        /// The status or its epoch.
        status: bool,
        /// Whether the driver can be found.
        membership: bool,
    },
    /// Free, online with a position, and not to be found: left so, unless [`Expected::must_be_found`].
    Absent {
        /// The status or its epoch was repaired.
        status: bool,
    },
    /// A newer epoch: PostgreSQL must be asked again before that can be called wrong.
    Newer(i64),
}

/// Some of the members of `drivers:geo`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberPage {
    /// Drivers.
    pub drivers: Vec<DriverId>,
    /// Members that are no drivers of ours.
    pub unknown_members: Vec<Vec<u8>>,
    /// Where the next page begins; 0 at the end.
    pub cursor: u64,
}

impl Presence {
    /// Makes Redis say of each driver what is expected, unless it says something newer; outcomes in the order given.
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

    /// Puts back epochs that PostgreSQL, asked after they were seen, does not know: each a driver's true state and the wrong
    /// epoch. How many still stood there.
    pub async fn correct(&self, wrong: &[(StatusChange, i64)]) -> Result<usize, PresenceError> {
        let mut corrected = 0;
        for chunk in wrong.chunks(BATCH) {
            let commands = chunk.iter().map(|(change, wrong)| self.inner.correct(change, *wrong)).collect();
            let answers = self.inner.link.batch("correct", commands).await?;
            corrected += answers.iter().filter(|answer| matches!(answer, Value::Int(1))).count();
        }
        Ok(corrected)
    }

    /// A page of `drivers:geo`, from `cursor` on; 0 begins. Who is in all the while comes at least once.
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

    /// Takes members out of `drivers:geo` of which PostgreSQL knows nothing.
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
