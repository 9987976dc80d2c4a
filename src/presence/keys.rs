//! The names of all Redis keys and channels. No other module contains such a name.
//!
//! The names are in one place so that a hash tag for Redis Cluster (the driver's region) could be added here. All keys that
//! one script touches would have to share the tag.

use std::str::FromStr;

use crate::domain::ids::DriverId;

/// The prefix of a driver's member name in `drivers:geo` and `drivers:expiry`.
const MEMBER_PREFIX: &str = "driver:";

/// All names, with the operator's prefix included.
#[derive(Debug)]
pub(super) struct Keys {
    /// GEO set of the drivers that searches can find.
    pub(super) geo: String,
    /// Hash: driver id → `STATUS:epoch`.
    pub(super) status: String,
    /// Sorted set: when the sweep must check whether a member of `geo` is still online, in ms by Redis's clock.
    pub(super) expiry: String,
    /// Marks the other keys as complete, and names their database and run of Redis.
    pub(super) generation: String,
    /// The token of the process that rebuilds.
    pub(super) rebuild: String,
    /// The identity of the database whose epochs `status` holds.
    pub(super) database: String,
    /// Channel of hints between nodes.
    pub(super) hints: String,
    online: String,
}

impl Keys {
    /// Prepends `prefix` unchanged to every name.
    pub(super) fn new(prefix: &str) -> Self {
        let name = |rest: &str| format!("{prefix}{rest}");
        Self {
            geo: name("drivers:geo"),
            status: name("drivers:status"),
            expiry: name("drivers:expiry"),
            generation: name("drivers:generation"),
            rebuild: name("drivers:rebuild"),
            database: name("drivers:database"),
            hints: name("drivers:hints"),
            online: name("driver:online:"),
        }
    }

    /// A driver's online key.
    pub(super) fn online(&self, driver: DriverId) -> String {
        format!("{}{driver}", self.online)
    }
}

/// A driver's member name in the sorted sets.
pub(super) fn member(driver: DriverId) -> String {
    format!("{MEMBER_PREFIX}{driver}")
}

/// The driver of a member. Returns `None` for a member that this service did not write.
pub(super) fn driver_of(member: &[u8]) -> Option<DriverId> {
    let text = std::str::from_utf8(member).ok()?;
    DriverId::from_str(text.strip_prefix(MEMBER_PREFIX)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract_and_take_a_prefix() {
        let id = DriverId::new();
        let plain = Keys::new("");
        assert_eq!((plain.geo.as_str(), plain.status.as_str()), ("drivers:geo", "drivers:status"));
        assert_eq!(plain.online(id), format!("driver:online:{id}"));
        let prefixed = Keys::new("eu:");
        assert_eq!(prefixed.online(id), format!("eu:driver:online:{id}"));
        assert_eq!(prefixed.hints, "eu:drivers:hints");
    }

    #[test]
    fn members_are_read_back_and_strangers_are_not() {
        let id = DriverId::new();
        assert_eq!(driver_of(member(id).as_bytes()), Some(id));
        for stranger in [&b"driver:7"[..], b"7", b"", b"\xff\xfe"] {
            assert_eq!(driver_of(stranger), None);
        }
    }
}
