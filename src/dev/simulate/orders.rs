//! The simulated shop: plans when each order is due and posts it through the webhook.
//!
//! Invariant: the load is an open loop, so a slow service does not slow down the shop. Only `keep_free` and the limit of
//! concurrent posts delay an order.

use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::api::{Api, ApiError};
use super::client::Clock;
use super::geo;
use super::ledger::{Answer, Ledger};
use super::recorded::RecordedOrder;
use super::{OrderSource, stopped};
use crate::domain::position::Position;

/// The interval between two checks whether enough drivers are available for one more order.
const AVAILABILITY_POLL: Duration = Duration::from_millis(100);
/// The maximum number of concurrent posts. The next one waits.
const MAX_IN_FLIGHT: usize = 512;
const TRIES: u32 = 5;
/// How long the end of a run waits for answers to posts in flight.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// The minimum distance between pickup and drop. The maximum is the diameter of the circle.
const MIN_TRIP_M: f64 = 200.0;

/// The prefix of the ids of simulated orders.
pub(super) const ORDER_ID_PREFIX: &str = "sim-";
/// The metadata field that is true for simulated orders.
pub(super) const ORDER_MARK: &str = "simulated";

/// The time and place of the next orders.
enum Schedule {
    Rate { per_minute: f64, left: Option<u64>, center: Position, radius_km: f64, rng: Box<StdRng>, next_at: Duration },
    Recorded { orders: std::vec::IntoIter<RecordedOrder>, speed: f64 },
    Empty,
}

impl Schedule {
    fn new(source: OrderSource, speed: f64, seed: u64, now: Duration) -> Self {
        match source {
            OrderSource::Rate { per_minute, count, center, radius_km } if per_minute > 0.0 => {
                let rng = Box::new(StdRng::seed_from_u64(seed));
                Self::Rate { per_minute, left: count, center, radius_km, rng, next_at: now }
            }
            OrderSource::Recorded(orders) => Self::Recorded { orders: orders.into_iter(), speed },
            OrderSource::Rate { .. } | OrderSource::None => Self::Empty,
        }
    }

    /// Skips the random orders that were held back until `now`, so that they are not posted in a burst later.
    fn resume_at(&mut self, now: Duration) {
        if let Self::Rate { next_at, .. } = self {
            *next_at = now.max(*next_at);
        }
    }

    /// Returns the next order and the wall time at which it is due.
    fn next(&mut self) -> Option<(Duration, Position, Position)> {
        match self {
            Self::Empty => None,
            Self::Recorded { orders, speed } => {
                let order = orders.next()?;
                let due = Duration::try_from_secs_f64(order.t_s / *speed).unwrap_or_default();
                Some((due, order.pickup, order.drop))
            }
            Self::Rate { per_minute, left, center, radius_km, rng, next_at } => {
                if let Some(left) = left {
                    *left = left.checked_sub(1)?;
                }
                let due = *next_at;
                // Independent arrivals have exponential gaps.
                let gap_s = -(1.0 - rng.random::<f64>()).ln() * 60.0 / *per_minute;
                *next_at += Duration::try_from_secs_f64(gap_s).unwrap_or_default();
                let pickup = geo::random_within(rng, *center, *radius_km);
                let drops = (0..20).map(|_| geo::random_within(rng, *center, *radius_km));
                let drop = drops.into_iter().find(|drop| drop.distance_m(&pickup) >= MIN_TRIP_M);
                Some((due, pickup, drop.unwrap_or_else(|| geo::offset(pickup, MIN_TRIP_M, 0.0))))
            }
        }
    }
}

/// See the module.
pub(super) struct Shop {
    api: Arc<Api>,
    ledger: Arc<Ledger>,
    clock: Clock,
    /// An order is posted only while this many drivers stay available. With 0 it is posted always.
    keep_free: usize,
    /// A random id that makes the order ids of this run unique.
    run: String,
}

impl Shop {
    pub(super) fn new(api: Arc<Api>, ledger: Arc<Ledger>, clock: Clock, keep_free: usize) -> Self {
        let run = uuid::Uuid::now_v7().simple().to_string();
        Self { api, ledger, clock, keep_free, run }
    }

    /// Waits until one more order leaves enough drivers available. Returns whether it had to wait.
    async fn wait_for_available_drivers(&self) -> bool {
        let mut waited = false;
        while self.keep_free > 0 && !self.ledger.can_post_order(self.clock.now(), self.keep_free) {
            waited = true;
            sleep(AVAILABILITY_POLL).await;
        }
        waited
    }

    /// Posts until the source is empty or `stop` is true. Returns when every post has its answer.
    pub(super) async fn run(self, source: OrderSource, speed: f64, seed: u64, mut stop: watch::Receiver<bool>) {
        let mut schedule = Schedule::new(source, speed, seed, self.clock.now());
        let shop = Arc::new(self);
        let slots = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let mut posts = JoinSet::new();
        for number in 1u64.. {
            let Some((due, pickup, drop)) = schedule.next() else { break };
            let slot = async {
                sleep_until(shop.clock.instant(due)).await;
                let slot = slots.clone().acquire_owned().await.ok();
                (slot, shop.wait_for_available_drivers().await)
            };
            let (slot, waited): (Option<OwnedSemaphorePermit>, bool) = tokio::select! {
                slot = slot => slot,
                () = stopped(&mut stop) => (None, false),
            };
            let Some(slot) = slot else { break };
            if waited {
                schedule.resume_at(shop.clock.now());
            }
            while posts.try_join_next().is_some() {}
            // The order is recorded before the check for the next one, so that it counts there.
            let seller_order_id = format!("{ORDER_ID_PREFIX}{}-{number}", shop.run);
            if !shop.ledger.order_posted(&seller_order_id, shop.clock.now(), pickup) {
                shop.ledger.error("webhook: not posted, too many open orders");
                continue;
            }
            let shop = shop.clone();
            posts.spawn(async move {
                shop.post(number, seller_order_id, pickup, drop).await;
                std::mem::drop(slot);
            });
        }
        let rest = async { while posts.join_next().await.is_some() {} };
        let stopped = async {
            stopped(&mut stop).await;
            sleep(LAST_ANSWERS_WITHIN).await;
        };
        tokio::select! { () = rest => {}, () = stopped => {} }
    }

    async fn post(&self, number: u64, seller_order_id: String, pickup: Position, drop: Position) {
        let body = json!({
            "sellerOrderId": seller_order_id, "channelId": "1",
            "orderCode": format!("SIM{number:06}"),
            "pickup": {"lat": pickup.lat(), "lon": pickup.lon(), "address": "Simulated kitchen", "contactName": "Counter"},
            "drop": {"lat": drop.lat(), "lon": drop.lon(), "address": "Simulated door", "contactName": "Customer"},
            "items": [{"sku": "SIM-1", "name": "Parcel", "quantity": 1}],
            "metadata": {ORDER_MARK: true},
        });
        let body = body.to_string().into_bytes();
        for attempt in 1..=TRIES {
            let sent_at = self.clock.now();
            let result = self.api.post_order(&seller_order_id, &body).await;
            let now = self.clock.now();
            if !matches!(result, Err(ApiError::Transport(_))) {
                self.ledger.webhook_answered(now.saturating_sub(sent_at));
            }
            let error = match result {
                Ok((status, accepted)) => {
                    let answer = if status.as_u16() == 201 && attempt == 1 { Answer::AtOnce } else { Answer::Later };
                    return self.ledger.order_answered(&seller_order_id, now, answer, accepted.driver_id.as_deref());
                }
                Err(error) => error,
            };
            self.ledger.error(&format!("webhook: {}", error.kind()));
            match error.retry_in(attempt).filter(|_| attempt < TRIES) {
                Some(wait) => sleep(wait).await,
                None => break,
            }
        }
        self.ledger.order_refused(&seller_order_id);
    }
}

/// Waits until the fleet is ready, or the time limit has passed. Earlier orders would only wait for drivers.
pub(super) async fn fleet_ready(ready: impl Fn() -> bool, within: Duration) {
    let waiting = async {
        while !ready() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let _ = timeout(within, waiting).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn center() -> Position {
        Position::new(12.97, 77.59).unwrap()
    }

    #[test]
    fn the_rate_holds_over_time_and_the_count_ends_the_orders() {
        let source = |count| OrderSource::Rate { per_minute: 60.0, count, center: center(), radius_km: 3.0 };
        let mut schedule = Schedule::new(source(None), 1.0, 1, Duration::ZERO);
        let orders: Vec<_> = (0..2000).filter_map(|_| schedule.next()).collect();
        let (last, ..) = orders[1999];
        assert!((1800.0..2200.0).contains(&last.as_secs_f64()), "{last:?}");
        assert!(orders.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        for (_, pickup, drop) in &orders {
            assert!(center().distance_m(pickup) <= 3010.0 && pickup.distance_m(drop) >= 199.0);
        }
        let mut schedule = Schedule::new(source(Some(3)), 1.0, 1, Duration::ZERO);
        assert_eq!(std::iter::from_fn(|| schedule.next()).count(), 3);
        let none = OrderSource::Rate { per_minute: 0.0, count: None, center: center(), radius_km: 3.0 };
        assert!(Schedule::new(none, 1.0, 1, Duration::ZERO).next().is_none());
    }

    #[test]
    fn held_back_orders_are_not_posted_in_a_burst_later() {
        let source = OrderSource::Rate { per_minute: 60.0, count: None, center: center(), radius_km: 3.0 };
        let mut schedule = Schedule::new(source, 1.0, 1, Duration::ZERO);
        schedule.next().unwrap();
        let late = Duration::from_secs(600);
        schedule.resume_at(late);
        let (first, ..) = schedule.next().unwrap();
        assert_eq!(first, late);
        let (tenth, ..) = (0..9).filter_map(|_| schedule.next()).last().unwrap();
        assert!(tenth > late + Duration::from_secs(2), "{tenth:?}");
        schedule.resume_at(Duration::ZERO);
        assert!(schedule.next().unwrap().0 >= tenth, "resuming never moves an order to an earlier time");
    }

    #[test]
    fn recorded_orders_are_due_speed_times_earlier() {
        let order = RecordedOrder { t_s: 600.0, pickup: center(), drop: center() };
        let mut schedule = Schedule::new(OrderSource::Recorded(vec![order]), 20.0, 1, Duration::ZERO);
        assert_eq!(schedule.next().unwrap().0, Duration::from_secs(30));
        assert!(schedule.next().is_none());
    }
}
