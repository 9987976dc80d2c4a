//! The nearest driver when Redis is out or not to be believed: PostgreSQL's own eyes, in growing boxes.

use sqlx::PgConnection;

use crate::domain::ids::DriverId;
use crate::domain::position::Position;
use crate::domain::ranking::{Candidate, rank};
use crate::store::StoreError;
use crate::store::positions::{self, BoxSearch};

/// The first box's half width, in metres.
const FIRST_RADIUS_M: f64 = 300.0;

/// How far to look, and who counts.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Not beyond this, in metres.
    pub max_radius_m: f64,
    /// Heard of within so many seconds.
    pub seen_within_s: f64,
    /// With a fix not older than so many seconds.
    pub fix_within_s: f64,
}

/// The `wanted` nearest drivers who would be given an order at `pickup`, nearest first. A box is believed only as far as
/// the circle that fits into it.
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
