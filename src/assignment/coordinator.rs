//! `AssignmentCoordinator`: assigns the waiting orders of one region to drivers, one at a time, oldest first.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `WorkOff` | its region's `Notify` | none | the work stays queued; the next wake-up or the waiting sweep finds the orders |
//!
//! Serial: a handler that returns `ResponseActFuture` runs beside others of its actor, so the handler is an
//! `AtomicResponse`. Two coordinators, or two nodes, that want one driver meet at the row lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::Notify;

use super::AssignmentServices;
use super::round::Round;
use crate::domain::region::Region;
use crate::effects::{AssignmentQueue, RegionWork};
use crate::process::{forward_wake_ups, lock};

/// Messages that may wait.
const MAILBOX: usize = 2;
/// A coordinator without work for this long ends.
const IDLE_AFTER: Duration = Duration::from_secs(600);

/// There is work in the region's queue.
#[derive(Message)]
#[rtype(result = "()")]
struct WorkOff;

/// The queue of one region, which outlives its coordinator.
#[derive(Clone, Default)]
struct RegionQueue {
    work: Arc<Mutex<RegionWork>>,
    notify: Arc<Notify>,
}

/// A region's coordinator and its queue.
struct Entry {
    actor: Addr<AssignmentCoordinator>,
    queue: RegionQueue,
}

/// The coordinators of this node: each is started when its region first has work, and again after it ended.
pub struct CoordinatorRegistry {
    services: AssignmentServices,
    arbiter: ArbiterHandle,
    by_region: HashMap<Region, Entry>,
}

impl CoordinatorRegistry {
    /// Coordinators run on `arbiter`.
    pub fn new(services: AssignmentServices, arbiter: ArbiterHandle) -> Self {
        Self { services, arbiter, by_region: HashMap::new() }
    }

    /// Hands work to the regions' coordinators, without end.
    pub async fn run(mut self, queue: AssignmentQueue) {
        loop {
            for (region, work) in queue.next().await {
                self.hand_over(region, work);
            }
        }
    }

    fn hand_over(&mut self, region: Region, work: RegionWork) {
        let (services, arbiter) = (&self.services, &self.arbiter);
        let entry = self.by_region.entry(region).or_insert_with(|| {
            let queue = RegionQueue::default();
            Entry { actor: start(services, arbiter, region, &queue), queue }
        });
        lock(&entry.queue.work).merge(work);
        // One that ended, idle or by a panic, is replaced: actix restarts none.
        if !entry.actor.connected() {
            entry.actor = start(services, arbiter, region, &entry.queue);
        }
        entry.queue.notify.notify_one();
    }
}

fn start(
    services: &AssignmentServices,
    arbiter: &ArbiterHandle,
    region: Region,
    queue: &RegionQueue,
) -> Addr<AssignmentCoordinator> {
    let (services, queue) = (services.clone(), queue.clone());
    AssignmentCoordinator::start_in_arbiter(arbiter, move |ctx| {
        ctx.set_mailbox_capacity(MAILBOX);
        AssignmentCoordinator { region, services, queue, last_work: Instant::now() }
    })
}

/// The actor of one region.
struct AssignmentCoordinator {
    region: Region,
    services: AssignmentServices,
    queue: RegionQueue,
    last_work: Instant,
}

impl Actor for AssignmentCoordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        forward_wake_ups(self.queue.notify.clone(), ctx, || WorkOff);
        ctx.run_interval(IDLE_AFTER, |this, ctx| {
            if this.last_work.elapsed() >= IDLE_AFTER {
                ctx.stop();
            }
        });
    }
}

impl Handler<WorkOff> for AssignmentCoordinator {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: WorkOff, _: &mut Self::Context) -> Self::Result {
        self.last_work = Instant::now();
        let work = std::mem::take(&mut *lock(&self.queue.work));
        let (services, region) = (self.services.clone(), self.region);
        AtomicResponse::new(Box::pin(async move { work_off(services, region, work).await }.into_actor(self)))
    }
}

#[tracing::instrument(level = "trace", skip_all)]
async fn work_off(services: AssignmentServices, region: Region, work: RegionWork) {
    if work.is_search_due {
        Round::new(services.clone()).region(region).await;
    }
    for (driver, position) in work.available {
        if let Err(error) = Round::new(services.clone()).around(driver, position).await {
            return tracing::debug!(
                error = %error, "orders near an available driver were not searched for; the next sweep finds them"
            );
        }
    }
}
