//! Reads what Redis holds, so that `doctor` can compare it with PostgreSQL.
//!
//! Invariants: the reads include cold data, and return it as it is.
//!
//! Must not: write.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Cmd, FromRedisValue, Value};

use super::keys::{driver_of, member};
use super::link::info_field;
use super::online::OnlineValue;
use super::{BATCH, Outage, Presence, PresenceError};
use crate::domain::ids::DriverId;

/// The `COUNT` of one step of a scan.
const SCAN_COUNT: usize = 1000;

/// The state of the Redis server as a whole.
#[derive(Clone, PartialEq, Debug)]
pub struct Overview {
    /// The version of the server.
    pub version: Option<String>,
    /// What the server does when its memory is full. Must be `noeviction`.
    pub eviction_policy: Option<String>,
    /// Bytes in use.
    pub used_memory: Option<u64>,
    /// The most bytes that the server may use. 0 means no limit.
    pub max_memory: Option<u64>,
    /// `drivers:generation`, if the key exists.
    pub generation: Option<String>,
    /// The generation that means warm, for the database identity that was set.
    pub expected_generation: Option<String>,
    /// Whether a process rebuilds Redis at the moment.
    pub is_rebuilding: bool,
}

/// What Redis holds about all drivers, or about the requested drivers.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Contents {
    /// The fields of `drivers:status` by driver, unparsed.
    pub statuses: BTreeMap<DriverId, String>,
    /// The drivers in `drivers:geo`.
    pub members: BTreeSet<DriverId>,
    /// The drivers in `drivers:expiry`.
    pub due: BTreeSet<DriverId>,
    /// The drivers with a readable online key. The value is whether it has a position.
    pub online: BTreeMap<DriverId, bool>,
    /// Fields and members that are not driver ids of this service.
    pub unknown_members: BTreeSet<String>,
}

impl Presence {
    /// Reads the state of the Redis server as a whole.
    pub async fn overview(&self) -> Result<Overview, PresenceError> {
        let keys = &self.inner.keys;
        let info = |section: &str| redis::cmd("INFO").arg(section).to_owned();
        let get = |key: &str| redis::cmd("GET").arg(key).to_owned();
        let commands = vec![info("server"), info("memory"), get(&keys.generation), get(&keys.rebuild)];
        let mut answers = self.inner.link.batch("overview", commands).await?.into_iter();
        let server: String = next(&mut answers, "INFO")?;
        let memory: String = next(&mut answers, "INFO")?;
        let generation: Option<String> = next(&mut answers, "GET")?;
        let rebuild: Option<String> = next(&mut answers, "GET")?;
        let of = |info: &str, name: &str| info_field(info, name).map(str::to_owned);
        let number = |name: &str| info_field(&memory, name).and_then(|text| text.parse().ok());
        let run_id = of(&server, "run_id");
        let expected = self.inner.database.load_full().zip(run_id).map(|(database, run)| format!("{database}@{run}"));
        Ok(Overview {
            version: of(&server, "redis_version"),
            eviction_policy: of(&memory, "maxmemory_policy"),
            used_memory: number("used_memory"),
            max_memory: number("maxmemory"),
            generation,
            expected_generation: expected,
            is_rebuilding: rebuild.is_some(),
        })
    }

    /// Reads everything except the online keys, in steps. Redis serves other clients between the steps.
    pub async fn contents(&self) -> Result<Contents, PresenceError> {
        let mut contents = Contents::default();
        let keys = &self.inner.keys;
        let fields: Vec<(Vec<u8>, Vec<u8>)> = self.scan("HSCAN", &keys.status).await?;
        for (field, text) in fields {
            let id = std::str::from_utf8(&field).ok().and_then(|text| text.parse().ok());
            match id {
                Some(id) => drop(contents.statuses.insert(id, String::from_utf8_lossy(&text).into_owned())),
                None => drop(contents.unknown_members.insert(String::from_utf8_lossy(&field).into_owned())),
            }
        }
        for (key, is_geo) in [(&keys.geo, true), (&keys.expiry, false)] {
            let members: Vec<(Vec<u8>, Vec<u8>)> = self.scan("ZSCAN", key).await?;
            for (name, _) in members {
                match driver_of(&name) {
                    Some(id) if is_geo => drop(contents.members.insert(id)),
                    Some(id) => drop(contents.due.insert(id)),
                    None => drop(contents.unknown_members.insert(String::from_utf8_lossy(&name).into_owned())),
                }
            }
        }
        Ok(contents)
    }

    async fn scan<T: FromRedisValue>(&self, command: &'static str, key: &str) -> Result<Vec<T>, PresenceError> {
        let (mut found, mut cursor) = (Vec::new(), 0u64);
        loop {
            let step = redis::cmd(command).arg(key).arg(cursor).arg("COUNT").arg(SCAN_COUNT).to_owned();
            let mut answers = self.inner.link.batch("scan", vec![step]).await?.into_iter();
            let (after, some): (u64, Vec<T>) = next(&mut answers, command)?;
            found.extend(some);
            if after == 0 {
                return Ok(found);
            }
            cursor = after;
        }
    }

    /// Adds to `contents` which of the drivers are online.
    pub async fn read_online_into(&self, contents: &mut Contents, drivers: &[DriverId]) -> Result<(), PresenceError> {
        for chunk in drivers.chunks(BATCH) {
            let mut command = redis::cmd("MGET");
            command.arg(chunk.iter().map(|driver| self.inner.keys.online(*driver)).collect::<Vec<_>>());
            let mut answers = self.inner.link.batch("online", vec![command]).await?.into_iter();
            let texts: Vec<Option<Vec<u8>>> = next(&mut answers, "MGET")?;
            for (driver, text) in chunk.iter().zip(texts) {
                if let Some(value) = text.and_then(|text| OnlineValue::decode(&text)) {
                    contents.online.insert(*driver, value.fix.is_some());
                }
            }
        }
        Ok(())
    }

    /// Reads what Redis holds about these drivers only, including their online keys.
    pub async fn contents_of(&self, drivers: &[DriverId]) -> Result<Contents, PresenceError> {
        let mut contents = Contents::default();
        let keys = &self.inner.keys;
        for chunk in drivers.chunks(BATCH) {
            let commands: Vec<Cmd> = chunk
                .iter()
                .flat_map(|driver| {
                    let name = member(*driver);
                    [
                        redis::cmd("HGET").arg(&keys.status).arg(driver.to_string()).to_owned(),
                        redis::cmd("ZSCORE").arg(&keys.geo).arg(&name).to_owned(),
                        redis::cmd("ZSCORE").arg(&keys.expiry).arg(&name).to_owned(),
                    ]
                })
                .collect();
            let mut answers = self.inner.link.batch("look", commands).await?.into_iter();
            for driver in chunk {
                let status: Option<Vec<u8>> = next(&mut answers, "HGET")?;
                if let Some(text) = status {
                    contents.statuses.insert(*driver, String::from_utf8_lossy(&text).into_owned());
                }
                for set in [&mut contents.members, &mut contents.due] {
                    let score: Option<f64> = next(&mut answers, "ZSCORE")?;
                    if score.is_some() {
                        set.insert(*driver);
                    }
                }
            }
        }
        self.read_online_into(&mut contents, drivers).await?;
        Ok(contents)
    }
}

fn next<T: FromRedisValue>(answers: &mut impl Iterator<Item = Value>, what: &'static str) -> Result<T, PresenceError> {
    let answer = answers.next().ok_or(Outage::Unexpected(what))?;
    redis::from_redis_value(answer).map_err(|_| Outage::Unexpected(what).into())
}
