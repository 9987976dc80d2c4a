//! Finds the nearest drivers by circles that grow until the answer is certain.
//!
//! A fixed circle over a city costs Redis hundreds of times as much as a circle of 150 m.
//!
//! Invariants: `drivers:geo` only proposes members. Whether a driver is online, and the exact position, is read from the
//! online key. The distance is computed from that position.
//!
//! Must not: decide who gets an order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::connection::Connection;
use super::keys::driver_of;
use super::online::OnlineValue;
use super::{Inner, Presence, PresenceError};
use crate::domain::ids::DriverId;
use crate::domain::position::{Fix, Position};
use crate::domain::ranking::{Candidate, rank};

/// The radius of the first circle.
const FIRST_RING_M: f64 = 150.0;

/// The largest error of a distance that GEO returns. GEO stores positions with a precision of 0.6 m.
const GEO_ERROR_M: f64 = 1.0;

/// The most members that one circle returns.
const MAX_COUNT: usize = 4_096;

/// Extra members requested beyond the wanted number, because some of the nearest may have just gone offline.
const SPARE: usize = 6;

impl Presence {
    /// Returns up to `wanted` candidates for an order at `pickup`, nearest first. Excludes the drivers in `excluded` and those
    /// farther than `max_radius_m` metres. An empty answer means that there is no candidate. [`PresenceError::Cold`] means that
    /// the data in Redis is not complete.
    pub async fn nearest(
        &self,
        pickup: &Position,
        wanted: usize,
        excluded: &HashSet<DriverId>,
        max_radius_m: f64,
    ) -> Result<Vec<Candidate>, PresenceError> {
        if wanted == 0 || max_radius_m.is_nan() || max_radius_m <= 0.0 {
            return Ok(Vec::new());
        }
        let work = |session: Arc<Connection>| async move {
            let search = Search {
                inner: &self.inner,
                session: &session,
                pickup,
                wanted: wanted.min(MAX_COUNT),
                excluded,
                max_radius_m,
                oldest_fix: oldest_fix(self.inner.position_max_age),
                seen: HashMap::new(),
            };
            search.run().await
        };
        let found = self.inner.link.run("nearest", work).await;
        match &found {
            Ok(_) => self.note_trusted(),
            Err(error) => self.note_distrusted(error),
        }
        found
    }
}

fn oldest_fix(max_age: Duration) -> DateTime<Utc> {
    let max_age = chrono::TimeDelta::from_std(max_age).unwrap_or(chrono::TimeDelta::MAX);
    Utc::now().checked_sub_signed(max_age).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

struct Search<'a> {
    inner: &'a Inner,
    session: &'a Connection,
    pickup: &'a Position,
    wanted: usize,
    excluded: &'a HashSet<DriverId>,
    max_radius_m: f64,
    oldest_fix: DateTime<Utc>,
    seen: HashMap<DriverId, Option<Candidate>>,
}

impl Search<'_> {
    async fn run(mut self) -> Result<Vec<Candidate>, PresenceError> {
        let mut ring_m = FIRST_RING_M.min(self.max_radius_m);
        let mut count = (self.wanted + self.excluded.len() + SPARE).min(MAX_COUNT);
        loop {
            let members = self.ring(ring_m + GEO_ERROR_M, count).await?;
            let candidates = self.eligible(&members).await?;
            let full = members.len() >= count;
            // There may be more members behind the last one of a full answer.
            let certain_m = match members.last() {
                Some((_, farthest_m)) if full => farthest_m - GEO_ERROR_M,
                _ => ring_m,
            };
            let certain = candidates.iter().filter(|candidate| candidate.distance_m <= certain_m).count();
            let exhausted = if full { count >= MAX_COUNT } else { ring_m >= self.max_radius_m };
            if certain >= self.wanted || exhausted {
                return Ok(self.best(candidates));
            }
            if full {
                count = (count * 2).min(MAX_COUNT);
            } else {
                let growth = if candidates.is_empty() { 3.0 } else { 2.0 };
                ring_m = (ring_m * growth).min(self.max_radius_m);
            }
        }
    }

    /// The members of a circle and their distance, nearest first.
    async fn ring(&self, radius_m: f64, count: usize) -> Result<Vec<(Vec<u8>, f64)>, PresenceError> {
        let mut command = redis::cmd("GEOSEARCH");
        command.arg(&self.inner.keys.geo).arg("FROMLONLAT").arg(self.pickup.lon()).arg(self.pickup.lat());
        command.arg("BYRADIUS").arg(radius_m).arg("m").arg("ASC").arg("COUNT").arg(count).arg("WITHDIST");
        self.inner.believed(self.session, command).await
    }

    /// The members that are candidates. A member that was read in a smaller circle is not read again.
    async fn eligible(&mut self, members: &[(Vec<u8>, f64)]) -> Result<Vec<Candidate>, PresenceError> {
        let drivers: Vec<DriverId> = members
            .iter()
            .filter_map(|(member, _)| driver_of(member))
            .filter(|driver| !self.excluded.contains(driver))
            .collect();
        let new: Vec<DriverId> = drivers.iter().copied().filter(|driver| !self.seen.contains_key(driver)).collect();
        if !new.is_empty() {
            let names: Vec<String> = new.iter().map(|driver| self.inner.keys.online(*driver)).collect();
            let values = self.inner.read_online(self.session, &names).await?;
            for (driver, value) in new.into_iter().zip(values) {
                let candidate = self.fresh_fix(value).map(|fix| Candidate::new(driver, fix, self.pickup));
                self.seen.insert(driver, candidate);
            }
        }
        let near = |candidate: &Candidate| candidate.distance_m <= self.max_radius_m;
        Ok(drivers.iter().filter_map(|driver| *self.seen.get(driver)?).filter(near).collect())
    }

    fn fresh_fix(&self, value: Option<OnlineValue>) -> Option<Fix> {
        value?.fix.filter(|fix| fix.time >= self.oldest_fix)
    }

    fn best(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        rank(&mut candidates);
        candidates.truncate(self.wanted);
        candidates
    }
}
