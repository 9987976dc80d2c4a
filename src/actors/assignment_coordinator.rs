//! `AssignmentCoordinator`: gives the waiting orders of one region to drivers, one at a time, oldest first.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `SearchDue` | intake, take-backs, WaitingSweep | none | the next sweep finds the order |
//! | `DriversAvailable` | whoever freed a driver | none | the next sweep finds the order |
//!
//! Truly serial: a handler that returns `ResponseActFuture` runs beside others of its actor, so each round is an
//! `AtomicResponse`. Two coordinators, or two nodes, that want one driver meet at the row lock.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::prelude::*;
use dashmap::DashMap;

use super::Node;
use super::wake::{Queued, Wake};
use crate::dispatch::claim::{self, Claim, Patience};
use crate::dispatch::{DispatchError, Effects};
use crate::domain::driver::DriverStatus;
use crate::domain::ids::{DeliveryId, DriverId};
use crate::domain::position::Position;
use crate::domain::ranking::Candidate;
use crate::domain::region::Region;
use crate::store::waiting::{self, WaitingOrder};
use crate::store::{StoreError, assignments, drivers};

/// Orders in one page of a round.
const PAGE: i64 = 50;
/// Orders looked at to find those that have waited longest: a box has corners that its circle has not.
const NEIGHBOURS: i64 = 8;
/// Candidates asked for at once.
const CANDIDATES: usize = 4;
/// How often one driver that another transaction holds is tried again before the next one is taken.
const CONTENTION_ROUNDS: u32 = 3;
/// How often one order is tried in one round before it waits for the next.
const MAX_TRIES: usize = 100;
/// Wake-ups that may wait: one of each kind.
const MAILBOX: usize = 2;
/// A coordinator that was not woken for so long ends.
const IDLE_AFTER: Duration = Duration::from_secs(600);
/// The longest time between two searches for an order that nobody could be found for, in seconds.
const MAX_POSTPONE_S: f64 = 5.0;

/// There may be an order to give in this region.
#[derive(Message)]
#[rtype(result = "()")]
struct SearchDue(Queued);

/// Drivers may now be given an order.
#[derive(Message)]
#[rtype(result = "()")]
struct DriversAvailable(Queued);

/// Who became available, and where, and was not looked at yet.
type Available = Arc<Mutex<BTreeMap<DriverId, Position>>>;

/// One region's coordinator, and what waits for it.
#[derive(Clone)]
struct Coordinator {
    actor: Addr<AssignmentCoordinator>,
    search: Wake,
    drivers: Wake,
    available: Available,
}

/// The coordinators of this node, started when first woken.
#[derive(Clone)]
pub struct Coordinators {
    node: Node,
    arbiter: ArbiterHandle,
    by_region: Arc<DashMap<Region, Coordinator>>,
}

impl Coordinators {
    /// Coordinators run on `arbiter`.
    pub fn new(node: Node, arbiter: ArbiterHandle) -> Self {
        Self { node, arbiter, by_region: Arc::default() }
    }

    /// Wakes the region's coordinator: an order may be due.
    pub fn search_due(&self, region: Region) {
        let coordinator = self.coordinator(region);
        coordinator.search.send(&coordinator.actor, SearchDue);
    }

    /// Wakes the orders that wait in reach of a driver.
    pub fn driver_available(&self, driver: DriverId, position: Position) {
        let region = Region::of(&position, self.node.policy().resolution);
        let coordinator = self.coordinator(region);
        coordinator.available.lock().unwrap_or_else(PoisonError::into_inner).insert(driver, position);
        coordinator.drivers.send(&coordinator.actor, DriversAvailable);
    }

    /// A dead one is replaced: a panic under actix is never restarted.
    fn coordinator(&self, region: Region) -> Coordinator {
        let mut entry = self.by_region.entry(region).or_insert_with(|| self.start(region));
        if !entry.actor.connected() {
            *entry = self.start(region);
        }
        entry.clone()
    }

    fn start(&self, region: Region) -> Coordinator {
        let (node, available) = (self.node.clone(), Available::default());
        let taken = available.clone();
        let actor = AssignmentCoordinator::start_in_arbiter(&self.arbiter, move |ctx| {
            ctx.set_mailbox_capacity(MAILBOX);
            AssignmentCoordinator { region, node, available: taken, woken: Instant::now() }
        });
        Coordinator { actor, search: Wake::default(), drivers: Wake::default(), available }
    }
}

/// The actor of one region.
pub struct AssignmentCoordinator {
    region: Region,
    node: Node,
    available: Available,
    woken: Instant,
}

impl Actor for AssignmentCoordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // A region that nobody orders from keeps no actor; the next wake-up starts one anew.
        ctx.run_interval(IDLE_AFTER, |this, ctx| {
            if this.woken.elapsed() >= IDLE_AFTER {
                ctx.stop();
            }
        });
    }
}

impl Handler<SearchDue> for AssignmentCoordinator {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, SearchDue(queued): SearchDue, _: &mut Self::Context) -> Self::Result {
        drop(queued);
        self.woken = Instant::now();
        let (node, region) = (self.node.clone(), self.region);
        AtomicResponse::new(Box::pin(async move { Round::new(node).region(region).await }.into_actor(self)))
    }
}

impl Handler<DriversAvailable> for AssignmentCoordinator {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, DriversAvailable(queued): DriversAvailable, _: &mut Self::Context) -> Self::Result {
        drop(queued);
        self.woken = Instant::now();
        let node = self.node.clone();
        let available = std::mem::take(&mut *self.available.lock().unwrap_or_else(PoisonError::into_inner));
        let rounds = async move {
            for (driver, position) in available {
                if let Err(error) = Round::new(node.clone()).around(driver, position).await {
                    return tracing::debug!(error = %error, "orders near a driver were not looked for; the next sweep will");
                }
            }
        };
        AtomicResponse::new(Box::pin(rounds.into_actor(self)))
    }
}

/// What came of one order.
enum Outcome {
    /// It was given to this driver.
    Given(DriverId),
    /// It waits no more, or another node has it in hand.
    Gone,
    /// Nobody is near.
    Nobody,
}

/// One pass over waiting orders, oldest first, page by page.
struct Round {
    node: Node,
    unserved: Vec<(DeliveryId, i32)>,
}

impl Round {
    fn new(node: Node) -> Self {
        Self { node, unserved: Vec::new() }
    }

    /// Every order of the region that is due.
    async fn region(mut self, region: Region) {
        let mut last: Option<WaitingOrder> = None;
        loop {
            let page = self
                .node
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
    async fn around(mut self, driver: DriverId, position: Position) -> Result<(), StoreError> {
        let radius_m = self.node.finder().max_radius_m();
        let mut last: Option<WaitingOrder> = None;
        'pages: while self.is_available(driver).await? {
            let page = self
                .node
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
            .node
            .database()
            .transact(move |conn| Box::pin(async move { drivers::states(conn, &[driver]).await }))
            .await?;
        Ok(states.first().is_some_and(|driver: &drivers::DriverChanged| driver.status == DriverStatus::Available))
    }

    async fn serve(&mut self, order: &WaitingOrder) -> Result<Outcome, ()> {
        match give(&self.node, order).await {
            Ok(Outcome::Nobody) => {
                self.unserved.push((order.id, order.search_rounds));
                self.node.settle(order.id);
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
        let sweep_s = self.node.config().assignment.pending_sweep.as_secs_f64();
        let mut groups: BTreeMap<i32, Vec<DeliveryId>> = Default::default();
        for (id, rounds) in self.unserved {
            groups.entry(rounds.clamp(0, 6)).or_default().push(id);
        }
        for (rounds, ids) in groups {
            let seconds = (sweep_s * f64::from(1 << rounds)).min(MAX_POSTPONE_S.max(sweep_s));
            let done: Result<(), StoreError> = self
                .node
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
async fn give(node: &Node, order: &WaitingOrder) -> Result<Outcome, DispatchError> {
    let mut search = Search::of(node, *order, Patience::Skip).await?;
    // Older orders that could not have that very driver; one who becomes free meanwhile is theirs to try again.
    let mut passed = HashSet::new();
    loop {
        let Some(best) = search.next(node).await? else { return Ok(Outcome::Nobody) };
        let waiting = oldest_in_reach(node, &best.fix.position).await?;
        let first = waiting.into_iter().find(|other| !passed.contains(&(other.id, best.driver_id)));
        match first {
            Some(older) if older.id != order.id && older.created_at < order.created_at => {
                passed.insert((older.id, best.driver_id));
                let mut first = Search::of(node, older, Patience::Wait).await?;
                while let Some(nearest) = first.next(node).await? {
                    if first.claim(node, &nearest).await?.is_some() {
                        break;
                    }
                }
            }
            _ => {
                if let Some(outcome) = search.claim(node, &best).await? {
                    return Ok(outcome);
                }
            }
        }
    }
}

/// The search for one order's driver. One who was lost is left out and the rest are searched again at once; one whom
/// another transaction holds is tried again before a farther one is taken.
struct Search {
    order: WaitingOrder,
    patience: Patience,
    lost: HashSet<DriverId>,
    contended: u32,
    tries: usize,
}

impl Search {
    /// Whoever gave the order back themselves is not asked again.
    async fn of(node: &Node, order: WaitingOrder, patience: Patience) -> Result<Self, StoreError> {
        let mut lost = HashSet::new();
        if order.attempt > 1 {
            let declined = node
                .database()
                .transact(move |conn| Box::pin(async move { assignments::declined_by(conn, order.id).await }))
                .await?;
            lost.extend(declined);
        }
        Ok(Self { order, patience, lost, contended: 0, tries: 0 })
    }

    async fn next(&self, node: &Node) -> Result<Option<Candidate>, StoreError> {
        if self.tries >= MAX_TRIES {
            return Ok(None);
        }
        let (radius_m, look_twice) = (node.finder().max_radius_m(), self.order.search_rounds > 0);
        let found = node.finder().nearest(&self.order.pickup, CANDIDATES, &self.lost, radius_m, look_twice).await?;
        Ok(found.first().copied())
    }

    /// Tries to give the order to `best`; `None` when the search must go on.
    async fn claim(&mut self, node: &Node, best: &Candidate) -> Result<Option<Outcome>, DispatchError> {
        self.tries += 1;
        let (claimed, effects) = attempt(node, self.order.id, best, self.patience).await?;
        match claimed {
            Claim::Given => {
                tracing::info!(
                    delivery.id = %self.order.id, driver.id = %best.driver_id, distance_m = best.distance_m.round(),
                    "order given to the nearest driver"
                );
                node.follow(effects).await;
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

/// The orders that have waited longest within reach of a place, oldest first.
async fn oldest_in_reach(node: &Node, place: &Position) -> Result<Vec<WaitingOrder>, StoreError> {
    let (place, radius_m) = (*place, node.finder().max_radius_m());
    let mut page = node
        .database()
        .transact(move |conn| Box::pin(async move { waiting::near(conn, &place, radius_m, None, NEIGHBOURS).await }))
        .await?;
    page.retain(|order| order.pickup.distance_m(&place) <= radius_m);
    Ok(page)
}

async fn attempt(
    node: &Node,
    order: DeliveryId,
    best: &Candidate,
    patience: Patience,
) -> Result<(Claim, Effects), DispatchError> {
    let (driver, distance_m) = (best.driver_id, best.distance_m);
    node.perform_quietly(move |unit| {
        Box::pin(async move { claim::claim(unit, order, driver, distance_m, patience).await })
    })
    .await
}
