//! Who is near: Redis when it answers and is believed, PostgreSQL when it is not.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Config;
use crate::dispatch::search::{self, Reach};
use crate::domain::ids::DriverId;
use crate::domain::position::Position;
use crate::domain::ranking::Candidate;
use crate::presence::Presence;
use crate::store::{Database, StoreError};

/// Finds the nearest drivers who would be given an order.
#[derive(Clone)]
pub struct Finder {
    database: Database,
    presence: Presence,
    reach: Reach,
    degraded: Arc<AtomicBool>,
}

impl Finder {
    /// Looks as far as the configuration says.
    pub fn new(config: &Config, database: Database, presence: Presence) -> Self {
        let reach = Reach {
            max_radius_m: config.assignment.search_max_radius_m,
            seen_within_s: config.heartbeat.ttl.as_secs_f64(),
            fix_within_s: config.heartbeat.position_max_age.as_secs_f64(),
        };
        Self { database, presence, reach, degraded: Arc::new(AtomicBool::new(false)) }
    }

    /// How far an order looks, in metres.
    pub fn max_radius_m(&self) -> f64 {
        self.reach.max_radius_m
    }

    /// The `wanted` nearest, nearest first, not beyond `max_radius_m` metres. With `look_twice`, PostgreSQL is asked as well
    /// where Redis names nobody, so that a hole in Redis starves no order.
    pub async fn nearest(
        &self,
        pickup: &Position,
        wanted: usize,
        excluded: &HashSet<DriverId>,
        max_radius_m: f64,
        look_twice: bool,
    ) -> Result<Vec<Candidate>, StoreError> {
        match self.presence.nearest(pickup, wanted, excluded, max_radius_m).await {
            Ok(found) => {
                self.note(None);
                if !found.is_empty() || !look_twice {
                    return Ok(found);
                }
            }
            Err(error) => self.note(Some(&error)),
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

    /// Whether Redis was last seen out or not to be believed.
    pub fn is_degraded(&self) -> bool {
        self.degraded.load(Ordering::Relaxed)
    }

    /// Notes what was seen of Redis, and logs the change from one source to the other, once.
    pub fn note(&self, outage: Option<&dyn Display>) {
        if self.degraded.swap(outage.is_some(), Ordering::Relaxed) == outage.is_some() {
            return;
        }
        match outage {
            Some(why) => {
                tracing::warn!(%why, "searching in PostgreSQL: Redis does not answer or is not to be believed");
            }
            None => tracing::info!("searching in Redis again"),
        }
    }
}
