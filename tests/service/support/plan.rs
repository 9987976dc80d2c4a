//! The plan of a world: which servers, shop and nodes it has, and the settings of its nodes.

use super::World;
use super::node::Env;

/// Signs webhooks. It is used in tests only.
pub const WEBHOOK_SECRET: &str = "whsec_dGVzdHMtc2lnbi13ZWJob29rcy13aXRoLXRoaXMtc2VjcmV0";
/// The value of the header `X-Webhook-Secret`.
pub const WEBHOOK_SHARED_SECRET: &str = "tests-prove-themselves-with-this-shared-secret";
/// Signs events.
pub const EVENTS_SECRET: &str = "whsec_dGVzdHMtdmVyaWZ5LWV2ZW50cy13aXRoLXRoaXMtc2VjcmV0";
/// The key that the secrets of other shops are derived from.
pub const SHOP_SECRETS_KEY: &str = "dGVzdHMtZGVyaXZlLXNlY3JldHMtb2Ytc2hvcHMtYnk=";

/// The plan of a world. [`World::with`] creates it.
#[derive(Default)]
pub struct Plan {
    pub(super) nodes: Option<usize>,
    pub(super) without_shop: bool,
    pub(super) own_redis: bool,
    pub(super) own_postgres: bool,
    pub(super) own_primary: bool,
    pub(super) redis_url: Option<String>,
    pub(super) settings: Env,
}

impl Plan {
    /// Sets how many nodes run from the start. The default is one.
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes = Some(count);
        self
    }

    /// Configures no shop that receives events.
    pub fn without_shop(mut self) -> Self {
        self.without_shop = true;
        self
    }

    /// Gives the world a private Redis that the test may stop, freeze or flush.
    pub fn own_redis(mut self) -> Self {
        self.own_redis = true;
        self
    }

    /// Gives the world a private PostgreSQL that the test may stop, freeze or restart.
    pub fn own_postgres(mut self) -> Self {
        self.own_postgres = true;
        self
    }

    /// Does what `own_postgres` does, and allows standbys.
    pub fn own_primary(mut self) -> Self {
        self.own_primary = true;
        self
    }

    /// Gives the world a Redis address at which no server listens.
    pub fn without_redis(mut self) -> Self {
        self.redis_url = Some("redis://127.0.0.1:1".to_owned());
        self
    }

    /// Sets a setting of every node.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts the world.
    pub async fn start(self) -> World {
        World::start_as(self).await
    }
}

/// Returns the settings of a node: short intervals, so that tests are fast, and no limit that all tests from one
/// address would reach together.
pub(super) fn settings(database_url: &str, redis_url: &str, prefix: &str) -> Env {
    [
        ("DATABASE_URL", database_url),
        ("DATABASE_MAX_CONNECTIONS", "10"),
        ("REDIS_URL", redis_url),
        ("REDIS_KEY_PREFIX", prefix),
        ("LISTEN_ADDR", "127.0.0.1:0"),
        ("METRICS_ADDR", "127.0.0.1:0"),
        ("VENDURE_WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("VENDURE_WEBHOOK_SHARED_SECRET", WEBHOOK_SHARED_SECRET),
        ("SHOP_SECRETS_KEY", SHOP_SECRETS_KEY),
        ("EVENTS_RETRY_SCHEDULE", "0ms,200ms,200ms,200ms,500ms,1s,1s,2s,5s,10s"),
        ("FRAMES_PER_SECOND", "0"),
        ("AUTH_FAILURES_PER_MINUTE", "0"),
        ("HEARTBEAT_INTERVAL_MS", "1000"),
        ("HEARTBEAT_TTL_MS", "6000"),
        ("PENDING_SWEEP_MS", "200"),
        ("POSITION_FLUSH_MS", "500"),
        ("ASSIGNMENT_WAIT_MS", "2000"),
        ("SHUTDOWN_DELAY_MS", "100"),
        ("SHUTDOWN_GRACE_MS", "4000"),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "info,driver_tracker=debug"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
