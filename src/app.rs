//! The service, put together: PostgreSQL, Redis, actors, listeners; started, run, and drained.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use actix::Arbiter;
use actix_server::ServerHandle;
use tokio::runtime::{Handle, Runtime};

use crate::actors::assignment_coordinator::Coordinators;
use crate::actors::command_courier::CourierHandle;
use crate::actors::node::{Handles, Node, Phase};
use crate::actors::outbox_relay::{Poster, RelayHandle};
use crate::actors::presence_writer::PresenceWriterHandle;
use crate::actors::reconciler::Reconciler;
use crate::actors::revive::Revived;
use crate::actors::session_directory::ToSession;
use crate::actors::shop_directory::ShopReader;
use crate::actors::silence_judge::SilenceJudge;
use crate::actors::track_days::TrackDays;
use crate::actors::track_writer::TrackWriterHandle;
use crate::actors::waiting_sweep::WaitingSweep;
use crate::config::Config;
use crate::domain::ids::ShopName;
use crate::http::Gate;
use crate::listeners;
use crate::presence::{Presence, PresenceError, PresenceSettings};
use crate::store::schema::{self, MigrationError, SchemaState};
use crate::store::{Database, StoreError, shops};
use crate::telemetry::Metrics;
use crate::vendure::client::{ClientError, EventsClient, EventsClientSettings};
use crate::vendure::network::check_url_resolving;
use crate::vendure::retry::RetrySchedule;
use crate::vendure::signature::SecretError;

/// How long PostgreSQL is waited for at start.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries of it.
const DATABASE_PAUSE: Duration = Duration::from_millis(500);
/// Between looks at actors that nobody sends messages to.
const KEEPERS_EVERY: Duration = Duration::from_secs(2);
/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// PostgreSQL.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Migrations are missing.
    #[error("the database's schema is behind this program: run `driver-tracker migrate`, or set MIGRATE_ON_START=true")]
    SchemaBehind,
    /// The schema needs a newer program.
    #[error("the database's schema needs a newer driver-tracker than this one: deploy that version")]
    SchemaTooNew,
    /// A migration failed.
    #[error(transparent)]
    Migrate(#[from] MigrationError),
    /// The address of Redis.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The client for events.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A listener.
    #[error("cannot listen on {0} ({1}): choose another LISTEN_ADDR or METRICS_ADDR, or stop what listens there: {2}")]
    Listen(SocketAddr, &'static str, std::io::Error),
    /// Anything else of the operating system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl StartError {
    /// 2 for what no other moment mends, 1 for what may be mended by it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::SchemaBehind | Self::SchemaTooNew | Self::Presence(_) | Self::Secret(_) => 2,
            _ => 1,
        }
    }
}

/// A runtime of its own for everything that outlives a request: connections to PostgreSQL and Redis belong to it, so that
/// no worker's end takes them along.
pub fn background_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("background").enable_all().build()
}

/// A running service.
pub struct Service {
    /// What its parts share.
    pub node: Node,
    /// Where the API is.
    pub http_addr: SocketAddr,
    /// Where the metrics are.
    pub metrics_addr: SocketAddr,
    servers: Vec<ServerHandle>,
    running: Vec<tokio::task::JoinHandle<std::io::Result<()>>>,
    arbiter: Arbiter,
}

impl Service {
    /// Starts everything; inside an actix system. `background` must outlive the service.
    pub async fn start(config: Config, metrics: Metrics, background: Handle) -> Result<Self, StartError> {
        // Both listeners are taken first: a port that is not free is told before anything else is touched.
        let http_listener = listen(config.listen_addr, "the API")?;
        let metrics_listener = listen(config.metrics_addr, "the metrics")?;
        let (http_addr, metrics_addr) = (http_listener.local_addr()?, metrics_listener.local_addr()?);
        let database_url = config.database.url.expose();
        let settings = &config.database;
        let database =
            Database::new(database_url, settings.max_connections, settings.prepared_statements, background.clone())?;
        prepare_database(&config, &database).await?;
        database.watch();
        let presence = Presence::new(presence_settings(&config, background))?;
        let poster = poster(&config)?;
        warn_of_internal_destination(&config);
        let node = Node::new(config, database, presence, (http_addr, metrics_addr))?;
        node.shops().refresh(node.database()).await?;
        let arbiter = Arbiter::new();
        start_actors(&node, poster, &arbiter);
        let api = listeners::serve_api(&node, Gate::new(&node), http_listener)?;
        let exposition = listeners::serve_metrics(metrics, metrics_listener)?;
        let servers = vec![api.handle(), exposition.handle()];
        let running = vec![tokio::task::spawn_local(api), tokio::task::spawn_local(exposition)];
        node.enter(Phase::Serving);
        tracing::info!(
            http.addr = %http_addr, metrics.addr = %metrics_addr, node.id = %node.config().node_id,
            version = env!("CARGO_PKG_VERSION"), "listening"
        );
        Ok(Self { node, http_addr, metrics_addr, servers, running, arbiter })
    }

    /// Drains and stops: not ready, then nothing new, then `reconnect` to the sockets, then whatever is in hand.
    pub async fn stop(self) {
        let node = self.node;
        let shutdown = node.config().shutdown;
        node.enter(Phase::Leaving);
        tracing::info!(delay_ms = shutdown.delay.as_millis() as u64, "leaving: not ready, still taking what comes");
        tokio::time::sleep(shutdown.delay).await;
        node.enter(Phase::Draining);
        let deadline = Instant::now() + shutdown.grace;
        send_away(&node, shutdown.grace / 2).await;
        if let Some(actors) = node.actors() {
            let limit = remaining(deadline).min(Duration::from_secs(5));
            tokio::join!(actors.writer.flush(limit), actors.tracks.flush(limit));
        }
        node.stop();
        // The servers end their connections gracefully; what does not end within the grace is cut off.
        for server in &self.servers {
            drop(server.stop(true));
        }
        for mut task in self.running {
            if tokio::time::timeout(remaining(deadline), &mut task).await.is_err() {
                tracing::warn!("connections did not end within SHUTDOWN_GRACE_MS and are cut off");
                task.abort();
            }
        }
        node.database().close(remaining(deadline).max(Duration::from_millis(200))).await;
        self.arbiter.stop();
        tracing::info!("stopped");
    }
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn listen(address: SocketAddr, what: &'static str) -> Result<TcpListener, StartError> {
    listeners::listen(address).map_err(|error| StartError::Listen(address, what, error))
}

/// Waits for PostgreSQL, migrates if asked to, and refuses a schema that does not fit.
async fn prepare_database(config: &Config, database: &Database) -> Result<(), StartError> {
    let began = Instant::now();
    let mut told = false;
    loop {
        match check_schema(config, database).await {
            Err(StartError::Store(error)) if error.is_unavailable() && began.elapsed() < DATABASE_PATIENCE => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error = %error, "waiting for PostgreSQL");
                }
                tokio::time::sleep(DATABASE_PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn check_schema(config: &Config, database: &Database) -> Result<(), StartError> {
    let read = || database.transact(|conn| Box::pin(async move { schema::state(conn).await }));
    let mut state = read().await?;
    if state == SchemaState::Behind && config.migrate_on_start {
        schema::migrate(config.database.url.expose()).await?;
        state = read().await?;
    }
    match state {
        SchemaState::Behind => Err(StartError::SchemaBehind),
        SchemaState::TooNew => Err(StartError::SchemaTooNew),
        SchemaState::Fits => Ok(database
            .transact(|conn| Box::pin(async move { shops::ensure(conn, &ShopName::vendure()).await }))
            .await?),
    }
}

fn presence_settings(config: &Config, runtime: Handle) -> PresenceSettings {
    PresenceSettings {
        key_prefix: config.redis.key_prefix.clone(),
        ttl: config.heartbeat.ttl,
        position_max_age: config.heartbeat.position_max_age,
        ..PresenceSettings::new(config.redis.url.expose().clone(), runtime)
    }
}

/// A name that leads into the operator's network fails each post; that is said at the start.
fn warn_of_internal_destination(config: &Config) {
    let Some(url) = config.events.url.as_ref().map(|url| url.expose().clone()) else { return };
    let allowed = config.events.allowed_networks.clone();
    tokio::spawn(async move {
        if let Err(refusal) = check_url_resolving(&url, &allowed).await {
            tracing::warn!(reason = %refusal, "VENDURE_EVENTS_URL cannot be posted to as it is");
        }
    });
}

/// How events are posted.
fn poster(config: &Config) -> Result<Poster, StartError> {
    let allowed_networks = config.events.allowed_networks.clone();
    let client = EventsClient::new(EventsClientSettings { allowed_networks, ..EventsClientSettings::default() })?;
    Ok(Poster { client, schedule: RetrySchedule::new(config.events.retry_schedule.clone()) })
}

fn start_actors(node: &Node, poster: Poster, arbiter: &Arbiter) {
    let handle = arbiter.handle();
    node.set_actors(Handles {
        coordinators: Coordinators::new(node.clone(), handle.clone()),
        writer: PresenceWriterHandle::start(node.clone(), &handle),
        tracks: TrackWriterHandle::start(node.clone(), &handle),
        relay: RelayHandle::start(node.clone(), poster, &handle),
        courier: CourierHandle::start(node.clone(), &handle),
    });
    let (sweep, reconciler, judge, days) = (node.clone(), node.clone(), node.clone(), node.clone());
    let sweep = Revived::start("waiting_sweep", &handle, 2, move || WaitingSweep::new(sweep.clone()));
    let reconciler = Revived::start("reconciler", &handle, 1, move || Reconciler::new(reconciler.clone()));
    let judge = Revived::start("silence_judge", &handle, 1, move || SilenceJudge::new(judge.clone()));
    let days = Revived::start("track_days", &handle, 1, move || TrackDays::new(days.clone()));
    let shops = node.clone();
    let shops = Revived::start("shop_reader", &handle, 1, move || ShopReader::new(shops.clone()));
    let mut stopping = node.stopping();
    let relay_of = node.clone();
    // Nobody sends these a message: somebody must see that they live.
    tokio::task::spawn_local(async move {
        while tokio::time::timeout(KEEPERS_EVERY, stopping.wait_for(|stopping| *stopping)).await.is_err() {
            sweep.addr();
            reconciler.addr();
            judge.addr();
            days.addr();
            shops.addr();
            if let Some(actors) = relay_of.actors() {
                actors.relay.wake();
                actors.tracks.look();
            }
        }
    });
}

/// Tells every socket to come back, spread over `spread`, and waits until they are gone.
async fn send_away(node: &Node, spread: Duration) {
    let began = Instant::now();
    let deadline = began + spread + Duration::from_millis(500);
    let mut told = HashSet::new();
    // Whoever was let in before the drain may open a session within it: such a one is told as soon as it is there.
    while Instant::now() < deadline {
        if node.sessions().is_empty() {
            return;
        }
        let fresh: Vec<_> =
            node.sessions().all().into_iter().filter(|session| told.insert(session.session_id)).collect();
        let left_ms = spread.saturating_sub(began.elapsed()).as_millis() as u64;
        let count = fresh.len() as u64;
        for (index, session) in fresh.into_iter().enumerate() {
            let close_in_ms = left_ms * index as u64 / count;
            // The fleet comes back as spread out as it was sent away.
            let after_ms = rand::random_range(0..=1000);
            session.mailbox.put(ToSession::Reconnect { after_ms, close_in_ms });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let left = node.sessions().len();
    tracing::warn!(sessions = left, "sockets that do not take their close are cut off");
}
