//! `driver-tracker dev`: runs the whole system on this machine: private servers, the service, a receiving shop and a
//! simulated fleet.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::demand::{self, CENTER, kept_free};
use super::fleet::{self, FleetError};
use super::introduction;
use super::seed::{self, SeedError};
use super::servers::{PrivatePostgres, PrivateRedis, ServerError, next_free_port};
use super::shop::{ReceivingShop, ShopError};
use super::simulate::{self, Progress, SimulateError, Simulation};
use super::summary::Summary;
use super::workspace::{Running, SavedState, Workspace, WorkspaceError};
use crate::app::{Service, StartError, background_runtime};
use crate::cli::DevArgs;
use crate::config::{Config, ConfigErrors, Origin, Sources};
use crate::domain::position::Position;
use crate::store::{StoreError, schema};
use crate::telemetry::{self, LogOutput, TelemetryError};

/// The database inside the private PostgreSQL.
const DATABASE: &str = "driver_tracker";
/// The first ports to try: for the API, and for the metrics.
const FIRST_PORTS: (u16, u16) = (8080, 9464);
/// The addresses are printed once enough drivers are available, or after this time at the latest. "Enough" is the number
/// that is kept free for the reader's orders.
const FLEET_UP_WITHIN: Duration = Duration::from_secs(15);

/// Why `dev` failed.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The folder of `dev` cannot be used.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// A private server failed.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Logs or metrics cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The service did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The receiving shop did not start.
    #[error(transparent)]
    Shop(#[from] ShopError),
    /// The API key or the drivers could not be created.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The drivers of the load tests could not be created.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The last positions of the simulated drivers could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The simulated fleet failed.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    /// A task of this process ended early.
    #[error("a task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The operating system returned an error.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl DevError {
    /// Returns 2 for an invalid configuration and 1 for an error that a retry may avoid.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Start(error) => error.exit_code(),
            _ => 1,
        }
    }
}

/// The servers that this run started. They stop when this value is dropped.
struct Servers {
    _postgres: Option<PrivatePostgres>,
    _redis: Option<PrivateRedis>,
    database_url: String,
    redis_url: String,
}

/// Starts everything and shows live figures until Ctrl-C. A second signal exits at once with code 130.
pub async fn run(args: DevArgs) -> Result<(), DevError> {
    let (stop, mut stopped) = watch::channel(false);
    tokio::spawn(async move {
        wait_for_signal().await;
        stop.send_replace(true);
        wait_for_signal().await;
        eprintln!("a second signal ended the process at once");
        std::process::exit(130);
    });
    let workspace = Workspace::open(&args.dir)?;
    let (drivers, dir) = (args.drivers, args.dir.clone());
    let up = tokio::select! {
        up = start(&workspace, args) => up?,
        // Before startup completes there is nothing to drain. The private servers stop when their handles are dropped.
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
    };
    let ready = || {
        workspace.announce(&up.running)?;
        print!("{}", introduction::text(&up.running, &dir, drivers));
        Ok(())
    };
    let outcome = watch_until_stopped(&up, drivers, stopped, ready).await;
    println!("stopping …");
    workspace.remove_running();
    up.service.stop().await;
    up.background.shutdown_background();
    outcome
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Everything that this process runs.
struct Started {
    service: Service,
    shop: ReceivingShop,
    state: SavedState,
    running: Running,
    background: Runtime,
    /// Dropped last, because the service uses the servers until it has stopped.
    _servers: Servers,
}

async fn start(workspace: &Workspace, args: DevArgs) -> Result<Started, DevError> {
    let mut state = workspace.load_state()?;
    seed::fill_secrets(&mut state);
    println!("driver-tracker dev: data, keys and log are in {}", workspace.path("").display());
    let servers = start_servers(workspace, &mut state, &args.sources).await?;
    schema::migrate(&servers.database_url).await.map_err(StartError::Migrate)?;
    let shop = ReceivingShop::start(&state.events_secret).await?;
    let listen = choose_address(args.listen, &args.sources, &mut state)?;
    let config = configure(args.sources, &state, &servers, &shop.url(), listen)?;
    telemetry::init_logging(&config.log, LogOutput::File(workspace.log_file()?))?;
    let metrics = telemetry::init_metrics()?;
    let background = background_runtime()?;
    let service = Service::start(config, metrics, background.handle().clone()).await?;
    state.http_port = Some(service.http_addr.port());
    state.metrics_port = Some(service.metrics_addr.port());
    seed::fill(&mut state, &service.database, args.drivers as usize).await?;
    workspace.save_state(&state)?;
    if args.prepare > 0 {
        fleet::prepare(&workspace.path("fleet.json"), &service.database, args.prepare as usize).await?;
    }
    let running = describe(&service, &state, &servers, shop.url());
    // Leftover simulated orders would occupy the drivers of this run. Orders of other senders are not touched.
    match simulate::cancel_leftovers(&running.http_url, &state.admin_key).await {
        Ok(0) => {}
        Ok(count) => println!("cancelled {count} orders that an earlier simulation left open"),
        Err(error) => println!("orders that an earlier simulation left open could not be cancelled: {error}"),
    }
    Ok(Started { service, shop, state, running, background, _servers: servers })
}

async fn start_servers(workspace: &Workspace, state: &mut SavedState, sources: &Sources) -> Result<Servers, DevError> {
    let given = |name: &str| sources.given(name).map(str::to_owned);
    let (database_url, redis_url) = (given("DATABASE_URL"), given("REDIS_URL"));
    let (postgres_dir, redis_dir) = (workspace.path("postgres"), workspace.path("redis"));
    let (postgres_port, redis_port) = (state.postgres_port, state.redis_port);
    let (want_postgres, want_redis) = (database_url.is_none(), redis_url.is_none());
    if want_postgres || want_redis {
        println!("starting private servers …");
    }
    let (postgres, redis) = tokio::task::spawn_blocking(move || {
        let postgres = want_postgres
            .then(|| {
                let server = PrivatePostgres::start(&postgres_dir, postgres_port)?;
                server.create_database(DATABASE)?;
                Ok::<_, ServerError>(server)
            })
            .transpose()?;
        let redis = want_redis.then(|| PrivateRedis::start(&redis_dir, redis_port)).transpose()?;
        Ok::<_, ServerError>((postgres, redis))
    })
    .await??;
    state.postgres_port = postgres.as_ref().map(PrivatePostgres::port).or(state.postgres_port);
    state.redis_port = redis.as_ref().map(PrivateRedis::port).or(state.redis_port);
    let private_database = postgres.as_ref().map(|server| server.url(DATABASE));
    let private_redis = redis.as_ref().map(PrivateRedis::url);
    Ok(Servers {
        database_url: database_url.or(private_database).unwrap_or_default(),
        redis_url: redis_url.or(private_redis).unwrap_or_default(),
        _postgres: postgres,
        _redis: redis,
    })
}

/// Chooses the listen address and the metrics address. `requested` wins, then `LISTEN_ADDR`, then the port of the last run
/// (8080 on the first run) or the next free port.
fn choose_address(
    requested: Option<SocketAddr>,
    sources: &Sources,
    state: &mut SavedState,
) -> Result<(Option<String>, String), DevError> {
    let metrics = next_free_port(state.metrics_port.unwrap_or(FIRST_PORTS.1))?;
    let metrics = format!("127.0.0.1:{metrics}");
    if let Some(requested) = requested {
        return Ok((Some(requested.to_string()), metrics));
    }
    if sources.given("LISTEN_ADDR").is_some() {
        return Ok((None, metrics));
    }
    let port = next_free_port(state.http_port.unwrap_or(FIRST_PORTS.0))?;
    Ok((Some(format!("127.0.0.1:{port}")), metrics))
}

/// Loads the configuration. The presets of `dev` have the lowest precedence: file, environment and flags override them.
fn configure(
    mut sources: Sources,
    state: &SavedState,
    servers: &Servers,
    shop_url: &str,
    (listen, metrics): (Option<String>, String),
) -> Result<Config, DevError> {
    let mut preset = |name: &'static str, value: &str| sources.set(Origin::Preset, name, value);
    preset("DATABASE_URL", &servers.database_url);
    preset("REDIS_URL", &servers.redis_url);
    preset("VENDURE_WEBHOOK_SECRET", &state.webhook_secret);
    preset("VENDURE_WEBHOOK_SHARED_SECRET", &state.webhook_shared_secret);
    preset("VENDURE_EVENTS_URL", shop_url);
    preset("VENDURE_EVENTS_SECRET", &state.events_secret);
    preset("SHOP_SECRETS_KEY", &state.shop_secrets_key);
    preset("EVENTS_ALLOWED_NETWORKS", "127.0.0.0/8");
    preset("METRICS_ADDR", &metrics);
    preset("HEARTBEAT_INTERVAL_MS", "2000");
    preset("DATABASE_PREPARED_STATEMENTS", "true");
    preset("SHUTDOWN_DELAY_MS", "0");
    preset("SHUTDOWN_GRACE_MS", "4000");
    if let Some(listen) = listen {
        sources.set(Origin::Flag, "LISTEN_ADDR", &listen);
    }
    Ok(Config::load(&sources)?)
}

fn describe(service: &Service, state: &SavedState, servers: &Servers, shop_url: String) -> Running {
    let config = &service.config;
    let shared = config.webhook.shared.as_ref().map(|s| s.expose().clone()).unwrap_or_default();
    let signing = config.webhook.secrets.first().map(|s| s.expose().clone()).unwrap_or_default();
    Running {
        http_url: config.public_url(service.http_addr).to_string().trim_end_matches('/').to_owned(),
        metrics_url: format!("http://{}/metrics", service.metrics_addr),
        database_url: servers.database_url.clone(),
        redis_url: servers.redis_url.clone(),
        admin_key: state.admin_key.clone(),
        webhook_secret: signing,
        webhook_shared_secret: shared,
        events_secret: state.events_secret.clone(),
        shop_url,
        driver: state.driver.clone().unwrap_or_default(),
        pid: std::process::id(),
    }
}

/// Shows live figures until Ctrl-C. Calls `ready` first, once the fleet is up.
async fn watch_until_stopped(
    up: &Started,
    drivers: u32,
    mut stopped: watch::Receiver<bool>,
    ready: impl FnOnce() -> Result<(), DevError>,
) -> Result<(), DevError> {
    let Started { service, shop, state, running, .. } = up;
    let mut summary = Summary::new(std::io::stdout().is_terminal());
    if drivers == 0 {
        ready()?;
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            summary.show(service, shop, None).await;
        }
    }
    println!("connecting {drivers} simulated drivers …");
    let center = Position::new(CENTER.0, CENTER.1).map_err(|error| std::io::Error::other(error.to_string()))?;
    let fleet = state.fleet.iter().take(drivers as usize).cloned().collect::<Vec<_>>();
    let fleet = demand::fleet(&service.database, &fleet, center).await?;
    let options = demand::options(running, fleet, center);
    let (progress, mut seen) = watch::channel(Progress::default());
    let simulation = Simulation::new(options)?.run(stopped, move |now| {
        progress.send_replace(now.clone());
    });
    let watching = async {
        let is_up = seen.wait_for(|now| now.drivers_free >= kept_free(drivers) as usize);
        let _ = tokio::time::timeout(FLEET_UP_WITHIN, is_up).await;
        ready()?;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = seen.borrow_and_update().clone();
            summary.show(service, shop, Some((&now, kept_free(drivers)))).await;
        }
    };
    tokio::select! {
        report = simulation => println!("\n{}", report?),
        outcome = watching => return outcome,
    }
    Ok(())
}
