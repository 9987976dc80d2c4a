//! The drivers near a place: from Redis while it is trusted, from PostgreSQL otherwise.

use std::collections::HashSet;

use crate::config::Config;
use crate::dispatch::search::{self, Reach};
use crate::domain::ids::DriverId;
use crate::domain::position::Position;
use crate::domain::ranking::Candidate;
use crate::presence::Presence;
use crate::store::{Database, StoreError};

/// Finds the nearest drivers who can be assigned an order.
#[derive(Clone)]
pub struct CandidateSource {
    database: Database,
    presence: Presence,
    reach: Reach,
}

impl CandidateSource {
    /// Searches as far as the configuration says.
    pub fn new(config: &Config, database: Database, presence: Presence) -> Self {
        let reach = Reach {
            max_radius_m: config.assignment.search_max_radius_m,
            seen_within_s: config.heartbeat.ttl.as_secs_f64(),
            fix_within_s: config.heartbeat.position_max_age.as_secs_f64(),
        };
        Self { database, presence, reach }
    }

    /// How far from its pickup an order looks for a driver, in metres.
    pub fn max_radius_m(&self) -> f64 {
        self.reach.max_radius_m
    }

    /// The `wanted` nearest drivers within `max_radius_m` metres, nearest first. With `look_twice`, PostgreSQL is read as
    /// well when Redis finds nobody, so that a gap in Redis starves no order.
    #[tracing::instrument(level = "trace", skip_all)]
    pub async fn nearest(
        &self,
        pickup: &Position,
        wanted: usize,
        excluded: &HashSet<DriverId>,
        max_radius_m: f64,
        look_twice: bool,
    ) -> Result<Vec<Candidate>, StoreError> {
        // When Redis fails, `presence` notes and logs it.
        if let Ok(found) = self.presence.nearest(pickup, wanted, excluded, max_radius_m).await
            && (!found.is_empty() || !look_twice)
        {
            return Ok(found);
        }
        let pickup = *pickup;
        let reach = Reach { max_radius_m, ..self.reach.clone() };
        let excluded: Vec<DriverId> = excluded.iter().copied().collect();
        self.database
            .transact(move |conn| {
                Box::pin(async move { search::nearest(conn, &pickup, &reach, &excluded, wanted).await })
            })
            .await
    }
}
