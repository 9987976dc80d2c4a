//! Heartbeats that wait: one slot a driver, so that overload costs positions and never memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::domain::heartbeat::Heartbeat;
use crate::domain::ids::DriverId;

/// Receives acknowledgements of heartbeats.
pub trait AckReceiver: Send + Sync {
    /// Every heartbeat up to this `seq` is dealt with.
    fn acknowledge(&self, seq: i64);
}

/// One driver's newest heartbeat, and what has to follow its storage.
#[derive(Clone)]
pub struct Slot {
    /// The heartbeat.
    pub heartbeat: Heartbeat,
    /// The first of its session: the driver's membership in GEO is checked, whatever Redis says.
    pub is_first: bool,
    /// Who gets an acknowledgement, and up to which `seq`.
    pub ack: Option<(Arc<dyn AckReceiver>, i64)>,
}

impl Slot {
    /// One slot for two of a driver, whichever came first: the newer life and the newer fix, each by session, then by time
    /// (a fix that may be an old one by its time alone), and whatever either was due for.
    fn merged(self, other: Self) -> Self {
        let received = |slot: &Self| (slot.heartbeat.session_epoch, slot.heartbeat.received);
        let (old, new) = if received(&other) >= received(&self) { (self, other) } else { (other, self) };
        let (before, after) = (&old.heartbeat, &new.heartbeat);
        let keeps_old_fix = match (before.fix, after.fix) {
            (Some(earlier), Some(later)) if earlier.time > later.time => {
                before.session_epoch == after.session_epoch || !after.fix_is_newest
            }
            (Some(_), Some(_)) => false,
            (_, later) => later.is_none(),
        };
        let (fix, fix_is_newest) = if before.fix == after.fix {
            // New to Redis, though the second heartbeat only repeats it.
            (after.fix, before.fix_is_newest || after.fix_is_newest)
        } else if keeps_old_fix {
            (before.fix, before.fix_is_newest)
        } else {
            (after.fix, after.fix_is_newest)
        };
        Self {
            heartbeat: Heartbeat { fix, fix_is_newest, ..new.heartbeat },
            is_first: old.is_first || new.is_first,
            ack: new.ack.or(old.ack),
        }
    }
}

/// The slots of some drivers.
#[derive(Default)]
pub struct Slots(HashMap<DriverId, Slot>);

impl Slots {
    /// Adds a heartbeat to what waits of the driver.
    pub fn put(&mut self, slot: Slot) {
        match self.0.entry(slot.heartbeat.driver_id) {
            Entry::Vacant(vacant) => drop(vacant.insert(slot)),
            Entry::Occupied(mut held) => {
                let merged = held.get().clone().merged(slot);
                held.insert(merged);
            }
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all that waits.
    pub fn take(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.0).into_values().collect()
    }

    /// Takes what waits of some drivers.
    pub fn take_of(&mut self, which: impl Fn(DriverId) -> bool) -> Vec<Slot> {
        self.0.extract_if(|driver, _| which(*driver)).map(|(_, slot)| slot).collect()
    }
}

impl Extend<Slot> for Slots {
    fn extend<I: IntoIterator<Item = Slot>>(&mut self, slots: I) {
        slots.into_iter().for_each(|slot| self.put(slot));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::domain::position::{Fix, Position};
    use chrono::{DateTime, TimeDelta};

    /// A heartbeat of a session, received after so many seconds, with a fix of that second.
    fn slot(session_epoch: i64, second: u64, fix_second: Option<i64>) -> Slot {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        static DRIVER: LazyLock<DriverId> = LazyLock::new(DriverId::new);
        let fix = fix_second.map(|second| Fix {
            position: Position::new(1.0, second as f64).unwrap(),
            time: DateTime::UNIX_EPOCH + TimeDelta::seconds(second),
        });
        let heartbeat = Heartbeat {
            driver_id: *DRIVER,
            fix,
            fix_is_newest: true,
            received_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(second as i64),
            received: *START + Duration::from_secs(second),
            session_epoch,
        };
        Slot { heartbeat, is_first: false, ack: None }
    }

    fn with_known_fix(slot: Slot) -> Slot {
        Slot { heartbeat: Heartbeat { fix_is_newest: false, ..slot.heartbeat }, ..slot }
    }

    /// What waits after both came, in either order: session, second of receipt, second of the fix.
    fn waiting(one: Slot, other: Slot) -> (i64, i64, Option<i64>) {
        let merged = |slots: [&Slot; 2]| {
            let mut waiting = Slots::default();
            waiting.extend(slots.map(Slot::clone));
            let heartbeat = waiting.take().pop().unwrap().heartbeat;
            (heartbeat.session_epoch, heartbeat.received_at.timestamp(), heartbeat.fix.map(|fix| fix.time.timestamp()))
        };
        assert_eq!(merged([&one, &other]), merged([&other, &one]), "in either order");
        merged([&one, &other])
    }

    #[test]
    fn the_later_heartbeat_and_the_newer_fix_wait() {
        assert_eq!(waiting(slot(1, 1, Some(1)), slot(1, 2, Some(2))), (1, 2, Some(2)));
        assert_eq!(waiting(slot(1, 1, Some(9)), slot(1, 2, Some(2))), (1, 2, Some(9)), "a late post of an older fix");
        assert_eq!(waiting(slot(1, 1, Some(9)), slot(1, 2, None)), (1, 2, Some(9)));
        assert_eq!(waiting(slot(1, 9, Some(9)), slot(2, 2, Some(2))), (2, 2, Some(2)), "a newer session wins");
        assert_eq!(waiting(slot(1, 9, Some(9)), slot(2, 2, None)), (2, 2, Some(9)), "and moved nobody");
        let known = with_known_fix(slot(2, 2, Some(2)));
        assert_eq!(waiting(slot(1, 9, Some(9)), known), (2, 2, Some(9)), "a fix from before the session is not new");
    }

    #[test]
    fn what_has_to_follow_either_heartbeat_still_follows() {
        let (old, new) = (slot(1, 1, None), slot(1, 2, None));
        let first = Slot { is_first: true, ..old };
        assert!(first.clone().merged(new.clone()).is_first && new.merged(first).is_first);
        let is_newest = |slot: Slot| slot.heartbeat.fix_is_newest;
        let known = with_known_fix(slot(1, 2, Some(2)));
        assert!(!is_newest(slot(1, 1, Some(1)).merged(known.clone())));
        assert!(is_newest(slot(1, 1, Some(2)).merged(known.clone())), "moved, and then still there");
        assert!(!is_newest(known.clone().merged(known.clone())));
        assert!(is_newest(slot(1, 1, Some(3)).merged(known)));
    }
}
