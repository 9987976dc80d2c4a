//! A fleet and a shop that do not exist: N drivers as real WebSocket clients, orders through the real signed webhook.
//!
//! A black box towards the service: it knows the contract and nothing else, and judges from outside whether orders are
//! given fast and to the nearest driver. Drivers that a run creates are taken out of service at its end.
//!
//! Time-lapse: with `speed` above 1 drivers move so many times as fast as they could, while `fixTime` stays the wall
//! clock's. From about 4 (roaming) or 5 (recorded) on they are faster than 200 km/h, and a service that refuses
//! impossible jumps refuses some of their fixes; the report counts those apart from errors.

mod agent;
mod api;
pub mod cli;
mod client;
mod geo;
mod judge;
mod ledger;
mod movement;
mod orders;
mod recorded;
mod report;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

pub use api::{ApiError, WebhookAuth};
pub use recorded::{FitOrders, RecordedOrder, Recording, RecordingError, RecordingOptions, Trace};
pub use report::{Latency, NearestCounts, Progress, Report};

use self::agent::Agent;
use self::api::Api;
use self::client::{Client, Clock};
use self::ledger::Ledger;
use self::movement::Mover;
use crate::domain::position::Position;

/// Drivers that one run can have.
pub const MAX_DRIVERS: usize = 100_000;
/// First connects are spread so that no more than these come in a second.
const CONNECTS_PER_SECOND: u32 = 200;
/// REST requests under way at once.
const REST_AT_ONCE: usize = 16;
/// Orders wait so long for the fleet, beyond the time that its connects are spread over.
const FLEET_READY_WITHIN: Duration = Duration::from_secs(10);
/// With every order posted, the run ends when nothing has happened to any of them for so long.
const QUIET: Duration = Duration::from_secs(60);
/// How long drivers have to leave at the end.
const LEAVE_WITHIN: Duration = Duration::from_secs(8);
/// How long taking created drivers out of service may take.
const TIDY_WITHIN: Duration = Duration::from_secs(10);

/// Why a run cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The address is not of the form `http://host:port`.
    #[error("the service's address must look like http://127.0.0.1:8080 (https is not supported here)")]
    BadUrl,
    /// The API key has characters that no key has.
    #[error("the API key has characters that no key has")]
    BadKey,
    /// The webhook secret cannot be read.
    #[error("the webhook secret must be whsec_ and base64, or for the plain header any printable text")]
    BadSecret,
    /// Drivers are to be created, and no key is there.
    #[error("creating drivers needs an API key with the scope admin")]
    NoKey,
    /// No drivers, or too many.
    #[error("a run needs 1 to {MAX_DRIVERS} drivers")]
    DriverCount,
    /// A speed that is not above 0.
    #[error("the speed must be above 0 and at most 10000")]
    Speed,
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built: {0}")]
    Client(#[source] reqwest::Error),
    /// A driver could not be created.
    #[error("the service did not create a driver: {0}")]
    Rest(#[source] ApiError),
}

/// Where the drivers come from.
pub enum DriverSource {
    /// So many are created over REST (with recorded movement at most one for each trace).
    Create(usize),
    /// These exist: (id, token).
    Existing(Vec<(String, String)>),
}

/// How drivers move.
pub enum Movement {
    /// Along random streets within a circle, at 5 to 14 m/s, and to the orders that they are given.
    Random {
        /// The middle.
        center: Position,
        /// How far from it.
        radius_km: f64,
    },
    /// Each along a recorded trace, whatever the orders are; drivers beyond the number of traces do not appear.
    Recorded(Vec<Trace>),
}

/// Where the orders come from.
pub enum OrderSource {
    /// Random orders within a circle, from when the fleet is there.
    Rate {
        /// On average; the gaps are random.
        per_minute: f64,
        /// No more than these.
        count: Option<u64>,
        /// The middle.
        center: Position,
        /// How far from it.
        radius_km: f64,
    },
    /// Recorded demand.
    Recorded(Vec<RecordedOrder>),
    /// None: the drivers wait for somebody else's.
    None,
}

/// What to simulate.
pub struct SimulateOptions {
    /// Such as `http://127.0.0.1:8080`.
    pub http_url: String,
    /// Needed to create drivers.
    pub api_key: Option<String>,
    /// How orders are posted.
    pub webhook: WebhookAuth,
    /// Who drives.
    pub drivers: DriverSource,
    /// How.
    pub movement: Movement,
    /// What for.
    pub orders: OrderSource,
    /// Time-lapse: drivers' and recordings' seconds in one second.
    pub speed: f64,
    /// Wall time after which the run ends; without it, when every order is done with, or never.
    pub duration: Option<Duration>,
    /// The same seed gives the same ways and orders.
    pub seed: u64,
}

/// A run that can start.
pub struct Simulation {
    options: SimulateOptions,
    api: Arc<Api>,
}

impl Simulation {
    /// Checks the options; does no IO. The process must have installed its TLS provider before.
    pub fn new(options: SimulateOptions) -> Result<Self, SimulateError> {
        let api = Api::new(&options.http_url, options.api_key.as_deref(), &options.webhook)?;
        let drivers = match &options.drivers {
            DriverSource::Create(_) if !api.has_key() => return Err(SimulateError::NoKey),
            DriverSource::Create(count) => *count,
            DriverSource::Existing(drivers) => drivers.len(),
        };
        if !(1..=MAX_DRIVERS).contains(&drivers) {
            return Err(SimulateError::DriverCount);
        }
        if !(options.speed > 0.0 && options.speed <= 10_000.0) {
            return Err(SimulateError::Speed);
        }
        Ok(Self { options, api: Arc::new(api) })
    }

    /// Runs until the duration is over, every order is done with, or `shutdown` is true; calls `on_progress` each second.
    pub async fn run(
        self,
        mut shutdown: watch::Receiver<bool>,
        mut on_progress: impl FnMut(&Progress),
    ) -> Result<Report, SimulateError> {
        let SimulateOptions { drivers, movement, orders, speed, duration, seed, .. } = self.options;
        let most = match &movement {
            Movement::Random { .. } => MAX_DRIVERS,
            Movement::Recorded(traces) => traces.len(),
        };
        let (fleet, created) = match drivers {
            DriverSource::Existing(fleet) => (fleet, false),
            DriverSource::Create(count) => (create_fleet(&self.api, count.min(most)).await?, true),
        };
        let fleet: Vec<_> = fleet.into_iter().take(most).collect();
        let ids: Vec<String> = fleet.iter().map(|(id, _)| id.clone()).collect();
        let mut run = Run::start(self.api.clone(), fleet, movement, orders, speed, seed)?;
        run.watch(duration, &mut shutdown, &mut on_progress).await;
        let report = run.stop(seed, speed, &mut on_progress).await;
        if created {
            tidy(&self.api, ids).await;
        }
        Ok(report)
    }
}

/// What lives while a run is under way; dropping it ends every task.
struct Run {
    ledger: Arc<Ledger>,
    clock: Clock,
    stop: watch::Sender<bool>,
    drivers: JoinSet<()>,
    shop: JoinSet<()>,
    /// Without a shop of its own a run does not end with its orders.
    has_orders: bool,
}

impl Run {
    fn start(
        api: Arc<Api>,
        fleet: Vec<(String, String)>,
        movement: Movement,
        orders: OrderSource,
        speed: f64,
        seed: u64,
    ) -> Result<Self, SimulateError> {
        let ws_url = api.ws_url()?;
        let (stop, stopped) = watch::channel(false);
        let (ids, tokens): (Vec<_>, Vec<_>) = fleet.into_iter().unzip();
        let ledger = Arc::new(Ledger::new(ids));
        let clock = Clock::start();
        let mut drivers = JoinSet::new();
        let spread = Duration::from_secs(1) / CONNECTS_PER_SECOND;
        for (index, (token, mover)) in tokens.into_iter().zip(movers(movement, speed, seed)).enumerate() {
            let first_wait = spread * u32::try_from(index).unwrap_or(u32::MAX);
            let agent = Agent::new(index, mover, ledger.clone());
            let (ws_url, ledger, stop) = (ws_url.clone(), ledger.clone(), stopped.clone());
            let seed = seed.wrapping_add(index as u64);
            drivers.spawn(Client { agent, ws_url, token, clock, ledger, stop, first_wait, seed }.run());
        }
        let ready_within = spread * u32::try_from(drivers.len()).unwrap_or(u32::MAX) + FLEET_READY_WITHIN;
        let has_orders = !matches!(orders, OrderSource::None);
        let mut shop = JoinSet::new();
        let (own_ledger, own_shop) = (ledger.clone(), orders::Shop::new(api, ledger.clone(), clock));
        shop.spawn(async move {
            if matches!(orders, OrderSource::Rate { .. }) {
                orders::fleet_ready(|| own_ledger.is_settled(clock.now()), ready_within).await;
            }
            own_shop.run(orders, speed, seed, stopped).await;
        });
        Ok(Self { ledger, clock, stop, drivers, shop, has_orders })
    }

    async fn watch(
        &mut self,
        duration: Option<Duration>,
        shutdown: &mut watch::Receiver<bool>,
        on_progress: &mut impl FnMut(&Progress),
    ) {
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let end = self.clock.instant(duration.unwrap_or(Duration::MAX));
            tokio::select! {
                () = stopped(shutdown) => return,
                () = sleep_until(end), if duration.is_some() => {}
                _ = ticks.tick() => {
                    let now = self.clock.now();
                    on_progress(&self.ledger.tick(now, false));
                    if self.is_over(now) {
                        return;
                    }
                }
            }
            if duration.is_some_and(|duration| self.clock.now() >= duration) {
                return;
            }
        }
    }

    /// No driver is left, or every order is posted and has ended, or nothing happens to those that are left.
    fn is_over(&mut self, now: Duration) -> bool {
        self.reap();
        let posted = self.has_orders && self.shop.is_empty();
        let quiet = now > self.ledger.last_change() + QUIET;
        self.drivers.is_empty() || (posted && (quiet || self.ledger.open_orders() == 0))
    }

    /// Forgets tasks that have ended; none may end by a panic.
    fn reap(&mut self) {
        for tasks in [&mut self.drivers, &mut self.shop] {
            while let Some(ended) = tasks.try_join_next() {
                if ended.is_err() {
                    self.ledger.error("simulator: a task panicked");
                }
            }
        }
    }

    async fn stop(mut self, seed: u64, speed: f64, on_progress: &mut impl FnMut(&Progress)) -> Report {
        let _ = self.stop.send(true);
        let leaving = async {
            while self.shop.join_next().await.is_some() {}
            while self.drivers.join_next().await.is_some() {}
        };
        if timeout(LEAVE_WITHIN, leaving).await.is_err() {
            self.ledger.error("simulator: drivers or posts did not end in time");
        }
        on_progress(&self.ledger.tick(self.clock.now(), true));
        self.ledger.report(seed, speed)
    }
}

/// Waits for true; for ever when nobody can say it any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One mover a driver; with recordings as many as there are traces.
fn movers(movement: Movement, speed: f64, seed: u64) -> Box<dyn Iterator<Item = Mover>> {
    let seeds = (0u64..).map(move |index| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index));
    match movement {
        Movement::Random { center, radius_km } => {
            Box::new(seeds.map(move |seed| Mover::roaming(center, radius_km, speed, seed)))
        }
        Movement::Recorded(traces) => {
            Box::new(traces.into_iter().zip(seeds).map(move |(trace, seed)| Mover::traced(trace, speed, seed)))
        }
    }
}

/// Creates drivers, several at a time; when one cannot be made, those that were are taken out of service again.
async fn create_fleet(api: &Arc<Api>, count: usize) -> Result<Vec<(String, String)>, SimulateError> {
    let one = |number: usize| {
        let api = api.clone();
        async move { api.create_driver(&format!("Simulated {number:03}"), &format!("+1555{number:07}")).await }
    };
    let mut made = Vec::with_capacity(count);
    let mut fleet = stream::iter(1..=count).map(one).buffered(REST_AT_ONCE);
    loop {
        match fleet.try_next().await {
            Ok(Some(driver)) => made.push(driver),
            Ok(None) => return Ok(made),
            Err(error) => {
                tidy(api, made.into_iter().map(|(id, _)| id).collect()).await;
                return Err(error);
            }
        }
    }
}

/// Takes drivers out of service; those with a delivery in hand stay as they are.
async fn tidy(api: &Arc<Api>, ids: Vec<String>) {
    let requests = stream::iter(ids).for_each_concurrent(REST_AT_ONCE, |id| async move {
        if let Err(error) = api.deactivate_driver(&id).await {
            tracing::debug!(driver.id = %id, %error, "a simulated driver stays in service");
        }
    });
    if timeout(TIDY_WITHIN, requests).await.is_err() {
        tracing::warn!("not every simulated driver could be taken out of service in time");
    }
}

#[cfg(test)]
mod tests;
