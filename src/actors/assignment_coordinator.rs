//! `AssignmentCoordinator`: gives the waiting orders of one region to drivers, one at a time, oldest first.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `SearchDue` | intake, take-backs, WaitingSweep | none | the next sweep finds the order |
//! | `DriversAvailable` | whoever freed a driver | none | the next sweep finds the order |
//!
//! Truly serial: a handler that returns `ResponseActFuture` runs beside others of its actor, so each round is an
//! `AtomicResponse`. Two coordinators, or two nodes, that want one driver meet at the row lock.

mod round;
mod search;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use dashmap::DashMap;

use super::wake::{Queued, Wake};
use super::{Node, lock};
use crate::domain::ids::DriverId;
use crate::domain::position::Position;
use crate::domain::region::Region;
use round::Round;

/// Wake-ups that may wait: one of each kind.
const MAILBOX: usize = 2;
/// A coordinator that was not woken for so long ends.
const IDLE_AFTER: Duration = Duration::from_secs(600);

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
        lock(&coordinator.available).insert(driver, position);
        coordinator.drivers.send(&coordinator.actor, DriversAvailable);
    }

    /// One that ended, for want of work or by a panic, is replaced: actix restarts none.
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
        let available = std::mem::take(&mut *lock(&self.available));
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
