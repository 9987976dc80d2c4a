//! The types of the validated configuration.
//!
//! Invariants: every value was checked by itself and together with the values that it depends on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use h3o::Resolution;
use ipnet::IpNet;
use url::Url;

use super::secret::{Secret, SecretUrl};
use crate::domain::driver::HeartbeatTier;
use crate::domain::plausibility::FixRules;

/// The configuration of `serve`.
#[derive(Clone, Debug)]
pub struct Config {
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// The address of the API, the webhooks and the WebSocket. Port 0 means any free port.
    pub listen_addr: SocketAddr,
    /// The address of `/metrics`. Port 0 means any free port.
    pub metrics_addr: SocketAddr,
    /// The URL that clients use, if it was set. See [`Config::public_url`].
    pub given_public_url: Option<Url>,
    /// Other web origins that may open sockets, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// Networks of proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// This node's name, 1 to 64 letters, digits and `. _ : -`.
    pub node_id: String,
    /// Incoming orders.
    pub webhook: WebhookConfig,
    /// Outgoing events.
    pub events: EventsConfig,
    /// The keys, in base64, that the secrets of other shops are derived from, the newest first. Without a key there are no other
    /// shops.
    pub shop_secrets_keys: Vec<Secret<String>>,
    /// Rate limits and other limits.
    pub limits: LimitsConfig,
    /// Heartbeats and positions.
    pub heartbeat: HeartbeatConfig,
    /// Assignment of orders to drivers.
    pub assignment: AssignmentConfig,
    /// Shutdown.
    pub shutdown: ShutdownConfig,
    /// Logs.
    pub log: LogConfig,
    /// Whether `serve` applies missing migrations.
    pub migrate_on_start: bool,
}

impl Config {
    /// The URL that clients use: the one that was set, or the address that the service listens on. `bound` is the address of
    /// the open listener. It has the real port when `LISTEN_ADDR` has port 0.
    pub fn public_url(&self, bound: SocketAddr) -> Url {
        if let Some(url) = &self.given_public_url {
            return url.clone();
        }
        let ip = match bound.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let address = SocketAddr::new(ip, bound.port());
        Url::parse(&format!("http://{address}")).expect("an address and a port make a URL")
    }
}

/// The configuration of the commands that use only the database.
#[derive(Clone, Debug)]
pub struct MaintenanceConfig {
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// Logs.
    pub log: LogConfig,
}

/// The configuration of `doctor`.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// Logs.
    pub log: LogConfig,
}

/// PostgreSQL.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `postgres://…`, with one server or several.
    pub url: Secret<String>,
    /// The most connections that this node opens.
    pub max_connections: u32,
    /// Whether statements stay prepared on their connections.
    pub prepared_statements: bool,
}

/// Redis.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://…` or `rediss://…`, one server.
    pub url: Secret<String>,
    /// Whether Redis is a cluster.
    pub cluster: RedisCluster,
    /// The prefix of every key. May be empty.
    pub key_prefix: String,
    /// How often all of Redis is compared with PostgreSQL.
    pub compare_every: Duration,
}

/// Whether Redis is a cluster. `on` is refused for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedisCluster {
    /// Detected from the server. For now the same as off.
    Auto,
    /// Not a cluster.
    Off,
}

/// How the shop `vendure` authenticates its orders. At least one of the two is set.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// `whsec_…` secrets. Each is valid. There are several during a rotation.
    pub secrets: Vec<Secret<String>>,
    /// The secret of the plain header.
    pub shared: Option<Secret<String>>,
}

/// Outgoing events. With a URL there is at least one secret.
#[derive(Clone, Debug)]
pub struct EventsConfig {
    /// The URL that events are posted to. `None` means that no event is posted.
    pub url: Option<SecretUrl>,
    /// `whsec_…` secrets. Events are signed with each.
    pub secrets: Vec<Secret<String>>,
    /// Sent as `X-Webhook-Secret` in addition.
    pub shared: Option<Secret<String>>,
    /// Internal networks that events may be posted to.
    pub allowed_networks: Vec<IpNet>,
    /// The delay before each try, the first included. 1 to 50 entries.
    pub retry_schedule: Vec<Duration>,
}

/// Rate limits and other limits. 0 means no limit.
#[derive(Clone, Copy, Debug)]
pub struct LimitsConfig {
    /// Orders that one shop may post in a second.
    pub orders_per_second: u32,
    /// Frames that one driver may send in a second.
    pub frames_per_second: u32,
    /// Connections that one address may have open at the same time.
    pub connections_per_address: u32,
    /// Sessions that a driver may open in a minute.
    pub sessions_per_minute: u32,
    /// Failed authentications that one address may make in a minute.
    pub auth_failures_per_minute: u32,
}

/// Heartbeats and positions. `interval_busy` ≤ `interval` ≤ `interval_idle` ≤ `ttl` / 3. `offline_after` is at least `ttl`, and
/// `position_flush` is below `ttl`.
#[derive(Clone, Copy, Debug)]
pub struct HeartbeatConfig {
    /// The heartbeat interval of a driver on duty without a delivery.
    pub interval: Duration,
    /// The heartbeat interval of a driver with a delivery.
    pub interval_busy: Duration,
    /// The heartbeat interval of a driver off duty.
    pub interval_idle: Duration,
    /// A driver without a heartbeat for this long gets no orders.
    pub ttl: Duration,
    /// A driver without a heartbeat for this long goes off duty.
    pub offline_after: Duration,
    /// A driver whose position is older gets no orders.
    pub position_max_age: Duration,
    /// The rules that refuse a fix by its own fields.
    pub fix_rules: FixRules,
    /// A fix that would need a higher speed is refused. 0 means no limit.
    pub fix_max_speed_kmh: u32,
    /// How often positions are written to PostgreSQL.
    pub position_flush: Duration,
    /// How many days a track is kept after its own day. `None` means for ever.
    pub track_retention_days: Option<i32>,
}

impl HeartbeatConfig {
    /// The heartbeat interval of drivers in this tier.
    pub fn interval_of(&self, tier: HeartbeatTier) -> Duration {
        match tier {
            HeartbeatTier::Idle => self.interval_idle,
            HeartbeatTier::Ready => self.interval,
            HeartbeatTier::Busy => self.interval_busy,
        }
    }
}

/// Assignment of orders to drivers.
#[derive(Clone, Copy, Debug)]
pub struct AssignmentConfig {
    /// How long the webhook waits for a driver before it answers PENDING.
    pub wait: Duration,
    /// The largest distance between the pickup and a candidate, in metres.
    pub search_max_radius_m: f64,
    /// How often the sweep searches again for waiting orders.
    pub pending_sweep: Duration,
    /// The H3 resolution of regions, 0 to 10.
    pub region_resolution: Resolution,
}

/// Shutdown.
#[derive(Clone, Copy, Debug)]
pub struct ShutdownConfig {
    /// How long new work is still accepted after the signal.
    pub delay: Duration,
    /// How long the work in flight may take after that.
    pub grace: Duration,
}

/// Logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// The format of the lines.
    pub format: LogFormat,
    /// The filter of the lines, in the form of `RUST_LOG`. It is valid.
    pub filter: String,
}

/// The format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// Readable text, for people.
    Pretty,
    /// One JSON object a line, for programs.
    Json,
}
