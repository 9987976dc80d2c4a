//! Regions are H3 cells. They divide the work of assignment.
//!
//! - An order belongs to the region of its pickup.
//! - On each node, one coordinator handles the orders of a region.

use h3o::{CellIndex, LatLng, Resolution};

use super::position::Position;

/// An H3 cell, stored as PostgreSQL `bigint`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Region(CellIndex);

/// A number that is not an H3 cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an H3 cell")]
pub struct NotARegion(pub i64);

impl Region {
    /// Returns the cell of `position` at `resolution`.
    pub fn of(position: &Position, resolution: Resolution) -> Self {
        let point = LatLng::new(position.lat(), position.lon()).expect("a Position is finite");
        Self(point.to_cell(resolution))
    }

    /// The value that the database stores.
    pub fn as_i64(self) -> i64 {
        u64::from(self.0) as i64
    }

    /// Reads a value of the database. Every resolution is accepted.
    pub fn from_i64(value: i64) -> Result<Self, NotARegion> {
        CellIndex::try_from(value as u64).map(Self).map_err(|_| NotARegion(value))
    }
}

impl std::fmt::Display for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_position_has_one_region_that_reads_back(lat in -85.0f64..85.0, lon in -180.0f64..180.0) {
            let region = Region::of(&Position::new(lat, lon).unwrap(), Resolution::Five);
            prop_assert_eq!(Region::from_i64(region.as_i64()), Ok(region));
        }
    }

    #[test]
    fn a_number_that_is_no_cell_is_refused() {
        assert_eq!(Region::from_i64(7), Err(NotARegion(7)));
    }
}
