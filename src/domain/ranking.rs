//! Ranks the candidates for an order: the nearest driver first.
//!
//! Equal distances are ordered by driver id, so that every node gets the same order.

use std::cmp::Ordering;

use super::ids::DriverId;
use super::position::{Fix, Position};

/// A driver who can be assigned the order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The driver.
    pub driver_id: DriverId,
    /// The driver's last fix.
    pub fix: Fix,
    /// Great-circle distance to the pickup, in metres.
    pub distance_m: f64,
}

impl Candidate {
    /// Creates a candidate with the distance from `fix` to `pickup`.
    pub fn new(driver_id: DriverId, fix: Fix, pickup: &Position) -> Self {
        Self { driver_id, fix, distance_m: fix.position.distance_m(pickup) }
    }

    fn order(&self, other: &Self) -> Ordering {
        self.distance_m.total_cmp(&other.distance_m).then(self.driver_id.cmp(&other.driver_id))
    }
}

/// Sorts candidates by distance, nearest first. Equal distances are sorted by driver id.
pub fn rank(candidates: &mut [Candidate]) {
    candidates.sort_by(Candidate::order);
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranking_ignores_the_order_it_was_given(lons in prop::collection::vec(-5i32..5, 1..20), seed in any::<u64>()) {
            let pickup = Position::new(0.0, 0.0).unwrap();
            let mut first: Vec<_> = lons.iter().enumerate().map(|(n, lon)| {
                let fix = Fix { position: Position::new(0.0, f64::from(*lon)).unwrap(), time: DateTime::UNIX_EPOCH };
                Candidate::new(DriverId(uuid::Uuid::from_u128(n as u128)), fix, &pickup)
            }).collect();
            let mut second = first.clone();
            second.sort_by_key(|c| c.driver_id.0.as_u128() as u64 ^ seed);
            rank(&mut first);
            rank(&mut second);
            prop_assert_eq!(&first, &second);
            prop_assert!(first.windows(2).all(|w| w[0].distance_m <= w[1].distance_m));
        }
    }
}
