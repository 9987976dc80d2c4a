//! A run in progress: the tasks of its drivers and its shop, a tick each second, and the condition that ends it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use super::agent::Agent;
use super::api::Api;
use super::client::{Client, Clock};
use super::ledger::Ledger;
use super::movement::Mover;
use super::{ExistingDriver, Movement, OrderSource, Progress, Report, SimulateError, orders, stopped};
use crate::domain::position::Position;

/// The maximum number of first connects per second.
const CONNECTS_PER_SECOND: u32 = 200;
/// How long orders wait for the fleet, in addition to the time over which its connects are spread.
const FLEET_READY_WITHIN: Duration = Duration::from_secs(10);
/// After every order is posted, the run ends when no order has changed for this time.
const QUIET: Duration = Duration::from_secs(60);
/// The time limit for drivers to go off duty and disconnect at the end.
const LEAVE_WITHIN: Duration = Duration::from_secs(8);

/// The orders of a run and how many drivers they must leave available.
pub(super) struct Demand {
    pub(super) orders: OrderSource,
    pub(super) keep_free: usize,
}

/// The tasks and the ledger of a run in progress. Dropping it aborts every task.
pub(super) struct Run {
    ledger: Arc<Ledger>,
    clock: Clock,
    stop: watch::Sender<bool>,
    drivers: JoinSet<()>,
    shop: JoinSet<()>,
    /// Whether the run posts orders. A run without orders does not end when its shop ends.
    has_orders: bool,
}

impl Run {
    pub(super) fn start(
        api: Arc<Api>,
        fleet: Vec<ExistingDriver>,
        movement: Movement,
        demand: Demand,
        speed: f64,
        seed: u64,
    ) -> Result<Self, SimulateError> {
        let ws_url = api.ws_url()?;
        let (stop, stopped) = watch::channel(false);
        let Demand { orders: source, keep_free } = demand;
        let ids = fleet.iter().map(|driver| driver.id.clone()).collect();
        let ledger = Arc::new(Ledger::new(ids));
        let clock = Clock::start();
        let mut drivers = JoinSet::new();
        let spread = Duration::from_secs(1) / CONNECTS_PER_SECOND;
        let places = fleet.iter().map(|driver| driver.last_position).collect();
        for (index, (driver, mover)) in fleet.into_iter().zip(movers(movement, places, speed, seed)).enumerate() {
            let token = driver.token;
            let first_wait = spread * u32::try_from(index).unwrap_or(u32::MAX);
            let agent = Agent::new(index, mover, ledger.clone());
            let (ws_url, ledger, stop) = (ws_url.clone(), ledger.clone(), stopped.clone());
            let seed = seed.wrapping_add(index as u64);
            drivers.spawn(Client { agent, ws_url, token, clock, ledger, stop, first_wait, seed }.run());
        }
        let ready_within = spread * u32::try_from(drivers.len()).unwrap_or(u32::MAX) + FLEET_READY_WITHIN;
        let has_orders = !matches!(source, OrderSource::None);
        let mut shop = JoinSet::new();
        let (own_ledger, own_shop) = (ledger.clone(), orders::Shop::new(api, ledger.clone(), clock, keep_free));
        shop.spawn(async move {
            if matches!(source, OrderSource::Rate { .. }) {
                orders::fleet_ready(|| own_ledger.is_fleet_ready(clock.now()), ready_within).await;
            }
            own_shop.run(source, speed, seed, stopped).await;
        });
        Ok(Self { ledger, clock, stop, drivers, shop, has_orders })
    }

    pub(super) async fn watch(
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

    /// Returns true when no driver is left, or when every order is posted and each has ended or none has changed for
    /// [`QUIET`].
    fn is_over(&mut self, now: Duration) -> bool {
        self.reap();
        let posted = self.has_orders && self.shop.is_empty();
        let quiet = now > self.ledger.last_change() + QUIET;
        self.drivers.is_empty() || (posted && (quiet || self.ledger.open_orders() == 0))
    }

    /// Joins tasks that have ended. A panic of a task counts as an error of the run.
    fn reap(&mut self) {
        for tasks in [&mut self.drivers, &mut self.shop] {
            while let Some(ended) = tasks.try_join_next() {
                if ended.is_err() {
                    self.ledger.error("simulator: a task panicked");
                }
            }
        }
    }

    pub(super) async fn stop(mut self, seed: u64, speed: f64, on_progress: &mut impl FnMut(&Progress)) -> Report {
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

/// Returns one mover per driver, starting from its known place if there is one. With recordings there are as many as traces.
fn movers(movement: Movement, places: Vec<Option<Position>>, speed: f64, seed: u64) -> Box<dyn Iterator<Item = Mover>> {
    let seeds = (0u64..).map(move |index| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index));
    match movement {
        Movement::Random { center, radius_km } => {
            let starts = places.into_iter().zip(seeds);
            Box::new(starts.map(move |(place, seed)| Mover::roaming(center, radius_km, speed, seed, place)))
        }
        Movement::Recorded(traces) => {
            Box::new(traces.into_iter().zip(seeds).map(move |(trace, seed)| Mover::traced(trace, speed, seed)))
        }
    }
}
