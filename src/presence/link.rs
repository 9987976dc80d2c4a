//! Holds the one connection to Redis, and runs every call over it.
//!
//! Invariants:
//! - The connection is made on demand.
//! - Every call has a timeout and passes the circuit breaker.
//! - A connection is driven by a task of the runtime that made it. Callers run on short-lived single-threaded runtimes.
//!   Every connection is therefore made on the handle that [`Link::new`] received, whose runtime outlives every caller.
//!
//! Must not: know what the commands mean.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, IntoConnectionInfo, Value};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::breaker::{Breaker, Permit};
use super::connection::Connection;
use super::error::{Outage, PresenceError, Severity};
use super::scripts;

/// The timeout of connecting, including TLS and authentication. Connecting continues after the call that started it timed out.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The interval between two log entries about refused commands. A refusal (Redis is full, a right is missing) repeats with
/// every call.
const REFUSAL_LOG_EVERY: Duration = Duration::from_secs(10);

/// The link to one Redis server.
pub(super) struct Link {
    client: redis::Client,
    runtime: Handle,
    call_timeout: Duration,
    breaker: Breaker,
    session: ArcSwapOption<Connection>,
    connecting: Arc<Mutex<()>>,
    refuses_cluster: bool,
    is_cluster: AtomicBool,
    warned_of_policy: AtomicBool,
    warned_of_refusal: std::sync::Mutex<Option<Instant>>,
}

impl Link {
    /// Checks the URL. Does not connect.
    pub(super) fn new(
        url: &str,
        call_timeout: Duration,
        breaker_open: Duration,
        refuses_cluster: bool,
        runtime: Handle,
    ) -> Result<Self, PresenceError> {
        let client = url
            .into_connection_info()
            .map(|info| info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
            .and_then(redis::Client::open)
            .map_err(PresenceError::InvalidUrl)?;
        Ok(Self {
            client,
            runtime,
            call_timeout,
            breaker: Breaker::new(breaker_open),
            session: ArcSwapOption::empty(),
            connecting: Arc::default(),
            refuses_cluster,
            is_cluster: AtomicBool::new(false),
            warned_of_policy: AtomicBool::new(false),
            warned_of_refusal: std::sync::Mutex::default(),
        })
    }

    /// Whether the server that was connected to last is a node of a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        self.is_cluster.load(Ordering::Relaxed)
    }

    /// The runtime that connections live on.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The client of the server, for connections of another kind (pub/sub).
    pub(super) fn client(&self) -> &redis::Client {
        &self.client
    }

    /// Runs the commands in one round trip. Returns the answers in the order of the commands.
    pub(super) async fn batch(
        self: &Arc<Self>,
        op: &'static str,
        commands: Vec<Cmd>,
    ) -> Result<Vec<Value>, PresenceError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        self.run(op, |session| async move { Ok(scripts::run(&session, commands).await?) }).await
    }

    /// Runs one call. The timeout covers the call as a whole. The call passes the breaker and is counted.
    pub(super) async fn run<T, F>(
        self: &Arc<Self>,
        op: &'static str,
        work: impl FnOnce(Arc<Connection>) -> F,
    ) -> Result<T, PresenceError>
    where
        F: Future<Output = Result<T, PresenceError>>,
    {
        let started = Instant::now();
        let permit = match self.breaker.admit(started) {
            Ok(permit) => permit,
            Err(why) => {
                count(op, Outage::BreakerOpen(String::new()).label());
                return Err(Outage::BreakerOpen(why).into());
            }
        };
        let mut used = None;
        let whole = async {
            let session = self.session().await?;
            used = Some(session.clone());
            work(session).await
        };
        let result =
            timeout(self.call_timeout, whole).await.unwrap_or_else(|_| Err(Outage::TimedOut(self.call_timeout).into()));
        metrics::histogram!("driver_tracker_redis_call_seconds", "op" => op).record(started.elapsed().as_secs_f64());
        self.record_result(op, permit, used.as_ref(), &result);
        result
    }

    fn record_result<T>(
        &self,
        op: &'static str,
        permit: Permit<'_>,
        used: Option<&Arc<Connection>>,
        result: &Result<T, PresenceError>,
    ) {
        let outage = match result {
            Err(PresenceError::Unavailable(outage)) => outage,
            Err(PresenceError::Cold | PresenceError::InvalidUrl(_)) => {
                count(op, "cold");
                return permit.succeed();
            }
            Ok(_) => {
                count(op, "ok");
                return permit.succeed();
            }
        };
        count(op, outage.label());
        match outage.severity() {
            Severity::Refusal => {
                self.warn_of_refusal(op, outage);
                permit.succeed();
            }
            Severity::Lost => {
                self.forget(used);
                permit.lose(Instant::now(), outage.to_string());
            }
            Severity::Out => {
                self.forget(used);
                permit.fail(Instant::now(), outage.to_string());
            }
        }
    }

    fn warn_of_refusal(&self, op: &'static str, outage: &Outage) {
        let mut warned = self.warned_of_refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|warned| warned.elapsed() > REFUSAL_LOG_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(redis.op = op, error = %outage, "Redis refused a command");
        }
    }

    /// Discards a connection that failed. A connection that replaced it meanwhile stays.
    fn forget(&self, used: Option<&Arc<Connection>>) {
        if let Some(used) = used {
            self.session.compare_and_swap(used, None);
        }
    }

    /// Returns the current connection, or makes a new one. Only one is made at a time. Connecting continues when the caller is
    /// cancelled.
    async fn session(self: &Arc<Self>) -> Result<Arc<Connection>, Outage> {
        if let Some(session) = self.session.load_full() {
            return Ok(session);
        }
        let turn = self.connecting.clone().lock_owned().await;
        if let Some(session) = self.session.load_full() {
            return Ok(session);
        }
        let link = self.clone();
        let connecting = self.runtime.spawn(async move {
            let _turn = turn;
            let session = timeout(CONNECT_TIMEOUT, link.connect())
                .await
                .unwrap_or(Err(Outage::TimedOut(CONNECT_TIMEOUT)))
                .map(Arc::new)?;
            link.session.store(Some(session.clone()));
            Ok(session)
        });
        connecting.await.unwrap_or(Err(Outage::Ended))
    }

    async fn connect(&self) -> Result<Connection, Outage> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(Outage::Connect)?;
        let (server, memory): (String, String) = redis::pipe()
            .cmd("INFO")
            .arg("server")
            .cmd("INFO")
            .arg("memory")
            .query_async(&mut connection)
            .await
            .map_err(Outage::Connect)?;
        let Some(run_id) = info_field(&server, "run_id").map(Arc::from) else {
            let error = (ErrorKind::UnexpectedReturnType, "INFO has no run_id, so that a restart would not be noticed");
            return Err(Outage::Connect(error.into()));
        };
        let is_cluster = info_field(&server, "redis_mode") == Some("cluster");
        self.is_cluster.store(is_cluster, Ordering::Relaxed);
        if is_cluster && self.refuses_cluster {
            let error =
                (ErrorKind::InvalidClientConfig, "the server is a node of a Redis Cluster, which is not supported yet");
            return Err(Outage::Connect(error.into()));
        }
        scripts::load(&mut connection).await.map_err(Outage::Connect)?;
        self.warn_of_eviction(info_field(&memory, "maxmemory_policy"));
        tracing::info!("connected to Redis");
        connection.set_response_timeout(self.call_timeout);
        Ok(Connection { connection, run_id })
    }

    /// Warns once when Redis may evict keys. An evicted key looks like a driver who is not online.
    fn warn_of_eviction(&self, policy: Option<&str>) {
        let Some(policy) = policy.filter(|policy| *policy != "noeviction") else { return };
        if !self.warned_of_policy.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                redis.maxmemory_policy = policy,
                "Redis may evict drivers silently: set maxmemory-policy noeviction"
            );
        }
    }
}

fn count(op: &'static str, outcome: &'static str) {
    metrics::counter!("driver_tracker_redis_calls_total", "op" => op, "outcome" => outcome).increment(1);
}

/// The value of one line `name:value` of an INFO answer.
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
