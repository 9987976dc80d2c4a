//! Keeps in Redis which drivers are online, where they are and who is available, and finds the nearest drivers.
//!
//! Redis accelerates and decides nothing: it can vanish, stall, or come back empty at any moment. So every call here is
//! bounded in time, and every answer is one of three: an answer, "failed" ([`PresenceError::Unavailable`]), or "not trusted" ([`PresenceError::Cold`]). Nobody near is an answer, and is never said for the other two.
//!
//! Invariants, each held by a script or by the form of a command:
//! - `drivers:geo` holds only drivers whom `drivers:status` calls AVAILABLE. A heartbeat moves members and can never add
//!   one (`GEOADD XX`); only scripts add, all of them by `settle` in `common.lua`, which looks at status and online key first.
//! - An older epoch never overwrites a newer one; an equal one is applied again, which repairs. The
//!   heartbeat of a replaced session does for the length of one round trip, and is undone before its answer is returned.
//! - A search names nobody whose heartbeat has expired, whatever `drivers:geo` still holds.
//! - Data is believed only under a generation that names this database and this run of Redis.
//!
//! Must not: know SQL, decide who gets an order, or connect before the first call.

mod breaker;
mod connection;
mod error;
mod generation;
mod health;
mod heartbeat;
mod hints;
mod inspection;
mod keys;
mod link;
mod membership;
mod online;
mod repair;
mod scripts;
mod search;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::domain::ids::DriverId;
use keys::Keys;
use link::Link;

pub use error::{Outage, PresenceError};
pub use generation::{RebuildDriver, RebuildToken};
pub use health::{RedisHealth, RedisState};
pub use inspection::{Contents, Overview};
pub use membership::{JoinOutcome, StatusChange, SweepReport, TransitionOutcome};
pub use online::OnlineValue;
pub use repair::{Expected, MemberPage, Repaired};

/// The most drivers in one round trip. A longer batch would block Redis for other callers.
const BATCH: usize = 256;

/// The settings of a [`Presence`].
#[derive(Clone)]
pub struct PresenceSettings {
    /// `redis://` or `rediss://`, including the ACL user.
    pub redis_url: String,
    /// Prepended unchanged to every key and channel name. May be empty.
    pub key_prefix: String,
    /// How long a heartbeat keeps a driver online.
    pub ttl: Duration,
    /// A driver whose fix is older than this is not a candidate.
    pub position_max_age: Duration,
    /// The timeout of one call.
    pub call_timeout: Duration,
    /// How long the breaker stays open after a failure.
    pub breaker_open: Duration,
    /// Whether a node of a Redis Cluster is refused, since clusters are not supported.
    pub refuses_cluster: bool,
    /// Drives the connections; must outlive every caller.
    pub runtime: Handle,
}

impl PresenceSettings {
    /// The defaults of `docs/configuration.md`.
    pub fn new(redis_url: impl Into<String>, runtime: Handle) -> Self {
        Self {
            redis_url: redis_url.into(),
            key_prefix: String::new(),
            ttl: Duration::from_secs(30),
            position_max_age: Duration::from_secs(120),
            call_timeout: Duration::from_millis(250),
            breaker_open: Duration::from_millis(500),
            refuses_cluster: true,
            runtime,
        }
    }
}

/// Reads and writes presence data in Redis. Cheap to clone. Usable from any runtime.
#[derive(Clone)]
pub struct Presence {
    inner: Arc<Inner>,
}

struct Inner {
    link: Arc<Link>,
    keys: Keys,
    ttl: Duration,
    position_max_age: Duration,
    /// The prefix of this process's rebuild tokens.
    process: Uuid,
    /// The identity of the database, see [`Presence::set_database_identity`].
    database: ArcSwapOption<String>,
    /// The rebuild that this process is running.
    rebuild: ArcSwapOption<RebuildToken>,
    /// Drivers whose last heartbeat was sent and not answered. It is not known whether their online key had expired.
    unanswered: Mutex<HashSet<DriverId>>,
    trust: trust::Trust,
}

impl Presence {
    /// Checks the URL. Does not connect.
    pub fn new(settings: PresenceSettings) -> Result<Self, PresenceError> {
        let PresenceSettings {
            redis_url,
            key_prefix,
            ttl,
            position_max_age,
            call_timeout,
            breaker_open,
            refuses_cluster,
            runtime,
        } = settings;
        Ok(Self {
            inner: Arc::new(Inner {
                link: Arc::new(Link::new(&redis_url, call_timeout, breaker_open, refuses_cluster, runtime)?),
                keys: Keys::new(&key_prefix),
                ttl,
                position_max_age,
                process: Uuid::new_v4(),
                database: ArcSwapOption::empty(),
                rebuild: ArcSwapOption::empty(),
                unanswered: Mutex::default(),
                trust: trust::Trust::default(),
            }),
        })
    }
}
