//! The search for one order's driver.

use std::collections::HashSet;
use std::time::Duration;

use super::AssignmentServices;
use crate::dispatch::claim::{self, Claim, LockWait};
use crate::dispatch::{DispatchError, Effects};
use crate::domain::ids::{DeliveryId, DriverId};
use crate::domain::ranking::Candidate;
use crate::store::waiting::WaitingOrder;
use crate::store::{StoreError, assignments};

/// Candidates asked for at once.
const CANDIDATES: usize = 4;
/// How often one driver that another transaction holds is tried again before the next one is taken.
const CONTENTION_ROUNDS: u32 = 3;
/// How often one order is tried in one round before it waits for the next.
const MAX_TRIES: usize = 100;

/// What came of one order.
pub(super) enum Outcome {
    /// It was given to this driver.
    Given(DriverId),
    /// It no longer waits, or another node holds it.
    Gone,
    /// Nobody is near.
    Nobody,
}

/// The search for one order's driver. One who was lost is left out and the rest are searched again at once; one whom
/// another transaction holds is tried again before a farther one is taken.
pub(super) struct Search {
    order: WaitingOrder,
    lock_wait: LockWait,
    lost: HashSet<DriverId>,
    contended: u32,
    tries: usize,
}

impl Search {
    /// Drivers who rejected the order themselves are not candidates again.
    pub(super) async fn of(
        services: &AssignmentServices,
        order: WaitingOrder,
        lock_wait: LockWait,
    ) -> Result<Self, StoreError> {
        let mut lost = HashSet::new();
        if order.attempt > 1 {
            let declined = services
                .use_cases
                .database()
                .transact(move |conn| Box::pin(async move { assignments::declined_by(conn, order.id).await }))
                .await?;
            lost.extend(declined);
        }
        Ok(Self { order, lock_wait, lost, contended: 0, tries: 0 })
    }

    pub(super) async fn next(&self, services: &AssignmentServices) -> Result<Option<Candidate>, StoreError> {
        if self.tries >= MAX_TRIES {
            return Ok(None);
        }
        let (radius_m, look_twice) = (services.candidates.max_radius_m(), self.order.search_rounds > 0);
        let found =
            services.candidates.nearest(&self.order.pickup, CANDIDATES, &self.lost, radius_m, look_twice).await?;
        Ok(found.first().copied())
    }

    /// Tries to give the order to `best`; `None` when the search must go on.
    pub(super) async fn claim(
        &mut self,
        services: &AssignmentServices,
        best: &Candidate,
    ) -> Result<Option<Outcome>, DispatchError> {
        self.tries += 1;
        let (claimed, effects) = attempt(services, self.order.id, best, self.lock_wait).await?;
        match claimed {
            Claim::Assigned => {
                tracing::info!(
                    delivery.id = %self.order.id, driver.id = %best.driver_id, distance_m = best.distance_m.round(),
                    "order given to the nearest driver"
                );
                services.use_cases.apply(effects).await;
                return Ok(Some(Outcome::Given(best.driver_id)));
            }
            Claim::OrderGone => return Ok(Some(Outcome::Gone)),
            Claim::DriverContended if self.contended < CONTENTION_ROUNDS => {
                self.contended += 1;
                tokio::time::sleep(Duration::from_millis(4 * u64::from(self.contended))).await;
            }
            Claim::DriverContended | Claim::DriverGone => {
                self.contended = 0;
                self.lost.insert(best.driver_id);
            }
        }
        Ok(None)
    }
}

async fn attempt(
    services: &AssignmentServices,
    order: DeliveryId,
    best: &Candidate,
    lock_wait: LockWait,
) -> Result<(Claim, Effects), DispatchError> {
    let (driver, distance_m) = (best.driver_id, best.distance_m);
    services
        .use_cases
        .transact(move |unit| Box::pin(async move { claim::claim(unit, order, driver, distance_m, lock_wait).await }))
        .await
}
