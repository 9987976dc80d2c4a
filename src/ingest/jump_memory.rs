//! Fixes that were too far from the last one, between the posts of an app without a socket: three in a row that agree override
//! that rule, and such an app may send one a post. A session remembers them by itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use crate::domain::ids::DriverId;
use crate::domain::position::Fix;
use crate::process::lock;

/// Drivers remembered at once; one more takes the place of the driver whose fixes were kept the longest ago.
const MAX_DRIVERS: usize = 10_000;

#[derive(Default)]
struct Kept {
    by_driver: HashMap<DriverId, (u64, Vec<Fix>)>,
    /// The same drivers in the order in which their fixes were kept.
    by_age: BTreeMap<u64, DriverId>,
    next: u64,
}

impl Kept {
    fn remove(&mut self, driver: DriverId) -> Vec<Fix> {
        let Some((number, fixes)) = self.by_driver.remove(&driver) else { return Vec::new() };
        self.by_age.remove(&number);
        fixes
    }

    fn insert(&mut self, driver: DriverId, fixes: Vec<Fix>) {
        self.remove(driver);
        if self.by_driver.len() >= MAX_DRIVERS
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.by_driver.remove(&oldest);
        }
        self.by_age.insert(self.next, driver);
        self.by_driver.insert(driver, (self.next, fixes));
        self.next += 1;
    }
}

/// The refused fixes of each driver that agree with each other, oldest first. Another node counts for itself.
#[derive(Default)]
pub struct JumpMemory {
    kept: Mutex<Kept>,
}

impl JumpMemory {
    /// Takes those of a driver.
    pub fn take(&self, driver: DriverId) -> Vec<Fix> {
        lock(&self.kept).remove(driver)
    }

    /// Keeps those of a driver for the next post; none is nothing to keep.
    pub fn keep(&self, driver: DriverId, fixes: Vec<Fix>) {
        if !fixes.is_empty() {
            lock(&self.kept).insert(driver, fixes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Position;
    use chrono::DateTime;

    #[test]
    fn one_driver_too_many_costs_the_oldest_and_nobody_else() {
        let fix = Fix { position: Position::new(1.0, 1.0).unwrap(), time: DateTime::UNIX_EPOCH };
        let (refused, [oldest, second, last]) = (JumpMemory::default(), [(); 3].map(|()| DriverId::new()));
        refused.keep(oldest, vec![]);
        assert!(lock(&refused.kept).by_driver.is_empty());
        refused.keep(second, vec![fix]);
        refused.keep(oldest, vec![fix]);
        // Kept again, so that it is not the oldest any more.
        refused.keep(second, vec![fix, fix]);
        for _ in 2..MAX_DRIVERS {
            refused.keep(DriverId::new(), vec![fix]);
        }
        refused.keep(last, vec![fix, fix, fix]);
        let sizes = |kept: &Kept| (kept.by_driver.len(), kept.by_age.len());
        assert_eq!(sizes(&lock(&refused.kept)), (MAX_DRIVERS, MAX_DRIVERS));
        let taken = [oldest, second, last, last].map(|driver| refused.take(driver).len());
        assert_eq!(taken, [0, 2, 3, 0]);
        assert_eq!(sizes(&lock(&refused.kept)), (MAX_DRIVERS - 2, MAX_DRIVERS - 2));
    }
}
