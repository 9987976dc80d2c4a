//! The configuration, as types. Every value here has been checked, alone and beside the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use h3o::Resolution;
use ipnet::IpNet;
use url::Url;

use super::secret::{Secret, SecretUrl};
use crate::domain::driver::HeartbeatTier;
use crate::domain::plausibility::FixRules;

/// All that `serve` needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// Where the API, the webhooks and the WebSocket are; port 0: any.
    pub listen_addr: SocketAddr,
    /// Where `/metrics` is; port 0: any.
    pub metrics_addr: SocketAddr,
    /// The address that the outside uses, where it was given: see [`Config::public_url`].
    pub given_public_url: Option<Url>,
    /// Other web origins that may open sockets, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// Networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// This node's name, 1 to 64 letters, digits and `. _ : -`.
    pub node_id: String,
    /// Orders in.
    pub webhook: WebhookConfig,
    /// Events out.
    pub events: EventsConfig,
    /// Base64 of what the secrets of other shops are derived from, the newest first; none: there are no other shops.
    pub shop_secrets_keys: Vec<Secret<String>>,
    /// Rates and counts.
    pub limits: LimitsConfig,
    /// The drivers' heartbeats.
    pub heartbeat: HeartbeatConfig,
    /// Giving orders to drivers.
    pub assignment: AssignmentConfig,
    /// Stopping.
    pub shutdown: ShutdownConfig,
    /// Logs.
    pub log: LogConfig,
    /// Whether `serve` migrates the database itself.
    pub migrate_on_start: bool,
}

impl Config {
    /// The address that the outside uses: the one given, or the one that the service listens on. `bound` is the address
    /// of the open listener, which knows the port where `LISTEN_ADDR` asked for any.
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

/// What the commands need that only touch the database.
#[derive(Clone, Debug)]
pub struct MaintenanceConfig {
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// Logs.
    pub log: LogConfig,
}

/// What `doctor` needs.
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
    /// `postgres://…`, of one server or several.
    pub url: Secret<String>,
    /// The most connections of this node.
    pub max_connections: u32,
    /// Whether statements stay prepared on their connections.
    pub prepared_statements: bool,
}

/// Redis.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://…` or `rediss://…`, one server.
    pub url: Secret<String>,
    /// Whether it is a cluster.
    pub cluster: RedisCluster,
    /// Stands before every key; may be empty.
    pub key_prefix: String,
    /// How often all of it is compared with PostgreSQL.
    pub compare_every: Duration,
}

/// Whether Redis is a cluster. `on` is refused for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedisCluster {
    /// The server is asked.
    Auto,
    /// It is not.
    Off,
}

/// How the shop `vendure` proves that an order is its own: at least one of the two is set.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// `whsec_…` secrets, each valid; several while rotating.
    pub secrets: Vec<Secret<String>>,
    /// The secret of the plain header.
    pub shared: Option<Secret<String>>,
}

/// Where events go. With a URL there is at least one secret.
#[derive(Clone, Debug)]
pub struct EventsConfig {
    /// `None`: nothing is posted.
    pub url: Option<SecretUrl>,
    /// `whsec_…` secrets; events are signed with each.
    pub secrets: Vec<Secret<String>>,
    /// Sent as `X-Webhook-Secret` as well.
    pub shared: Option<Secret<String>>,
    /// Internal networks that may be posted to.
    pub allowed_networks: Vec<IpNet>,
    /// The delay before each try, the first included; 1 to 50.
    pub retry_schedule: Vec<Duration>,
}

/// Rates and counts; 0 means no limit.
#[derive(Clone, Copy, Debug)]
pub struct LimitsConfig {
    /// Per shop.
    pub orders_per_second: u32,
    /// Per driver.
    pub frames_per_second: u32,
    /// Open at one time.
    pub connections_per_address: u32,
    /// Sessions that a driver may open in a minute.
    pub sessions_per_minute: u32,
    /// Per address.
    pub auth_failures_per_minute: u32,
}

/// The drivers' heartbeats. `interval_busy` ≤ `interval` ≤ `interval_idle` ≤ `ttl` / 3, `offline_after` is at least
/// `ttl`, and `position_flush` below it.
#[derive(Clone, Copy, Debug)]
pub struct HeartbeatConfig {
    /// How often an app should say where it is, of a driver on duty without a delivery.
    pub interval: Duration,
    /// … of a driver with a delivery.
    pub interval_busy: Duration,
    /// … of a driver off duty.
    pub interval_idle: Duration,
    /// Silent for this long: gets no orders.
    pub ttl: Duration,
    /// Silent for this long: goes off duty.
    pub offline_after: Duration,
    /// Older positions earn no orders.
    pub position_max_age: Duration,
    /// Which fixes are refused for what they say by themselves.
    pub fix_rules: FixRules,
    /// A fix that this speed does not allow is refused; 0: no limit.
    pub fix_max_speed_kmh: u32,
    /// How often positions go to PostgreSQL.
    pub position_flush: Duration,
    /// How many days tracks are kept after their own; `None`: for ever.
    pub track_retention_days: Option<i32>,
}

impl HeartbeatConfig {
    /// The heartbeat interval of drivers of this tier.
    pub fn interval_of(&self, tier: HeartbeatTier) -> Duration {
        match tier {
            HeartbeatTier::Idle => self.interval_idle,
            HeartbeatTier::Ready => self.interval,
            HeartbeatTier::Busy => self.interval_busy,
        }
    }
}

/// Giving orders to drivers.
#[derive(Clone, Copy, Debug)]
pub struct AssignmentConfig {
    /// How long the webhook waits before it answers PENDING.
    pub wait: Duration,
    /// How far from the pickup a driver is looked for.
    pub search_max_radius_m: f64,
    /// How often waiting orders are looked at again.
    pub pending_sweep: Duration,
    /// The H3 resolution of regions, 0 to 10.
    pub region_resolution: Resolution,
}

/// Stopping.
#[derive(Clone, Copy, Debug)]
pub struct ShutdownConfig {
    /// How long work is still taken after the signal.
    pub delay: Duration,
    /// How long the rest may take after that.
    pub grace: Duration,
}

/// Logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines are written, in the words of `RUST_LOG`; known to be valid.
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Pretty,
    /// For programs: one JSON object a line.
    Json,
}
