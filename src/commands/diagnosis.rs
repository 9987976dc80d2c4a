//! Compares what Redis and PostgreSQL hold about drivers.
//!
//! Must not: read the stores. The functions are pure, and the caller reads both stores before.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::driver::DriverStatus;
use crate::domain::ids::DriverId;
use crate::presence::Contents;

/// The state that PostgreSQL has for a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The status, derived from the driver's state.
    pub status: DriverStatus,
    /// The epoch of that state.
    pub epoch: i64,
}

/// How Redis differs from PostgreSQL for one driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Difference {
    /// AVAILABLE or BUSY, and no field in `drivers:status`. Redis needs no field of an OFFLINE driver who has not sent anything.
    StatusMissing,
    /// Another status or epoch in `drivers:status`.
    StatusDiffers,
    /// AVAILABLE and online with a position, and not in `drivers:geo`.
    MissingInGeo,
    /// In `drivers:geo` without being AVAILABLE.
    ExtraInGeo,
    /// In `drivers:geo`, and without a heartbeat for longer than the TTL.
    StaleMember,
    /// In `drivers:geo` and not in `drivers:expiry`. No sweep would ever check the driver.
    NeverSwept,
    /// Redis holds a driver who does not exist in PostgreSQL.
    UnknownDriver,
}

impl Difference {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::StatusMissing => "status_missing",
            Self::StatusDiffers => "status_differs",
            Self::MissingInGeo => "missing_in_geo",
            Self::ExtraInGeo => "extra_in_geo",
            Self::StaleMember => "stale_member",
            Self::NeverSwept => "never_swept",
            Self::UnknownDriver => "unknown_driver",
        }
    }

    /// The description, to follow the number of drivers in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::StatusMissing => "have no status in Redis",
            Self::StatusDiffers => "have another status or epoch in Redis",
            Self::MissingInGeo => "are free and online, and cannot be found",
            Self::ExtraInGeo => "can be found, and are not free",
            Self::StaleMember => "can be found, and are silent",
            Self::NeverSwept => "can be found, and would never be swept out",
            Self::UnknownDriver => "are in Redis, and unknown to PostgreSQL",
        }
    }
}

/// The drivers that differ, by kind.
pub type Differences = BTreeMap<Difference, BTreeSet<DriverId>>;

/// All differences between the drivers in PostgreSQL and the drivers in Redis.
pub fn compare(known: &BTreeMap<DriverId, Known>, redis: &Contents) -> Differences {
    let mut found = Differences::new();
    let mut note = |difference, driver: DriverId| {
        found.entry(difference).or_default().insert(driver);
    };
    for (driver, known) in known {
        differences_of(*driver, known, redis).into_iter().for_each(|difference| note(difference, *driver));
    }
    let spoken_of = redis.statuses.keys().chain(&redis.members).chain(&redis.due);
    for driver in spoken_of.filter(|driver| !known.contains_key(driver)) {
        note(Difference::UnknownDriver, *driver);
    }
    found
}

fn differences_of(driver: DriverId, known: &Known, redis: &Contents) -> Vec<Difference> {
    let mut found = Vec::new();
    let right = format!("{}:{}", known.status, known.epoch);
    match redis.statuses.get(&driver) {
        None if known.status != DriverStatus::Offline => found.push(Difference::StatusMissing),
        Some(text) if *text != right => found.push(Difference::StatusDiffers),
        _ => {}
    }
    let is_free = known.status == DriverStatus::Available;
    let is_placed = redis.online.get(&driver) == Some(&true);
    match (redis.members.contains(&driver), is_free, is_placed) {
        (true, false, _) => found.push(Difference::ExtraInGeo),
        (true, true, false) => found.push(Difference::StaleMember),
        (false, true, true) => found.push(Difference::MissingInGeo),
        _ => {}
    }
    if redis.members.contains(&driver) && !redis.due.contains(&driver) {
        found.push(Difference::NeverSwept);
    }
    found
}

/// The differences that were found twice, for drivers whose state did not change in between. The other differences came from
/// changes that had not reached Redis yet.
pub fn confirmed(
    first: &Differences,
    second: &Differences,
    before: &BTreeMap<DriverId, Known>,
    after: &BTreeMap<DriverId, Known>,
) -> Differences {
    let mut kept = Differences::new();
    for (difference, drivers) in first {
        let Some(again) = second.get(difference) else { continue };
        let steady = drivers.intersection(again).filter(|driver| before.get(driver) == after.get(driver));
        let steady: BTreeSet<DriverId> = steady.copied().collect();
        if !steady.is_empty() {
            kept.insert(*difference, steady);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(epoch: i64) -> Known {
        Known { status: DriverStatus::Available, epoch }
    }

    /// The right contents of Redis for a driver who is AVAILABLE at epoch 3 and online with a position.
    fn right(driver: DriverId) -> Contents {
        Contents {
            statuses: [(driver, "AVAILABLE:3".to_owned())].into(),
            members: [driver].into(),
            due: [driver].into(),
            online: [(driver, true)].into(),
            ..Contents::default()
        }
    }

    fn kinds(known: Known, change: impl FnOnce(&mut Contents, DriverId)) -> Vec<Difference> {
        let driver = DriverId::new();
        let mut redis = right(driver);
        change(&mut redis, driver);
        let found = compare(&[(driver, known)].into(), &redis);
        assert!(found.values().all(|drivers| *drivers == BTreeSet::from([driver])));
        found.into_keys().collect()
    }

    #[test]
    fn each_kind_of_difference_has_its_name_and_what_is_right_has_none() {
        use Difference::*;
        assert_eq!(kinds(free(3), |_, _| {}), []);
        assert_eq!(
            kinds(free(3), |redis, id| {
                redis.statuses.remove(&id);
            }),
            [StatusMissing]
        );
        assert_eq!(kinds(free(4), |_, _| {}), [StatusDiffers]);
        assert_eq!(
            kinds(free(3), |redis, id| {
                redis.members.remove(&id);
            }),
            [MissingInGeo]
        );
        assert_eq!(
            kinds(free(3), |redis, id| {
                redis.online.remove(&id);
            }),
            [StaleMember]
        );
        assert_eq!(
            kinds(free(3), |redis, id| {
                redis.online.insert(id, false);
            }),
            [StaleMember]
        );
        assert_eq!(
            kinds(free(3), |redis, id| {
                redis.due.remove(&id);
            }),
            [NeverSwept]
        );
        let busy = Known { status: DriverStatus::Busy, ..free(3) };
        let as_busy = |redis: &mut Contents, id| drop(redis.statuses.insert(id, "BUSY:3".to_owned()));
        assert_eq!(kinds(busy, as_busy), [ExtraInGeo]);
    }

    #[test]
    fn who_need_not_be_found_is_not_missed() {
        let offline = |redis: &mut Contents, id: DriverId| {
            *redis = Contents::default();
            redis.statuses.insert(id, "AVAILABLE:3".to_owned());
        };
        assert_eq!(kinds(free(3), offline), [], "free, and silent");
        let off_duty = Known { status: DriverStatus::Offline, epoch: 7 };
        assert_eq!(kinds(off_duty, |redis, _| *redis = Contents::default()), [], "off duty, and never heard");
        assert_eq!(kinds(off_duty, offline), [Difference::StatusDiffers]);
    }

    #[test]
    fn whom_postgresql_does_not_know_is_told_wherever_redis_speaks_of_them() {
        let [a, b, c] = [DriverId::new(), DriverId::new(), DriverId::new()];
        let redis = Contents {
            statuses: [(a, "BUSY:1".to_owned())].into(),
            members: [b].into(),
            due: [c].into(),
            ..Contents::default()
        };
        let found = compare(&BTreeMap::new(), &redis);
        assert_eq!(found, [(Difference::UnknownDriver, BTreeSet::from([a, b, c]))].into());
    }

    #[test]
    fn what_is_on_its_way_is_not_told() {
        let [steady, moving, repaired] = [DriverId::new(), DriverId::new(), DriverId::new()];
        let first: Differences = [(Difference::StatusDiffers, BTreeSet::from([steady, moving, repaired]))].into();
        let second: Differences = [(Difference::StatusDiffers, BTreeSet::from([steady, moving]))].into();
        let before = [(steady, free(1)), (moving, free(1))].into();
        let after = [(steady, free(1)), (moving, free(2))].into();
        let kept = confirmed(&first, &second, &before, &after);
        assert_eq!(kept, [(Difference::StatusDiffers, BTreeSet::from([steady]))].into());
        assert!(confirmed(&first, &Differences::new(), &before, &after).is_empty());
    }
}
