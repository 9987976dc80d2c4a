//! Finds the nearest available drivers in PostgreSQL, for the time in which Redis is down or not trusted.
//!
//! The search uses boxes that grow until enough drivers are found. A box also holds drivers in its corners, who may be farther
//! away than drivers outside it. So a result counts only within the circle that fits into the box.

use sqlx::PgConnection;

use crate::domain::ids::DriverId;
use crate::domain::position::Position;
use crate::domain::ranking::{Candidate, rank};
use crate::store::StoreError;
use crate::store::positions::{self, BoxSearch};

/// Half the width of the first box, in metres.
const FIRST_RADIUS_M: f64 = 300.0;

/// The limits of a search.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The largest distance to the pickup, in metres.
    pub max_radius_m: f64,
    /// The largest age of the driver's last heartbeat, in seconds.
    pub seen_within_s: f64,
    /// The largest age of the driver's fix, in seconds.
    pub fix_within_s: f64,
}

/// The `wanted` nearest drivers who can be assigned an order at `pickup`, nearest first.
pub async fn nearest(
    conn: &mut PgConnection,
    pickup: &Position,
    reach: &Reach,
    excluded: &[DriverId],
    wanted: usize,
) -> Result<Vec<Candidate>, StoreError> {
    let mut radius_m = FIRST_RADIUS_M.min(reach.max_radius_m);
    loop {
        let mut found = Vec::new();
        for area in pickup.boxes_around(radius_m) {
            let search = BoxSearch {
                centre: *pickup,
                area,
                seen_within_s: reach.seen_within_s,
                fix_within_s: reach.fix_within_s,
                excluded,
                limit: wanted as i64,
            };
            let rows = positions::available_in_box(&mut *conn, &search).await?;
            found.extend(rows.into_iter().map(|(id, fix)| Candidate::new(id, fix, pickup)));
        }
        found.retain(|candidate| candidate.distance_m <= radius_m);
        rank(&mut found);
        found.truncate(wanted);
        if found.len() >= wanted || radius_m >= reach.max_radius_m {
            return Ok(found);
        }
        radius_m = (radius_m * 3.0).min(reach.max_radius_m);
    }
}
