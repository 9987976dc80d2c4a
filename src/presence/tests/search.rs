//! The nearest drivers, compared with an exhaustive search.

use std::collections::HashSet;
use std::time::Duration;

use super::server::TestRedis;
use super::*;
use crate::domain::ranking::{Candidate, rank};
use crate::presence::{PresenceError, PresenceSettings};

/// Drivers at these positions, all AVAILABLE and online with a fix.
async fn fleet(presence: &Presence, positions: &[Position]) -> Vec<Heartbeat> {
    let beats: Vec<_> = positions.iter().map(|position| beat(DriverId::new(), *position)).collect();
    presence.heartbeats(&beats).await.unwrap();
    let changes: Vec<_> = beats.iter().map(|beat| change(beat.driver_id, DriverStatus::Available, 1)).collect();
    presence.transition(&changes).await.unwrap();
    beats
}

/// The expected answer, from the distance of every driver.
fn oracle(
    beats: &[Heartbeat],
    pickup: &Position,
    wanted: usize,
    excluded: &HashSet<DriverId>,
    max_m: f64,
) -> Vec<DriverId> {
    let mut all: Vec<Candidate> = beats
        .iter()
        .filter(|beat| !excluded.contains(&beat.driver_id))
        .map(|beat| Candidate::new(beat.driver_id, beat.fix.unwrap(), pickup))
        .filter(|candidate| candidate.distance_m <= max_m)
        .collect();
    rank(&mut all);
    all.into_iter().take(wanted).map(|candidate| candidate.driver_id).collect()
}

async fn found(presence: &Presence, pickup: &Position, wanted: usize, max_m: f64) -> Vec<DriverId> {
    let candidates = presence.nearest(pickup, wanted, &HashSet::new(), max_m).await.unwrap();
    candidates.into_iter().map(|candidate| candidate.driver_id).collect()
}

fn scattered(centre: Position, spread_deg: f64, count: usize) -> Vec<Position> {
    (0..count)
        .map(|_| {
            let lat = centre.lat() + rand::random_range(-spread_deg..spread_deg);
            let lon = centre.lon() + rand::random_range(-spread_deg..spread_deg);
            at(lat.clamp(-85.05, 85.05), (lon + 540.0).rem_euclid(360.0) - 180.0)
        })
        .collect()
}

#[tokio::test]
async fn nearest_is_what_measuring_everybody_says_also_at_the_date_line_and_far_north() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let centres = [at(12.97, 77.59), at(0.0, 180.0), at(-16.8, -179.99), at(70.0, 25.0), at(84.9, 0.0), at(0.0, 0.0)];
    let mut beats = Vec::new();
    for centre in centres {
        beats.extend(fleet(&presence, &scattered(centre, 0.1, 300)).await);
    }
    for centre in centres {
        for pickup in scattered(centre, 0.12, 25) {
            for (wanted, max_m) in [(1, 10_000.0), (10, 10_000.0), (40, 3_000.0), (5, 60.0), (10, 60_000.0)] {
                let excluded: HashSet<_> = oracle(&beats, &pickup, 2, &HashSet::new(), 2_000.0).into_iter().collect();
                for excluded in [HashSet::new(), excluded] {
                    let expected = oracle(&beats, &pickup, wanted, &excluded, max_m);
                    let candidates = presence.nearest(&pickup, wanted, &excluded, max_m).await.unwrap();
                    let got: Vec<_> = candidates.iter().map(|candidate| candidate.driver_id).collect();
                    assert_eq!(got, expected, "{pickup:?} wanted {wanted} max {max_m}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_crowd_at_one_door_is_ranked_by_id_and_hides_nobody() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let door = at(12.97, 77.59);
    let crowd = fleet(&presence, &[door; 300]).await;
    assert_eq!(found(&presence, &door, 3, 1_000.0).await, oracle(&crowd, &door, 3, &HashSet::new(), 1_000.0));
    // All but one of the crowd are excluded. The search finds that one, then the driver across the street.
    let across = fleet(&presence, &[at(12.9703, 77.59)]).await[0].driver_id;
    let excluded: HashSet<_> = crowd[1..].iter().map(|beat| beat.driver_id).collect();
    let got = presence.nearest(&door, 5, &excluded, 1_000.0).await.unwrap();
    assert_eq!(got.iter().map(|candidate| candidate.driver_id).collect::<Vec<_>>(), [crowd[0].driver_id, across]);
}

#[tokio::test]
async fn ghosts_of_the_offline_never_hide_the_living() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let here = at(12.97, 77.59);
    let stale_members = fleet(&presence, &[here; 200]).await;
    for ghost in &stale_members {
        redis.query::<()>(&format!("DEL driver:online:{}", ghost.driver_id)).await;
    }
    let alive = fleet(&presence, &[at(12.9702, 77.59)]).await[0].driver_id;
    assert_eq!(found(&presence, &here, 1, 5_000.0).await, [alive]);
}

#[tokio::test]
async fn only_fresh_positions_count_and_exactly_where_they_are() {
    let redis = TestRedis::start();
    let settings = PresenceSettings { position_max_age: Duration::from_secs(60), ..redis.settings() };
    let presence = Presence::new(settings).unwrap();
    rebuild(&presence, &[]).await;
    let here = at(12.97, 77.59);
    let beats = fleet(&presence, &[here, here]).await;
    let old = Fix { time: ago(61_000), ..beats[0].fix.unwrap() };
    presence.heartbeats(&[Heartbeat { fix: Some(old), ..beats[0] }]).await.unwrap();
    assert_eq!(found(&presence, &here, 5, 1_000.0).await, [beats[1].driver_id]);
    let candidate = presence.nearest(&here, 1, &HashSet::new(), 1_000.0).await.unwrap()[0];
    assert_eq!((candidate.distance_m, candidate.fix.position), (0.0, here));
    assert_eq!(found(&presence, &at(13.5, 77.59), 5, 1_000.0).await, [], "nobody is an answer");
    assert_eq!(found(&presence, &here, 0, 1_000.0).await, []);
    assert_eq!(found(&presence, &here, 1, f64::NAN).await, []);
}

#[tokio::test]
async fn a_flush_is_cold_never_nobody() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let driver = available(&presence, at(1.0, 1.0)).await;
    assert_eq!(found(&presence, &at(1.0, 1.0), 1, 100.0).await, [driver]);
    redis.query::<()>("FLUSHALL").await;
    let answer = presence.nearest(&at(1.0, 1.0), 1, &HashSet::new(), 100.0).await;
    assert!(matches!(answer, Err(PresenceError::Cold)), "{answer:?}");
    assert!(matches!(presence.online(&[driver]).await, Err(PresenceError::Cold)));
}
