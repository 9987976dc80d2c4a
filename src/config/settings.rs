//! The table of settings: their names, defaults and help texts.
//!
//! Invariants: the flags of the command line, the names in the environment and the keys of the file come from this table. A
//! test compares `docs/configuration.md` with it.
//!
//! Must not: parse a value, which `build` does.

use std::fmt;

/// A set of settings that are read together; also a heading in `--help` and in the docs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Group {
    /// PostgreSQL.
    Database,
    /// Redis.
    Redis,
    /// The addresses that the service listens on, and the proxies and origins that it trusts.
    Addresses,
    /// Incoming orders.
    Webhook,
    /// Shops that are added by the REST API.
    Shops,
    /// Outgoing events.
    Events,
    /// Rate limits and other limits.
    Limits,
    /// Heartbeats and positions.
    Heartbeats,
    /// Assignment of orders to drivers.
    Assignment,
    /// Shutdown.
    Shutdown,
    /// Logs.
    Logs,
}

impl Group {
    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Database => "Database",
            Self::Redis => "Redis",
            Self::Addresses => "Addresses",
            Self::Webhook => "Orders in",
            Self::Shops => "Shops",
            Self::Events => "Events out",
            Self::Limits => "Limits",
            Self::Heartbeats => "Heartbeats and positions",
            Self::Assignment => "Assignment",
            Self::Shutdown => "Shutdown",
            Self::Logs => "Logs",
        }
    }
}

/// How much of a value may be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// The whole value.
    Plain,
    /// A URL without its user, password, query and fragment.
    Url,
    /// Only whether it is set.
    Nothing,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The name in the environment, such as `DATABASE_MAX_CONNECTIONS`.
    pub name: &'static str,
    /// The group, which is also its heading.
    pub group: Group,
    /// The value when no source sets one.
    pub default: Option<&'static str>,
    /// What applies without a default text: `required`, `none`, or where the value comes from.
    pub otherwise: &'static str,
    /// The help text.
    pub help: &'static str,
    /// How much of the value may be shown.
    pub shown: Shown,
}

impl Setting {
    /// The setting with this name in the environment.
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The key in the file: `database_max_connections`.
    pub fn file_key(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    /// The flag without the leading dashes: `database-max-connections`.
    pub fn flag(&self) -> String {
        self.file_key().replace('_', "-")
    }

    /// Whether the value must never be printed as a whole.
    pub fn is_secret(&self) -> bool {
        self.shown != Shown::Plain
    }

    /// The default value, or the words that stand for it.
    pub fn default_text(&self) -> &'static str {
        self.default.unwrap_or(self.otherwise)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn plain(group: Group, name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, group, default: Some(default), otherwise: "", help, shown: Shown::Plain }
}

const fn open(group: Group, name: &'static str, otherwise: &'static str, shown: Shown, help: &'static str) -> Setting {
    Setting { name, group, default: None, otherwise, help, shown }
}

use Group::{Addresses, Assignment, Database, Events, Heartbeats, Limits, Logs, Redis, Shops, Shutdown, Webhook};
use Shown::{Nothing, Plain, Url};

/// Every setting, in the order in which the settings are shown.
pub const SETTINGS: &[Setting] = &[
    open(
        Database,
        "DATABASE_URL",
        "required",
        Url,
        "PostgreSQL: postgres://user:password@host:5432/name, or host1:5432,host2:5432 for several servers of which one takes \
         writes; may stand behind a transaction-pooling proxy",
    ),
    plain(
        Database,
        "DATABASE_MAX_CONNECTIONS",
        "16",
        "The most connections that one node opens to PostgreSQL, 2 to 1000",
    ),
    plain(
        Database,
        "DATABASE_PREPARED_STATEMENTS",
        "false",
        "Whether statements are kept prepared on connections: faster, but not every transaction pooler bears it; true or false",
    ),
    plain(
        Database,
        "MIGRATE_ON_START",
        "false",
        "Whether serve brings the database's schema up to date itself: true or false",
    ),
    open(
        Redis,
        "REDIS_URL",
        "required",
        Url,
        "Redis: redis:// or rediss:// (TLS), an ACL user and password in the URL",
    ),
    plain(
        Redis,
        "REDIS_CLUSTER",
        "auto",
        "Whether Redis is a cluster: auto or off, both meaning a single server for now; on is refused",
    ),
    open(
        Redis,
        "REDIS_KEY_PREFIX",
        "none",
        Plain,
        "Stands before every key in Redis, so that several services can share one; letters, digits and : . _ -, at most 64",
    ),
    plain(
        Redis,
        "REDIS_COMPARE_EVERY_MS",
        "3000",
        "How often all of Redis is compared with PostgreSQL and mended, a page a second, 1000 to 86400000",
    ),
    plain(
        Addresses,
        "LISTEN_ADDR",
        "127.0.0.1:8080",
        "Address and port of the API, the webhooks and the WebSocket; port 0: any free one, told in the log and in /health",
    ),
    plain(Addresses, "METRICS_ADDR", "127.0.0.1:9464", "Address and port of /metrics; port 0: any free one"),
    open(
        Addresses,
        "PUBLIC_URL",
        "from LISTEN_ADDR",
        Plain,
        "The address under which the outside reaches the service, used in links and for the Origin check",
    ),
    open(
        Addresses,
        "ALLOWED_ORIGINS",
        "none",
        Plain,
        "Other web origins (https://app.example.com, several by commas) that may open sockets and call the API from a browser",
    ),
    open(
        Addresses,
        "TRUSTED_PROXIES",
        "none",
        Plain,
        "Networks (CIDR, several by commas) of proxies whose X-Forwarded-For is believed",
    ),
    open(
        Addresses,
        "NODE_ID",
        "host name and a random part",
        Plain,
        "This node's name in logs, in Redis and in leases; unique per running process; letters, digits and . _ : -, at most 64",
    ),
    open(
        Webhook,
        "VENDURE_WEBHOOK_SECRET",
        "none",
        Nothing,
        "Signing secret of the shop vendure: whsec_ and base64 of 24 to 64 bytes; several by commas while rotating",
    ),
    open(
        Webhook,
        "VENDURE_WEBHOOK_SHARED_SECRET",
        "none",
        Nothing,
        "Secret of the plain header X-Webhook-Secret, for senders that cannot sign; one of the two is required",
    ),
    open(
        Shops,
        "SHOP_SECRETS_KEY",
        "none",
        Nothing,
        "Base64 of 32 to 64 bytes that the secrets of shops beside vendure are derived from; several by commas while rotating, new secrets come from the first; without it no shop can be added",
    ),
    open(
        Events,
        "VENDURE_EVENTS_URL",
        "none",
        Url,
        "Where delivery events are posted, http:// or https://; without it nothing is posted and the audit trail is still kept",
    ),
    open(
        Events,
        "VENDURE_EVENTS_SECRET",
        "none",
        Nothing,
        "Signs the events: whsec_ and base64 of 24 to 64 bytes; several by commas, the events are signed with each",
    ),
    open(Events, "VENDURE_EVENTS_SHARED_SECRET", "none", Nothing, "Sent with the events as X-Webhook-Secret"),
    open(
        Events,
        "EVENTS_ALLOWED_NETWORKS",
        "none",
        Plain,
        "Networks (CIDR, several by commas) inside your own network that events may be posted to",
    ),
    plain(
        Events,
        "EVENTS_RETRY_SCHEDULE",
        "0s,5s,5m,30m,2h,5h,10h,14h,20h,24h",
        "Delay before each try of an event, the first one included: 1 to 50 entries in ms, s, m or h, each at most 168h",
    ),
    plain(Limits, "ORDERS_PER_SECOND", "1000", "Orders that one shop may post in a second; 0: no limit"),
    plain(Limits, "FRAMES_PER_SECOND", "20", "Frames that one driver may send in a second; 0: no limit"),
    plain(Limits, "SESSIONS_PER_MINUTE", "1200", "Sessions that a driver may open on a node in a minute; 0: no limit"),
    plain(Limits, "CONNECTIONS_PER_ADDRESS", "20000", "Connections that one address may hold open; 0: no limit"),
    plain(
        Limits,
        "AUTH_FAILURES_PER_MINUTE",
        "100",
        "Failed attempts to authenticate that one address may make in a minute; 0: no limit",
    ),
    plain(
        Heartbeats,
        "HEARTBEAT_INTERVAL_MS",
        "5000",
        "How often a driver's app is asked to say where it is, 100 to 600000",
    ),
    open(
        Heartbeats,
        "HEARTBEAT_INTERVAL_BUSY_MS",
        "half of HEARTBEAT_INTERVAL_MS",
        Plain,
        "How often the app of a driver with a delivery in hand is asked; 100 to 600000, not above HEARTBEAT_INTERVAL_MS",
    ),
    open(
        Heartbeats,
        "HEARTBEAT_INTERVAL_IDLE_MS",
        "a third of HEARTBEAT_TTL_MS, at most three times HEARTBEAT_INTERVAL_MS",
        Plain,
        "How often the app of a driver off duty is asked; from HEARTBEAT_INTERVAL_MS to a third of HEARTBEAT_TTL_MS",
    ),
    plain(
        Heartbeats,
        "HEARTBEAT_TTL_MS",
        "30000",
        "A driver silent for this long gets no orders; 300 to 3600000, at least three times HEARTBEAT_INTERVAL_MS",
    ),
    plain(
        Heartbeats,
        "OFFLINE_AFTER_MS",
        "900000",
        "A driver silent for this long goes off duty; 300 to 604800000, not below HEARTBEAT_TTL_MS",
    ),
    plain(Heartbeats, "POSITION_MAX_AGE_MS", "120000", "A position older than this earns no orders, 1000 to 86400000"),
    plain(
        Heartbeats,
        "FIX_MAX_FUTURE_MS",
        "30000",
        "A fix farther ahead of the server's clock is refused, 1 to 86400000; 0: no limit",
    ),
    plain(Heartbeats, "FIX_REFUSE_ZERO", "true", "Whether a fix at 0/0 is refused: true or false"),
    plain(
        Heartbeats,
        "FIX_MAX_INACCURACY_M",
        "200",
        "A fix less accurate than so many metres is refused, 1 to 100000; 0: no limit",
    ),
    plain(
        Heartbeats,
        "FIX_MAX_SPEED_KMH",
        "200",
        "A fix farther from the last than this speed allows is refused, 1 to 2000; 0: no limit",
    ),
    plain(
        Heartbeats,
        "POSITION_FLUSH_MS",
        "10000",
        "How often positions are written to PostgreSQL, 100 to 600000; below HEARTBEAT_TTL_MS",
    ),
    plain(
        Heartbeats,
        "TRACK_RETENTION_DAYS",
        "30",
        "How many days the tracks of deliveries are kept, 1 to 36500; 0: for ever",
    ),
    plain(
        Assignment,
        "ASSIGNMENT_WAIT_MS",
        "250",
        "How long the webhook waits for a driver before it answers PENDING, 0 to 30000",
    ),
    plain(
        Assignment,
        "SEARCH_MAX_RADIUS_M",
        "10000",
        "How far from the pickup a driver is looked for, in metres, 100 to 500000",
    ),
    plain(Assignment, "PENDING_SWEEP_MS", "1000", "How often waiting orders are looked at again, 50 to 600000"),
    plain(
        Assignment,
        "REGION_RESOLUTION",
        "5",
        "H3 resolution of the regions that orders are worked off by, 0 to 10; 5 is about 250 square kilometres",
    ),
    plain(
        Shutdown,
        "SHUTDOWN_DELAY_MS",
        "5000",
        "After SIGTERM, how long orders and sockets are still taken while load balancers notice, 0 to 300000",
    ),
    plain(
        Shutdown,
        "SHUTDOWN_GRACE_MS",
        "20000",
        "After that, how long the service may take to finish what is in hand, 100 to 600000",
    ),
    plain(Logs, "LOG_FORMAT", "auto", "auto (pretty on a terminal, json elsewhere), pretty or json"),
    plain(
        Logs,
        "RUST_LOG",
        "info",
        "Which log lines are written: a level, or targets with levels such as info,driver_tracker=debug",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_turn_into_flags_and_keys() {
        let names: HashSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(names.len(), SETTINGS.len());
        let setting = Setting::named("DATABASE_MAX_CONNECTIONS").unwrap();
        assert_eq!(setting.flag(), "database-max-connections");
        assert_eq!(setting.file_key(), "database_max_connections");
    }

    #[test]
    fn groups_stand_together() {
        let mut seen = Vec::new();
        for setting in SETTINGS {
            if seen.last() != Some(&setting.group) {
                assert!(!seen.contains(&setting.group), "{:?} is torn apart", setting.group);
                seen.push(setting.group);
            }
        }
    }
}
