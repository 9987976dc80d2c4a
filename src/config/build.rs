//! Builds a [`Config`] from the sources: parses every value, then checks the values that depend on each other.
//!
//! Invariants: reading continues after a problem, so that all problems are reported at once. A `None` here means that a
//! problem was recorded.

mod heartbeats;

use std::net::SocketAddr;
use std::time::Duration;

use h3o::Resolution;
use ipnet::IpNet;
use rand::RngExt;

use super::errors::ConfigErrors;
use super::parse::{self, Parsed};
use super::secret::{Secret, SecretUrl};
use super::settings::{Setting, Shown};
use super::sources::{Origin, Sources};
use super::types::*;
use crate::domain::network::is_permitted;

impl Config {
    /// Loads all settings of `serve`. Returns every problem at once.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(sources);
        let config = reader.config();
        reader.finish(config)
    }
}

impl MaintenanceConfig {
    /// Loads the settings of `migrate`, `api-key` and `events`. Other settings may be absent or invalid.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(sources);
        let (database, log) = (reader.database(), reader.log());
        let config = database.zip(log).map(|(database, log)| Self { database, log });
        reader.finish(config)
    }
}

impl DoctorConfig {
    /// Loads the settings of `doctor`. Other settings may be absent or invalid.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(sources);
        let (database, redis, log) = (reader.database(), reader.redis(), reader.log());
        let config = database.zip(redis).zip(log).map(|((database, redis), log)| Self { database, redis, log });
        reader.finish(config)
    }
}

/// Reads values and collects problems.
struct Reader<'a> {
    sources: &'a Sources,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(sources: &'a Sources) -> Self {
        Self { sources, problems: sources.problems().to_vec() }
    }

    fn finish<T>(self, value: Option<T>) -> Result<T, ConfigErrors> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(ConfigErrors::new(self.problems)),
        }
    }

    fn problem(&mut self, sentence: impl Into<String>) {
        self.problems.push(sentence.into());
    }

    /// Reads and parses a value. `Some(None)` means not set and without a default. `None` means invalid, and a problem is
    /// recorded.
    fn optional<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Parsed<T>) -> Option<Option<T>> {
        let Some(setting) = Setting::named(name) else {
            self.problem(format!("{name} is not a setting"));
            return None;
        };
        let Some((value, origin)) = self.sources.value(setting) else { return Some(None) };
        match parse(value) {
            Ok(parsed) => Some(Some(parsed)),
            Err(must) => {
                self.problem(sentence(setting, origin, value, &must));
                None
            }
        }
    }

    /// Reads and parses a value that must be set. A missing value is a problem.
    fn required<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Parsed<T>) -> Option<T> {
        let value = self.optional(name, parse)?;
        if value.is_none() {
            let flag = name.to_ascii_lowercase().replace('_', "-");
            self.problem(format!("{name} is not set: give it in the environment, as --{flag}, or in the file"));
        }
        value
    }

    fn list<T>(&mut self, name: &str, parse: impl Fn(&str) -> Parsed<T>) -> Option<Vec<T>> {
        Some(self.optional(name, |text| parse::list(text, parse))?.unwrap_or_default())
    }

    fn millis(&mut self, name: &str, least: u64, most: u64) -> Option<Duration> {
        self.required(name, |text| parse::number(text, least..=most)).map(Duration::from_millis)
    }

    fn count(&mut self, name: &str, least: u32, most: u32) -> Option<u32> {
        let number = self.required(name, |text| parse::number(text, least.into()..=most.into()))?;
        u32::try_from(number).ok()
    }

    fn config(&mut self) -> Option<Config> {
        let database = self.database();
        let migrate_on_start = self.required("MIGRATE_ON_START", parse::boolean);
        let redis = self.redis();
        let addresses = self.addresses();
        let given_public_url = self.optional("PUBLIC_URL", parse::public_url);
        let allowed_origins = self.list("ALLOWED_ORIGINS", parse::origin);
        let trusted_proxies = self.list("TRUSTED_PROXIES", parse::network);
        let node_id = self.optional("NODE_ID", parse::name);
        let webhook = self.webhook();
        let events = self.events();
        let shop_secrets_keys = self.list("SHOP_SECRETS_KEY", parse::secrets_key);
        let limits = self.limits();
        let heartbeat = self.heartbeat();
        let assignment = self.assignment();
        let shutdown = self.shutdown();
        let log = self.log();
        let (listen_addr, metrics_addr) = addresses?;
        Some(Config {
            database: database?,
            redis: redis?,
            listen_addr,
            metrics_addr,
            given_public_url: given_public_url?,
            allowed_origins: allowed_origins?,
            trusted_proxies: trusted_proxies?,
            node_id: node_id?.unwrap_or_else(made_node_id),
            webhook: webhook?,
            events: events?,
            shop_secrets_keys: shop_secrets_keys?,
            limits: limits?,
            heartbeat: heartbeat?,
            assignment: assignment?,
            shutdown: shutdown?,
            log: log?,
            migrate_on_start: migrate_on_start?,
        })
    }

    fn database(&mut self) -> Option<DatabaseConfig> {
        let url = self.required("DATABASE_URL", parse::database_url);
        let max_connections = self.count("DATABASE_MAX_CONNECTIONS", 2, 1000);
        let prepared_statements = self.required("DATABASE_PREPARED_STATEMENTS", parse::boolean);
        let prepared_statements = prepared_statements?;
        Some(DatabaseConfig { url: url?, max_connections: max_connections?, prepared_statements })
    }

    fn redis(&mut self) -> Option<RedisConfig> {
        let url = self.required("REDIS_URL", parse::redis_url);
        let cluster = self.required("REDIS_CLUSTER", |text| match text {
            "auto" => Ok(RedisCluster::Auto),
            "off" => Ok(RedisCluster::Off),
            "on" => Err("must be auto or off: a Redis Cluster is not supported yet".to_owned()),
            _ => Err("must be auto or off".to_owned()),
        });
        let key_prefix = self.optional("REDIS_KEY_PREFIX", parse::name);
        let compare_every = self.millis("REDIS_COMPARE_EVERY_MS", 1000, 86_400_000);
        let key_prefix = key_prefix?.unwrap_or_default();
        Some(RedisConfig { url: url?, cluster: cluster?, key_prefix, compare_every: compare_every? })
    }

    /// The addresses of the two listeners, which must not use the same port.
    fn addresses(&mut self) -> Option<(SocketAddr, SocketAddr)> {
        let listen = self.required("LISTEN_ADDR", parse::socket_address);
        let metrics = self.required("METRICS_ADDR", parse::socket_address);
        let (listen, metrics) = listen.zip(metrics)?;
        let same_ip = listen.ip() == metrics.ip() || listen.ip().is_unspecified() || metrics.ip().is_unspecified();
        if same_ip && listen.port() == metrics.port() && listen.port() != 0 {
            let port = listen.port();
            self.problem(format!("LISTEN_ADDR and METRICS_ADDR both want port {port}: give METRICS_ADDR another port"));
            return None;
        }
        Some((listen, metrics))
    }

    fn webhook(&mut self) -> Option<WebhookConfig> {
        let secrets = self.list("VENDURE_WEBHOOK_SECRET", parse::signing_secret);
        let shared = self.optional("VENDURE_WEBHOOK_SHARED_SECRET", parse::shared_secret);
        let webhook = WebhookConfig { secrets: secrets?, shared: shared? };
        if webhook.secrets.is_empty() && webhook.shared.is_none() {
            self.problem(
                "no webhook secret is set, so nobody could post an order: set VENDURE_WEBHOOK_SECRET (whsec_…, signed \
                 orders) or VENDURE_WEBHOOK_SHARED_SECRET (the plain header X-Webhook-Secret)",
            );
            return None;
        }
        Some(webhook)
    }

    fn events(&mut self) -> Option<EventsConfig> {
        let url = self.optional("VENDURE_EVENTS_URL", |text| super::parse_events_url(text).map(SecretUrl::new));
        let secrets = self.list("VENDURE_EVENTS_SECRET", parse::signing_secret);
        let shared = self.optional("VENDURE_EVENTS_SHARED_SECRET", parse::shared_secret);
        let allowed_networks = self.list("EVENTS_ALLOWED_NETWORKS", parse::network);
        let retry_schedule = self.required("EVENTS_RETRY_SCHEDULE", parse::retry_schedule);
        if let Some(Some(url)) = &url {
            if let (Some(secrets), Some(shared)) = (&secrets, &shared) {
                self.events_secret(secrets, shared.as_ref());
            }
            if let Some(allowed) = &allowed_networks {
                self.events_address(url, allowed);
            }
        }
        Some(EventsConfig {
            url: url?,
            secrets: secrets?,
            shared: shared?,
            allowed_networks: allowed_networks?,
            retry_schedule: retry_schedule?,
        })
    }

    /// A receiver must be able to verify that an event comes from this service.
    fn events_secret(&mut self, secrets: &[Secret<String>], shared: Option<&Secret<String>>) {
        if secrets.is_empty() && shared.is_none() {
            self.problem(
                "VENDURE_EVENTS_URL is set without a secret, so the shop could not tell our events from forged ones: set \
                 VENDURE_EVENTS_SECRET (whsec_…) or VENDURE_EVENTS_SHARED_SECRET",
            );
        }
    }

    /// A literal address inside the operator's network must be allowed. A name is checked when it is resolved.
    fn events_address(&mut self, url: &SecretUrl, allowed: &[IpNet]) {
        if let Some(ip) = parse::literal_address(url.expose()).filter(|ip| !is_permitted(*ip, allowed)) {
            self.problem(format!(
                "VENDURE_EVENTS_URL names {ip}, which is not an address of the public internet: add its network to \
                 EVENTS_ALLOWED_NETWORKS if events may go there"
            ));
        }
    }

    fn limits(&mut self) -> Option<LimitsConfig> {
        let orders_per_second = self.count("ORDERS_PER_SECOND", 0, 1_000_000);
        let frames_per_second = self.count("FRAMES_PER_SECOND", 0, 1_000_000);
        let connections_per_address = self.count("CONNECTIONS_PER_ADDRESS", 0, 10_000_000);
        let sessions_per_minute = self.count("SESSIONS_PER_MINUTE", 0, 1_000_000);
        let auth_failures_per_minute = self.count("AUTH_FAILURES_PER_MINUTE", 0, 1_000_000);
        Some(LimitsConfig {
            orders_per_second: orders_per_second?,
            frames_per_second: frames_per_second?,
            connections_per_address: connections_per_address?,
            sessions_per_minute: sessions_per_minute?,
            auth_failures_per_minute: auth_failures_per_minute?,
        })
    }

    fn assignment(&mut self) -> Option<AssignmentConfig> {
        let wait = self.millis("ASSIGNMENT_WAIT_MS", 0, 30_000);
        let radius = self.required("SEARCH_MAX_RADIUS_M", |text| parse::decimal(text, 100.0..=500_000.0));
        let pending_sweep = self.millis("PENDING_SWEEP_MS", 50, 600_000);
        let resolution = self.required("REGION_RESOLUTION", |text| {
            let number = parse::number(text, 0..=10)?;
            let resolution = u8::try_from(number).ok().and_then(|number| Resolution::try_from(number).ok());
            resolution.ok_or_else(|| "must be a whole number from 0 to 10".to_owned())
        });
        Some(AssignmentConfig {
            wait: wait?,
            search_max_radius_m: radius?,
            pending_sweep: pending_sweep?,
            region_resolution: resolution?,
        })
    }

    fn shutdown(&mut self) -> Option<ShutdownConfig> {
        let delay = self.millis("SHUTDOWN_DELAY_MS", 0, 300_000);
        let grace = self.millis("SHUTDOWN_GRACE_MS", 100, 600_000);
        Some(ShutdownConfig { delay: delay?, grace: grace? })
    }

    fn log(&mut self) -> Option<LogConfig> {
        let format = self.required("LOG_FORMAT", |text| match text {
            "auto" => Ok(LogFormat::Auto),
            "pretty" => Ok(LogFormat::Pretty),
            "json" => Ok(LogFormat::Json),
            _ => Err("must be auto, pretty or json".to_owned()),
        });
        let filter = self.required("RUST_LOG", parse::log_filter);
        Some(LogConfig { format: format?, filter: filter? })
    }
}

/// The sentence of a problem: `HEARTBEAT_TTL_MS (environment) must be …, not "abc"`. It repeats only a value that may be shown.
fn sentence(setting: &Setting, origin: Origin, value: &str, must: &str) -> String {
    let mut sentence = format!("{setting} ({origin}) {must}");
    if setting.shown == Shown::Plain {
        let shown: String = value.chars().take(80).collect();
        sentence.push_str(&format!(", not {shown:?}"));
    }
    sentence
}

/// A name for this process: the host name and a random part, because two processes may run on one host.
fn made_node_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host: String = host
        .unwrap_or_default()
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(48)
        .collect();
    let host = if host.is_empty() { "node" } else { &host };
    format!("{host}-{:08x}", rand::rng().random::<u32>())
}
