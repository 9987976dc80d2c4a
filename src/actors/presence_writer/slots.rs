//! Heartbeats that wait: one slot a driver, so that overload costs positions and never memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::actors::session_mailbox::SessionMailbox;
use crate::domain::ids::DriverId;
use crate::domain::position::Fix;

/// One driver's newest heartbeat.
#[derive(Clone)]
pub struct Slot {
    /// Last known place.
    pub fix: Option<Fix>,
    /// As [`Heartbeat::fix_is_newest`](crate::presence::Heartbeat::fix_is_newest).
    pub fix_is_newest: bool,
    /// When heard, by the server's clock.
    pub received_at: DateTime<Utc>,
    /// When heard, for ages.
    pub received: Instant,
    /// By which session.
    pub session_epoch: i64,
    /// A new session: the driver's membership is due for a look whatever Redis says.
    pub first: bool,
    /// Whom to acknowledge, and up to which `seq`.
    pub ack: Option<(SessionMailbox, i64)>,
}

impl Slot {
    /// One slot for two of a driver, whichever came first: the newer life and the newer fix, each by session, then by time
    /// (a fix that may be an old one by its time alone), and whatever either was due for.
    fn merged(self, other: Self) -> Self {
        let is_later = (other.session_epoch, other.received) >= (self.session_epoch, self.received);
        let (old, new) = if is_later { (self, other) } else { (other, self) };
        let keeps_old_fix = match (old.fix, new.fix) {
            (Some(before), Some(after)) if before.time > after.time => {
                old.session_epoch == new.session_epoch || !new.fix_is_newest
            }
            (Some(_), Some(_)) => false,
            (_, after) => after.is_none(),
        };
        let (fix, fix_is_newest) = if old.fix == new.fix {
            // News to Redis, though the second heartbeat only repeats it.
            (new.fix, old.fix_is_newest || new.fix_is_newest)
        } else if keeps_old_fix {
            (old.fix, old.fix_is_newest)
        } else {
            (new.fix, new.fix_is_newest)
        };
        Self { fix, fix_is_newest, first: old.first || new.first, ack: new.ack.or(old.ack), ..new }
    }
}

/// The slots of some drivers.
#[derive(Default)]
pub struct Slots(HashMap<DriverId, Slot>);

impl Slots {
    /// Adds a heartbeat to what waits of the driver.
    pub fn put(&mut self, driver: DriverId, slot: Slot) {
        match self.0.entry(driver) {
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
    pub fn take(&mut self) -> Vec<(DriverId, Slot)> {
        std::mem::take(&mut self.0).into_iter().collect()
    }

    /// Takes what waits of some drivers.
    pub fn take_of(&mut self, which: impl Fn(DriverId) -> bool) -> Vec<(DriverId, Slot)> {
        self.0.extract_if(|driver, _| which(*driver)).collect()
    }
}

impl Extend<(DriverId, Slot)> for Slots {
    fn extend<I: IntoIterator<Item = (DriverId, Slot)>>(&mut self, slots: I) {
        for (driver, slot) in slots {
            self.put(driver, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Position;
    use chrono::TimeDelta;
    use std::time::Duration;

    /// Of a session, received after so many seconds, with a fix of that second.
    fn slot(session_epoch: i64, second: u64, fix_second: Option<i64>) -> Slot {
        static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        let fix = fix_second.map(|second| Fix {
            position: Position::new(1.0, second as f64).unwrap(),
            time: DateTime::UNIX_EPOCH + TimeDelta::seconds(second),
        });
        Slot {
            fix,
            fix_is_newest: true,
            received_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(second as i64),
            received: *BEGAN + Duration::from_secs(second),
            session_epoch,
            first: false,
            ack: None,
        }
    }

    /// What waits after both came, in either order: session, second of life, second of the fix.
    fn waiting(one: Slot, other: Slot) -> (i64, i64, Option<i64>) {
        let said = |slots: [&Slot; 2]| {
            let (mut waiting, driver) = (Slots::default(), DriverId::new());
            waiting.extend(slots.map(|slot| (driver, slot.clone())));
            let (_, slot) = waiting.take().pop().unwrap();
            (slot.session_epoch, slot.received_at.timestamp(), slot.fix.map(|fix| fix.time.timestamp()))
        };
        assert_eq!(said([&one, &other]), said([&other, &one]), "whichever came first");
        said([&one, &other])
    }

    #[test]
    fn the_newer_life_and_the_newer_fix_wait() {
        assert_eq!(waiting(slot(1, 1, Some(1)), slot(1, 2, Some(2))), (1, 2, Some(2)));
        assert_eq!(waiting(slot(1, 1, Some(9)), slot(1, 2, Some(2))), (1, 2, Some(9)), "a late post of an older fix");
        assert_eq!(waiting(slot(1, 1, Some(9)), slot(1, 2, None)), (1, 2, Some(9)));
        assert_eq!(waiting(slot(1, 9, Some(9)), slot(2, 2, Some(2))), (2, 2, Some(2)), "a newer session is believed");
        assert_eq!(waiting(slot(1, 9, Some(9)), slot(2, 2, None)), (2, 2, Some(9)), "and moved nobody");
        let known = Slot { fix_is_newest: false, ..slot(2, 2, Some(2)) };
        assert_eq!(waiting(slot(1, 9, Some(9)), known), (2, 2, Some(9)), "what it knew from before is no news");
    }

    #[test]
    fn whatever_either_was_due_for_is_still_due() {
        let (old, new) = (slot(1, 1, None), slot(1, 2, None));
        let first = Slot { first: true, ..old.clone() };
        assert!(first.clone().merged(new.clone()).first && new.clone().merged(first).first);
        let as_known = Slot { fix_is_newest: false, ..slot(1, 2, Some(2)) };
        assert!(!slot(1, 1, Some(1)).merged(as_known.clone()).fix_is_newest);
        assert!(slot(1, 1, Some(2)).merged(as_known.clone()).fix_is_newest, "moved, and then still there");
        assert!(!as_known.clone().merged(as_known.clone()).fix_is_newest);
        assert!(slot(1, 1, Some(3)).merged(as_known).fix_is_newest);
    }
}
