//! The service, put together: PostgreSQL, Redis, actors, listeners; started, run, and drained.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Arbiter, ArbiterHandle};
use actix_server::ServerHandle;
use tokio::runtime::{Handle, Runtime};

use crate::assignment::{AssignmentServices, CandidateSource, CoordinatorRegistry};
use crate::background::{self, BackgroundTasks, TaskServices};
use crate::config::{Config, RedisCluster};
use crate::dispatch::DispatchSettings;
use crate::domain::ids::ShopName;
use crate::effects::{
    AssignmentQueue, AssignmentWaiters, EffectsApplier, OutboxWakeUp, SessionNotifications, StaleEpochs, UseCases,
};
use crate::http::ApiServices;
use crate::ingest::{PresenceQueue, PresenceWriter, PresenceWriterServices, TrackQueue, TrackWriter};
use crate::listeners;
use crate::outbox::{OutboxRelay, Poster, RelayServices};
use crate::presence::{Presence, PresenceError, PresenceSettings};
use crate::process::{Lifecycle, NodeInfo, Phase, RestartIfDead, Supervised};
use crate::sessions::{CommandDispatcher, FrameHandler, SessionDirectory, SessionServices, send_away};
use crate::shops::ShopDirectory;
use crate::store::schema::{self, MigrationError, SchemaState};
use crate::store::{Database, StoreError, shops};
use crate::telemetry::Metrics;
use crate::webhooks::client::{ClientError, EventsClient, EventsClientSettings};
use crate::webhooks::network::check_url_resolving;
use crate::webhooks::retry::RetrySchedule;
use crate::webhooks::signature::SecretError;

/// How long PostgreSQL is waited for at start.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries of it.
const DATABASE_PAUSE: Duration = Duration::from_millis(500);
/// How long background tasks may take to end their present run.
const TASKS_STOP_WITHIN: Duration = Duration::from_secs(5);
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
    /// Redis is a cluster.
    #[error("REDIS_URL names a node of a Redis Cluster, which is not supported yet: name a single server")]
    RedisCluster,
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
    /// 2 when a retry cannot succeed without a change, 1 when it may.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::SchemaBehind | Self::SchemaTooNew | Self::Presence(_) | Self::Secret(_) | Self::RedisCluster => 2,
            _ => 1,
        }
    }
}

/// A runtime of its own for everything that outlives a request: connections to PostgreSQL and Redis belong to it, so that
/// no worker's end takes them along.
pub fn background_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("background").enable_all().build()
}

/// The handles: made first, before any actor or task runs, so that none is missing when somebody uses it.
struct HandlesOfNode {
    config: Arc<Config>,
    database: Database,
    presence: Presence,
    lifecycle: Lifecycle,
    node: NodeInfo,
    shops: Arc<ShopDirectory>,
    candidates: CandidateSource,
    use_cases: UseCases,
    effects: EffectsApplier,
    directory: Arc<SessionDirectory>,
    heartbeats: PresenceQueue,
    tracks: TrackWriter,
    sessions: Arc<SessionServices>,
}

/// What runs: started second, with the handles that each part uses.
struct RunningParts {
    presence_writer: Arc<Supervised<PresenceWriter>>,
    tasks: BackgroundTasks,
}

/// A running service.
pub struct Service {
    /// Its configuration.
    pub config: Arc<Config>,
    /// PostgreSQL.
    pub database: Database,
    /// Redis.
    pub presence: Presence,
    /// The sessions on this node.
    pub sessions: Arc<SessionDirectory>,
    /// Where the API is.
    pub http_addr: SocketAddr,
    /// Where the metrics are.
    pub metrics_addr: SocketAddr,
    lifecycle: Lifecycle,
    tracks: TrackWriter,
    parts: RunningParts,
    servers: Vec<ServerHandle>,
    running: Vec<tokio::task::JoinHandle<std::io::Result<()>>>,
    arbiter: Arbiter,
}

impl Service {
    /// Starts everything; inside an actix system. `background` must outlive the service.
    pub async fn start(config: Config, metrics: Metrics, background: Handle) -> Result<Self, StartError> {
        // Both listeners are opened first: a port that is in use is reported before anything else is touched.
        let http_listener = listen(config.listen_addr, "the API")?;
        let metrics_listener = listen(config.metrics_addr, "the metrics")?;
        let (http_addr, metrics_addr) = (http_listener.local_addr()?, metrics_listener.local_addr()?);
        let database_url = config.database.url.expose();
        let settings = &config.database;
        let database =
            Database::new(database_url, settings.max_connections, settings.prepared_statements, background.clone())?;
        prepare_database(&config, &database).await?;
        database.watch();
        let presence = Presence::new(presence_settings(&config, background.clone()))?;
        if config.redis.cluster == RedisCluster::Auto && presence.is_cluster().await {
            return Err(StartError::RedisCluster);
        }
        let poster = poster(&config)?;
        warn_of_internal_destination(&config);
        let node = NodeInfo { node_id: config.node_id.clone(), http_addr, metrics_addr };
        let handles = make_handles(Arc::new(config), database, presence, node)?;
        handles.shops.refresh(&handles.database).await?;
        let arbiter = Arbiter::new();
        let parts = start_parts(&handles, poster, &arbiter.handle(), background);
        let api = listeners::serve_api(api_services(&handles), handles.config.shutdown.grace, http_listener)?;
        let exposition = listeners::serve_metrics(metrics, metrics_listener)?;
        let servers = vec![api.handle(), exposition.handle()];
        let running = vec![tokio::task::spawn_local(api), tokio::task::spawn_local(exposition)];
        handles.lifecycle.enter(Phase::Serving);
        tracing::info!(
            http.addr = %http_addr, metrics.addr = %metrics_addr, node.id = %handles.node.node_id,
            version = env!("CARGO_PKG_VERSION"), "listening"
        );
        let HandlesOfNode { config, database, presence, lifecycle, directory, tracks, .. } = handles;
        let sessions = directory;
        Ok(Self {
            config,
            database,
            presence,
            sessions,
            http_addr,
            metrics_addr,
            lifecycle,
            tracks,
            parts,
            servers,
            running,
            arbiter,
        })
    }

    /// Drains and stops: not ready, then nothing new, then `reconnect` to the sockets, then the work under way.
    pub async fn stop(self) {
        let shutdown = self.config.shutdown;
        self.lifecycle.enter(Phase::Leaving);
        tracing::info!(
            delay_ms = shutdown.delay.as_millis() as u64,
            "leaving: not ready, still accepting requests and sockets"
        );
        tokio::time::sleep(shutdown.delay).await;
        self.lifecycle.enter(Phase::Draining);
        let deadline = Instant::now() + shutdown.grace;
        send_away(&self.sessions, shutdown.grace / 2, deadline).await;
        let limit = remaining(deadline).min(Duration::from_secs(5));
        tokio::join!(PresenceWriter::flush(&self.parts.presence_writer, limit), self.tracks.flush(limit));
        self.lifecycle.enter(Phase::Stopping);
        self.parts.tasks.stop(remaining(deadline).min(TASKS_STOP_WITHIN)).await;
        // The servers end their connections gracefully; those that do not end within the grace are cut off.
        for server in &self.servers {
            drop(server.stop(true));
        }
        for mut task in self.running {
            if tokio::time::timeout(remaining(deadline), &mut task).await.is_err() {
                tracing::warn!("connections did not end within SHUTDOWN_GRACE_MS and are cut off");
                task.abort();
            }
        }
        self.database.close(remaining(deadline).max(Duration::from_millis(200))).await;
        self.arbiter.stop();
        tracing::info!("stopped");
    }
}

/// The first phase of the wiring.
fn make_handles(
    config: Arc<Config>,
    database: Database,
    presence: Presence,
    node: NodeInfo,
) -> Result<HandlesOfNode, StartError> {
    let shops = Arc::new(ShopDirectory::new(&config)?);
    let candidates = CandidateSource::new(&config, database.clone(), presence.clone());
    let effects = EffectsApplier {
        database: database.clone(),
        presence: presence.clone(),
        waiters: AssignmentWaiters::default(),
        assignment: AssignmentQueue::default(),
        outbox: OutboxWakeUp::default(),
        sessions: SessionNotifications::default(),
        stale_epochs: StaleEpochs::default(),
        resolution: config.assignment.region_resolution,
        max_radius_m: candidates.max_radius_m(),
    };
    let use_cases = UseCases::new(database.clone(), dispatch_settings(&config), effects.clone());
    let (directory, heartbeats) = (Arc::new(SessionDirectory::default()), PresenceQueue::default());
    let tracks = TrackWriter { database: database.clone(), queue: TrackQueue::default() };
    let frames = FrameHandler::new(
        use_cases.clone(),
        directory.clone(),
        heartbeats.clone(),
        tracks.queue.clone(),
        config.heartbeat,
    );
    let sessions = Arc::new(SessionServices {
        frames,
        directory: directory.clone(),
        notifications: effects.sessions.clone(),
        node_id: node.node_id.clone(),
        frames_per_second: config.limits.frames_per_second,
    });
    let lifecycle = Lifecycle::default();
    Ok(HandlesOfNode {
        config,
        database,
        presence,
        lifecycle,
        node,
        shops,
        candidates,
        use_cases,
        effects,
        directory,
        heartbeats,
        tracks,
        sessions,
    })
}

/// The second phase: every actor and task, with the handles that it uses.
fn start_parts(handles: &HandlesOfNode, poster: Poster, arbiter: &ArbiterHandle, background: Handle) -> RunningParts {
    let HandlesOfNode { config, database, presence, use_cases, effects, .. } = handles;
    let coordinators = AssignmentServices {
        use_cases: use_cases.clone(),
        candidates: handles.candidates.clone(),
        waiters: effects.waiters.clone(),
        pending_sweep: config.assignment.pending_sweep,
    };
    let registry = CoordinatorRegistry::new(coordinators, arbiter.clone());
    background.spawn(registry.run(effects.assignment.clone()));
    let storage = PresenceWriterServices { effects: effects.clone(), position_flush: config.heartbeat.position_flush };
    let presence_writer = PresenceWriter::start(handles.heartbeats.clone(), storage, arbiter);
    let relay = RelayServices {
        database: database.clone(),
        shops: handles.shops.clone(),
        wake_up: effects.outbox.clone(),
        lifecycle: handles.lifecycle.clone(),
        owner: handles.node.node_id.clone(),
        first_delay_s: use_cases.settings().first_delay_s,
    };
    let relay = OutboxRelay::start(relay, poster, arbiter);
    let dispatcher = CommandDispatcher::start(
        database.clone(),
        presence.clone(),
        handles.directory.clone(),
        effects.sessions.clone(),
        arbiter,
    );
    let actors: Vec<Arc<dyn RestartIfDead>> = vec![presence_writer.clone(), relay, dispatcher];
    let tasks = TaskServices {
        use_cases: use_cases.clone(),
        presence: presence.clone(),
        assignment: effects.assignment.clone(),
        stale_epochs: effects.stale_epochs.clone(),
        shops: handles.shops.clone(),
        tracks: handles.tracks.clone(),
        actors,
    };
    let tasks = background::start(tasks, config, background);
    RunningParts { presence_writer, tasks }
}

fn api_services(handles: &HandlesOfNode) -> ApiServices {
    ApiServices {
        config: handles.config.clone(),
        database: handles.database.clone(),
        presence: handles.presence.clone(),
        use_cases: handles.use_cases.clone(),
        shops: handles.shops.clone(),
        candidates: handles.candidates.clone(),
        waiters: handles.effects.waiters.clone(),
        sessions: handles.sessions.clone(),
        lifecycle: handles.lifecycle.clone(),
        node: handles.node.clone(),
    }
}

/// What the configuration says about dispatching.
fn dispatch_settings(config: &Config) -> DispatchSettings {
    let heartbeat = &config.heartbeat;
    DispatchSettings {
        announces_configured_shop: config.events.url.is_some(),
        first_delay_s: config.events.retry_schedule.first().copied().unwrap_or_default().as_secs_f64(),
        resolution: config.assignment.region_resolution,
        // A heartbeat is in Redis at once, and may take a flush to reach PostgreSQL, where a claim checks it again.
        seen_within_s: (heartbeat.ttl + heartbeat.position_flush).as_secs_f64(),
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
    let mut is_logged = false;
    loop {
        match check_schema(config, database).await {
            Err(StartError::Store(error)) if error.is_unavailable() && began.elapsed() < DATABASE_PATIENCE => {
                if !std::mem::replace(&mut is_logged, true) {
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
        refuses_cluster: config.redis.cluster == RedisCluster::Auto,
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
