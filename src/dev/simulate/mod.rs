//! Simulates a fleet and a shop: N drivers are real WebSocket clients, and orders arrive through the real signed webhook.
//!
//! The simulator treats the service as a black box. It relies only on `docs/protocol.md`. It measures from outside how fast
//! orders are assigned and whether the nearest driver gets them. At the end of a run it deactivates the drivers that the run
//! created.
//!
//! Time-lapse: with a `speed` above 1 drivers move that many times faster than normal, while `fixTime` stays wall clock
//! time. From a `speed` of about 4 (roaming) or 5 (recorded) they exceed 200 km/h. A service that refuses impossible jumps
//! then refuses some of their fixes. The report counts these apart from errors.
//!
//! With `keep_free` the fleet limits the demand: an order is posted only while that many drivers stay free. An order of
//! another sender then gets a driver at once.

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

/// The maximum number of drivers of one run.
pub const MAX_DRIVERS: usize = 100_000;
/// The maximum number of concurrent REST requests.
const REST_AT_ONCE: usize = 16;
/// The time limit for deactivating created drivers.
const DEACTIVATE_WITHIN: Duration = Duration::from_secs(10);

/// Why a run cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The address is not of the form `http://host:port`.
    #[error("the service's address must look like http://127.0.0.1:8080 (https is not supported here)")]
    BadUrl,
    /// The API key contains characters that are not valid in a key.
    #[error("the API key contains characters that are not valid in a key")]
    BadKey,
    /// The webhook secret is malformed.
    #[error("the webhook secret must be whsec_ followed by base64, or for the plain header any printable text")]
    BadSecret,
    /// The run creates drivers but has no API key.
    #[error("creating drivers needs an API key with the scope admin")]
    NoKey,
    /// The number of drivers is 0 or too high.
    #[error("a run needs 1 to {MAX_DRIVERS} drivers")]
    DriverCount,
    /// The speed is not in the allowed range.
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
    /// The run creates this many over REST. With recorded movement it creates at most one for each trace.
    Create(usize),
    /// The drivers already exist.
    Existing(Vec<ExistingDriver>),
}

/// A driver that exists in the service.
#[derive(Clone, Debug)]
pub struct ExistingDriver {
    /// The driver's id.
    pub id: String,
    /// A token of this driver.
    pub token: String,
    /// The start of a driver with random movement, if the service already stores a position of this driver. A start
    /// elsewhere would be an impossible jump. `None` means a random point of the circle.
    pub last_position: Option<Position>,
}

/// How drivers move.
pub enum Movement {
    /// Along random streets within a circle at 5 to 14 m/s, and to the pickups and drops of assigned deliveries.
    Random {
        /// The centre of the circle.
        center: Position,
        /// The radius of the circle.
        radius_km: f64,
    },
    /// Each driver along a recorded trace, independent of orders. Drivers beyond the number of traces do not take part.
    Recorded(Vec<Trace>),
}

/// Where the orders come from.
pub enum OrderSource {
    /// Random orders within a circle. They start once the fleet is connected.
    Rate {
        /// The average rate. The gaps are random.
        per_minute: f64,
        /// The maximum number of orders.
        count: Option<u64>,
        /// The centre of the circle.
        center: Position,
        /// The radius of the circle.
        radius_km: f64,
    },
    /// Recorded demand.
    Recorded(Vec<RecordedOrder>),
    /// No orders. The drivers wait for orders of other senders.
    None,
}

/// The options of a run.
pub struct SimulateOptions {
    /// The service's base URL, such as `http://127.0.0.1:8080`.
    pub http_url: String,
    /// An API key. The run needs it to create drivers.
    pub api_key: Option<String>,
    /// How the run authenticates the orders that it posts.
    pub webhook: WebhookAuth,
    /// Where the drivers come from.
    pub drivers: DriverSource,
    /// How the drivers move.
    pub movement: Movement,
    /// Where the orders come from.
    pub orders: OrderSource,
    /// An order is posted only while this many drivers stay available for orders of other senders. With 0 every order is
    /// posted when it is due.
    pub keep_free: usize,
    /// Time-lapse factor: simulated seconds per wall second, for drivers and recordings.
    pub speed: f64,
    /// Wall time after which the run ends. Without it the run ends when every order has ended, or never.
    pub duration: Option<Duration>,
    /// The same seed gives the same routes and orders.
    pub seed: u64,
}

/// A run with valid options, not yet started.
pub struct Simulation {
    options: SimulateOptions,
    api: Arc<Api>,
}

impl Simulation {
    /// Validates the options without IO. The process must already have installed its TLS provider.
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

    /// Runs until the duration is over, every order has ended, or `shutdown` is true. Calls `on_progress` each second.
    pub async fn run(
        self,
        mut shutdown: watch::Receiver<bool>,
        mut on_progress: impl FnMut(&Progress),
    ) -> Result<Report, SimulateError> {
        let SimulateOptions { drivers, movement, orders, keep_free, speed, duration, seed, .. } = self.options;
        let max_drivers = match &movement {
            Movement::Random { .. } => MAX_DRIVERS,
            Movement::Recorded(traces) => traces.len(),
        };
        let (fleet, created) = match drivers {
            DriverSource::Existing(fleet) => (fleet, false),
            DriverSource::Create(count) => (create_fleet(&self.api, count.min(max_drivers)).await?, true),
        };
        let fleet: Vec<_> = fleet.into_iter().take(max_drivers).collect();
        let ids: Vec<String> = fleet.iter().map(|driver| driver.id.clone()).collect();
        let demand = Demand { orders, keep_free };
        let mut run = Run::start(self.api.clone(), fleet, movement, demand, speed, seed)?;
        run.watch(duration, &mut shutdown, &mut on_progress).await;
        let report = run.stop(seed, speed, &mut on_progress).await;
        if created {
            deactivate(&self.api, ids).await;
        }
        Ok(report)
    }
}

/// Waits until `stop` is true. Waits forever when the sender was dropped.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Creates drivers, several at a time. When one creation fails, the drivers created so far are deactivated.
async fn create_fleet(api: &Arc<Api>, count: usize) -> Result<Vec<ExistingDriver>, SimulateError> {
    let one = |number: usize| {
        let api = api.clone();
        async move { api.create_driver(&format!("Simulated {number:03}"), &format!("+1555{number:07}")).await }
    };
    let mut created = Vec::with_capacity(count);
    let mut fleet = stream::iter(1..=count).map(one).buffered(REST_AT_ONCE);
    loop {
        match fleet.try_next().await {
            Ok(Some((id, token))) => created.push(ExistingDriver { id, token, last_position: None }),
            Ok(None) => return Ok(created),
            Err(error) => {
                deactivate(api, created.into_iter().map(|driver| driver.id).collect()).await;
                return Err(error);
            }
        }
    }
}

/// Deactivates drivers. The service refuses this for a driver with an open delivery, who then stays active.
async fn deactivate(api: &Arc<Api>, ids: Vec<String>) {
    let requests = stream::iter(ids).for_each_concurrent(REST_AT_ONCE, |id| async move {
        if let Err(error) = api.deactivate_driver(&id).await {
            tracing::debug!(driver.id = %id, %error, "a simulated driver stays active");
        }
    });
    if timeout(DEACTIVATE_WITHIN, requests).await.is_err() {
        tracing::warn!("some simulated drivers were not deactivated within the time limit");
    }
}

#[cfg(test)]
mod tests;
