//! One pass over the orders that wait.

use std::collections::{BTreeMap, HashSet};

use super::AssignmentServices;
use super::search::{Outcome, Search};
use crate::dispatch::DispatchError;
use crate::dispatch::claim::LockWait;
use crate::domain::driver::DriverStatus;
use crate::domain::ids::{DeliveryId, DriverId};
use crate::domain::position::Position;
use crate::domain::region::Region;
use crate::store::waiting::{self, WaitingOrder};
use crate::store::{StoreError, drivers};

/// Orders in one page of a round.
const PAGE: i64 = 50;
/// Orders looked at to find those that have waited longest: a box has corners that its circle has not.
const NEIGHBOURS: i64 = 8;
/// The longest time between two searches for an order that nobody could be found for, in seconds.
const MAX_POSTPONE_S: f64 = 5.0;

/// One pass over waiting orders, oldest first, page by page.
pub(super) struct Round {
    services: AssignmentServices,
    unserved: Vec<(DeliveryId, i32)>,
}

impl Round {
    pub(super) fn new(services: AssignmentServices) -> Self {
        Self { services, unserved: Vec::new() }
    }

    /// Every order of the region that is due.
    pub(super) async fn region(mut self, region: Region) {
        let mut last: Option<WaitingOrder> = None;
        loop {
            let page = self
                .services
                .use_cases
                .database()
                .transact(move |conn| {
                    Box::pin(async move { waiting::of_region(conn, region, last.as_ref(), PAGE).await })
                })
                .await;
            let Some(page) = self.usable(page) else { break };
            for order in &page {
                if self.serve(order).await.is_err() {
                    return self.finish().await;
                }
            }
            last = page.last().copied();
            if page.len() < PAGE as usize {
                break;
            }
        }
        self.finish().await;
    }

    /// Every order in reach of the driver, due or not, until the driver is taken.
    pub(super) async fn around(mut self, driver: DriverId, position: Position) -> Result<(), StoreError> {
        let radius_m = self.services.candidates.max_radius_m();
        let mut last: Option<WaitingOrder> = None;
        'pages: while self.is_available(driver).await? {
            let page = self
                .services
                .use_cases
                .database()
                .transact(move |conn| {
                    Box::pin(async move { waiting::near(conn, &position, radius_m, last.as_ref(), PAGE).await })
                })
                .await;
            let Some(page) = self.usable(page) else { break };
            for order in page.iter().filter(|order| order.pickup.distance_m(&position) <= radius_m) {
                match self.serve(order).await {
                    Ok(Outcome::Given(taken)) if taken == driver => break 'pages,
                    Ok(_) => {}
                    Err(()) => break 'pages,
                }
            }
            last = page.last().copied();
            if page.len() < PAGE as usize {
                break;
            }
        }
        self.finish().await;
        Ok(())
    }

    fn usable(&self, page: Result<Vec<WaitingOrder>, StoreError>) -> Option<Vec<WaitingOrder>> {
        match page {
            Ok(page) => (!page.is_empty()).then_some(page),
            Err(error) => {
                tracing::warn!(error = %error, "waiting orders were not read; the next sweep will");
                None
            }
        }
    }

    async fn is_available(&self, driver: DriverId) -> Result<bool, StoreError> {
        let states = self
            .services
            .use_cases
            .database()
            .transact(move |conn| Box::pin(async move { drivers::states(conn, &[driver]).await }))
            .await?;
        Ok(states.first().is_some_and(|driver: &drivers::DriverChanged| driver.status == DriverStatus::Available))
    }

    async fn serve(&mut self, order: &WaitingOrder) -> Result<Outcome, ()> {
        match assign(&self.services, order).await {
            Ok(Outcome::Nobody) => {
                self.unserved.push((order.id, order.search_rounds));
                self.services.waiters.resolve(order.id);
                metrics::counter!("driver_tracker_assignments_total", "outcome" => "nobody").increment(1);
                Ok(Outcome::Nobody)
            }
            Ok(outcome) => {
                let label = if matches!(outcome, Outcome::Given(_)) { "given" } else { "gone" };
                metrics::counter!("driver_tracker_assignments_total", "outcome" => label).increment(1);
                Ok(outcome)
            }
            Err(error) => {
                metrics::counter!("driver_tracker_assignments_total", "outcome" => "error").increment(1);
                tracing::warn!(delivery.id = %order.id, error = %error, "an order was not given; the next sweep tries again");
                Err(())
            }
        }
    }

    /// Puts off the orders that nobody could be found for, longer each time.
    async fn finish(self) {
        let sweep_s = self.services.pending_sweep.as_secs_f64();
        let mut groups: BTreeMap<i32, Vec<DeliveryId>> = Default::default();
        for (id, rounds) in self.unserved {
            groups.entry(rounds.clamp(0, 6)).or_default().push(id);
        }
        for (rounds, ids) in groups {
            let seconds = (sweep_s * f64::from(1 << rounds)).min(MAX_POSTPONE_S.max(sweep_s));
            let done: Result<(), StoreError> = self
                .services
                .use_cases
                .database()
                .transact(move |conn| Box::pin(async move { waiting::postpone(conn, &ids, seconds).await }))
                .await;
            if let Err(error) = done {
                tracing::debug!(error = %error, "waiting orders were not put off");
            }
        }
    }
}

/// Gives one order to the nearest driver who is free; an older order that waits within that driver's reach goes first,
/// whatever region it is of.
#[tracing::instrument(level = "trace", skip_all)]
async fn assign(services: &AssignmentServices, order: &WaitingOrder) -> Result<Outcome, DispatchError> {
    let mut search = Search::of(services, *order, LockWait::Skip).await?;
    // Older orders that could not have that very driver; one who becomes free meanwhile is theirs to try again.
    let mut passed = HashSet::new();
    loop {
        let Some(best) = search.next(services).await? else { return Ok(Outcome::Nobody) };
        let waiting = oldest_in_reach(services, &best.fix.position).await?;
        let first = waiting.into_iter().find(|other| !passed.contains(&(other.id, best.driver_id)));
        match first {
            Some(older) if older.id != order.id && older.created_at < order.created_at => {
                passed.insert((older.id, best.driver_id));
                let mut first = Search::of(services, older, LockWait::Block).await?;
                while let Some(nearest) = first.next(services).await? {
                    if first.claim(services, &nearest).await?.is_some() {
                        break;
                    }
                }
            }
            _ => {
                if let Some(outcome) = search.claim(services, &best).await? {
                    return Ok(outcome);
                }
            }
        }
    }
}

/// The orders that have waited longest within reach of a place, oldest first.
async fn oldest_in_reach(services: &AssignmentServices, place: &Position) -> Result<Vec<WaitingOrder>, StoreError> {
    let (place, radius_m) = (*place, services.candidates.max_radius_m());
    let mut page = services
        .use_cases
        .database()
        .transact(move |conn| Box::pin(async move { waiting::near(conn, &place, radius_m, None, NEIGHBOURS).await }))
        .await?;
    page.retain(|order| order.pickup.distance_m(&place) <= radius_m);
    Ok(page)
}
