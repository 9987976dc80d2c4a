//! The handles by which a commit wakes actors and tasks: a queue or a set beside a `Notify`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::domain::ids::DriverId;
use crate::domain::position::Position;
use crate::domain::region::Region;
use crate::presence::{StatusChange, TransitionOutcome};
use crate::process::lock;

/// Wakes the outbox relay of this node.
#[derive(Clone, Default)]
pub struct OutboxWakeUp {
    notify: Arc<Notify>,
}

impl OutboxWakeUp {
    /// There may be an event to post.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// What the relay waits on.
    pub fn notify(&self) -> Arc<Notify> {
        self.notify.clone()
    }
}

/// What a region's coordinator has to do.
#[derive(Debug, Default, PartialEq)]
pub struct RegionWork {
    /// An order of the region may be due.
    pub is_search_due: bool,
    /// Drivers who became available there, and where.
    pub available: BTreeMap<DriverId, Position>,
}

impl RegionWork {
    /// Adds the work of `other`.
    pub fn merge(&mut self, other: Self) {
        self.is_search_due |= other.is_search_due;
        self.available.extend(other.available);
    }
}

/// Work for the assignment coordinators, by region. Bounded by the number of regions and drivers.
#[derive(Clone, Default)]
pub struct AssignmentQueue {
    work: Arc<Mutex<BTreeMap<Region, RegionWork>>>,
    notify: Arc<Notify>,
}

impl AssignmentQueue {
    /// An order of this region may be due.
    pub fn search_due(&self, region: Region) {
        lock(&self.work).entry(region).or_default().is_search_due = true;
        self.notify.notify_one();
    }

    /// A driver at `position`, which lies in `region`, can be assigned an order.
    pub fn driver_available(&self, region: Region, driver: DriverId, position: Position) {
        lock(&self.work).entry(region).or_default().available.insert(driver, position);
        self.notify.notify_one();
    }

    /// Waits until there is work, and takes all of it.
    pub async fn next(&self) -> BTreeMap<Region, RegionWork> {
        loop {
            self.notify.notified().await;
            let work = std::mem::take(&mut *lock(&self.work));
            if !work.is_empty() {
                return work;
            }
        }
    }
}

/// Drivers whose sessions may have something to be sent: a command, a changed state, or their end.
#[derive(Clone, Default)]
pub struct SessionNotifications {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// For the session on this node.
    here: Mutex<HashSet<DriverId>>,
    here_notify: Arc<Notify>,
    /// For the sessions on other nodes; `true` also when the driver has a session here.
    elsewhere: Mutex<HashMap<DriverId, bool>>,
    elsewhere_notify: Notify,
}

impl SessionNotifications {
    /// The driver's session on this node, if there is one, reads what PostgreSQL holds for it.
    pub fn notify_here(&self, driver: DriverId) {
        lock(&self.inner.here).insert(driver);
        self.inner.here_notify.notify_one();
    }

    /// As [`Self::notify_here`], and other nodes get a hint: where the driver has no session here or, with
    /// `is_replaced`, in any case, since an older session may be there.
    pub fn notify_everywhere(&self, driver: DriverId, is_replaced: bool) {
        self.notify_here(driver);
        *lock(&self.inner.elsewhere).entry(driver).or_default() |= is_replaced;
        self.inner.elsewhere_notify.notify_one();
    }

    /// What the command dispatcher waits on.
    pub fn here_notify(&self) -> Arc<Notify> {
        self.inner.here_notify.clone()
    }

    /// Takes the drivers who were named for this node.
    pub fn take_here(&self) -> HashSet<DriverId> {
        std::mem::take(&mut *lock(&self.inner.here))
    }

    /// Waits for drivers who were named for other nodes, and takes them.
    pub async fn next_elsewhere(&self) -> HashMap<DriverId, bool> {
        loop {
            self.inner.elsewhere_notify.notified().await;
            let named = std::mem::take(&mut *lock(&self.inner.elsewhere));
            if !named.is_empty() {
                return named;
            }
        }
    }
}

/// Drivers of whom Redis knows a newer epoch than one that PostgreSQL committed. That is an error when PostgreSQL lost
/// commits (a failover), and none when two changes of a driver overtook each other on their way to Redis.
#[derive(Clone, Default)]
pub struct StaleEpochs {
    drivers: Arc<Mutex<HashSet<DriverId>>>,
    notify: Arc<Notify>,
}

impl StaleEpochs {
    /// Adds the drivers whose change Redis refused as stale.
    pub fn note(&self, changes: &[StatusChange], outcomes: &[TransitionOutcome]) {
        let stale = changes.iter().zip(outcomes).filter(|(_, outcome)| **outcome == TransitionOutcome::Stale);
        let stale: Vec<DriverId> = stale.map(|(change, _)| change.driver_id).collect();
        if !stale.is_empty() {
            lock(&self.drivers).extend(stale);
            self.notify.notify_one();
        }
    }

    /// Takes the drivers.
    pub fn take(&self) -> Vec<DriverId> {
        std::mem::take(&mut *lock(&self.drivers)).into_iter().collect()
    }

    /// What the repair waits on.
    pub fn notify(&self) -> Arc<Notify> {
        self.notify.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_is_queued_before_anybody_waits_is_found_together() {
        let queue = AssignmentQueue::default();
        let place = Position::new(12.97, 77.59).unwrap();
        let region = Region::of(&place, h3o::Resolution::Five);
        let driver = DriverId::new();
        queue.search_due(region);
        queue.driver_available(region, driver, place);
        let work = queue.next().await;
        let expected = RegionWork { is_search_due: true, available: BTreeMap::from([(driver, place)]) };
        assert_eq!(work, BTreeMap::from([(region, expected)]));
    }

    #[tokio::test]
    async fn a_replaced_session_is_never_forgotten_behind_a_later_command() {
        let (notifications, driver) = (SessionNotifications::default(), DriverId::new());
        notifications.notify_everywhere(driver, true);
        notifications.notify_everywhere(driver, false);
        assert_eq!(notifications.next_elsewhere().await, HashMap::from([(driver, true)]));
        assert_eq!(notifications.take_here(), HashSet::from([driver]));
        assert!(notifications.take_here().is_empty());
    }
}
