//! A fleet and a shop that do not exist: N drivers as real WebSocket clients, orders through the real signed webhook.
//!
//! A black box towards the service: it knows `docs/protocol.md` and nothing else, and judges from outside whether orders are
//! given fast and to the nearest driver. Drivers that a run creates are taken out of service at its end.
//!
//! Time-lapse: with `speed` above 1 drivers move so many times as fast as they could, while `fixTime` stays the wall
//! clock's. From about 4 (roaming) or 5 (recorded) on they are faster than 200 km/h, and a service that refuses
//! impossible jumps refuses some of their fixes; the report counts those apart from errors.
//!
//! With `keep_free` the demand is bounded by the fleet: an order is posted only while so many drivers stay free, so that an
//! order of somebody else gets a driver at once.

mod agent;
mod api;
pub mod cli;
mod client;
mod geo;
mod judge;
mod ledger;
mod leftovers;
mod movement;
mod orders;
mod recorded;
mod report;
mod run;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use tokio::time::timeout;

pub use api::{ApiError, WebhookAuth};
pub use leftovers::cancel_leftovers;
pub use recorded::{FitOrders, RecordedOrder, Recording, RecordingError, RecordingOptions, Trace};
pub use report::{Latency, NearestCounts, Progress, Report};

use self::api::Api;
use self::run::{Demand, Run};
use crate::domain::position::Position;

/// Drivers that one run can have.
pub const MAX_DRIVERS: usize = 100_000;
/// REST requests under way at once.
const REST_AT_ONCE: usize = 16;
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
    /// A REST request failed, such as the one that creates a driver.
    #[error("a request to the service failed: {0}")]
    Rest(#[source] ApiError),
}

/// Where the drivers come from.
pub enum DriverSource {
    /// So many are created over REST (with recorded movement at most one for each trace).
    Create(usize),
    /// These exist.
    Existing(Vec<ExistingDriver>),
}

/// A driver that the service knows.
#[derive(Clone, Debug)]
pub struct ExistingDriver {
    /// The driver's id.
    pub id: String,
    /// A token of theirs.
    pub token: String,
    /// Where a driver with random movement starts, if the service already knows a position of theirs: from another place it
    /// would be a jump. `None`: anywhere in the circle.
    pub last_position: Option<Position>,
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
    /// An order is posted only while so many drivers stay available for orders of others; 0: orders are posted as they are due.
    pub keep_free: usize,
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
        let SimulateOptions { drivers, movement, orders, keep_free, speed, duration, seed, .. } = self.options;
        let most = match &movement {
            Movement::Random { .. } => MAX_DRIVERS,
            Movement::Recorded(traces) => traces.len(),
        };
        let (fleet, created) = match drivers {
            DriverSource::Existing(fleet) => (fleet, false),
            DriverSource::Create(count) => (create_fleet(&self.api, count.min(most)).await?, true),
        };
        let fleet: Vec<_> = fleet.into_iter().take(most).collect();
        let ids: Vec<String> = fleet.iter().map(|driver| driver.id.clone()).collect();
        let demand = Demand { orders, keep_free };
        let mut run = Run::start(self.api.clone(), fleet, movement, demand, speed, seed)?;
        run.watch(duration, &mut shutdown, &mut on_progress).await;
        let report = run.stop(seed, speed, &mut on_progress).await;
        if created {
            tidy(&self.api, ids).await;
        }
        Ok(report)
    }
}

/// Waits for true; for ever when nobody can say it any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Creates drivers, several at a time; when one cannot be made, those that were are taken out of service again.
async fn create_fleet(api: &Arc<Api>, count: usize) -> Result<Vec<ExistingDriver>, SimulateError> {
    let one = |number: usize| {
        let api = api.clone();
        async move { api.create_driver(&format!("Simulated {number:03}"), &format!("+1555{number:07}")).await }
    };
    let mut made = Vec::with_capacity(count);
    let mut fleet = stream::iter(1..=count).map(one).buffered(REST_AT_ONCE);
    loop {
        match fleet.try_next().await {
            Ok(Some((id, token))) => made.push(ExistingDriver { id, token, last_position: None }),
            Ok(None) => return Ok(made),
            Err(error) => {
                tidy(api, made.into_iter().map(|driver| driver.id).collect()).await;
                return Err(error);
            }
        }
    }
}

/// Takes drivers out of service; those with a delivery stay as they are.
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
