//! Fixes that were too far from the last one, between the posts of an app without a socket: three in a row that agree override
//! that rule, and such an app may send one a post. A session remembers them by itself.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::domain::ids::DriverId;
use crate::domain::position::Fix;
use crate::process::lock;

/// Drivers remembered at once; with more, all are forgotten and begin to count anew.
const MAX_DRIVERS: usize = 10_000;

/// The refused fixes of each driver that agree with each other, oldest first. Another node counts for itself.
#[derive(Default)]
pub struct JumpMemory {
    by_driver: Mutex<HashMap<DriverId, Vec<Fix>>>,
}

impl JumpMemory {
    /// Takes those of a driver.
    pub fn take(&self, driver: DriverId) -> Vec<Fix> {
        lock(&self.by_driver).remove(&driver).unwrap_or_default()
    }

    /// Keeps those of a driver for the next post; none is nothing to keep.
    pub fn keep(&self, driver: DriverId, fixes: Vec<Fix>) {
        if fixes.is_empty() {
            return;
        }
        let mut by_driver = lock(&self.by_driver);
        if by_driver.len() >= MAX_DRIVERS {
            by_driver.clear();
        }
        by_driver.insert(driver, fixes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Position;
    use chrono::DateTime;

    #[test]
    fn what_is_kept_is_bounded() {
        let fix = Fix { position: Position::new(1.0, 1.0).unwrap(), time: DateTime::UNIX_EPOCH };
        let (refused, one) = (JumpMemory::default(), DriverId::new());
        refused.keep(one, vec![]);
        assert!(lock(&refused.by_driver).is_empty());
        for _ in 0..MAX_DRIVERS {
            refused.keep(DriverId::new(), vec![fix]);
        }
        refused.keep(one, vec![fix, fix]);
        assert_eq!(lock(&refused.by_driver).len(), 1);
        assert_eq!((refused.take(one).len(), refused.take(one).len()), (2, 0));
    }
}
