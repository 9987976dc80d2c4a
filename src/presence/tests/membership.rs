//! `drivers:geo` has the right members, in whatever order heartbeats and transitions arrive.

use std::collections::{HashMap, HashSet};

use rand::seq::SliceRandom;

use super::server::TestRedis;
use super::*;
use crate::presence::keys::Keys;
use crate::presence::{JoinOutcome, PresenceSettings, SweepReport, TransitionOutcome};

const IN: TransitionOutcome = TransitionOutcome::Applied { in_geo: true };
const OUT: TransitionOutcome = TransitionOutcome::Applied { in_geo: false };

async fn members(redis: &TestRedis) -> HashSet<String> {
    redis.query::<Vec<String>>("ZRANGE drivers:geo 0 -1").await.into_iter().collect()
}

#[tokio::test]
async fn epochs_fence_and_an_equal_one_heals() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let driver = DriverId::new();
    let here = beat(driver, at(12.0, 77.0));
    presence.heartbeats(&[here]).await.unwrap();
    let apply = async |status, epoch| presence.transition(&[change(driver, status, epoch)]).await.unwrap()[0];
    assert_eq!(apply(DriverStatus::Available, 9).await, IN);
    assert_eq!(apply(DriverStatus::Busy, 8).await, TransitionOutcome::Stale);
    // Epochs compare as numbers, not as text.
    assert_eq!(apply(DriverStatus::Busy, 10).await, OUT);
    assert_eq!(apply(DriverStatus::Available, 9).await, TransitionOutcome::Stale);
    assert_eq!(redis.query::<String>(&format!("HGET drivers:status {driver}")).await, "BUSY:10");
    assert_eq!(apply(DriverStatus::Available, 1 << 53).await, IN);
    redis.query::<()>(&format!("ZREM drivers:geo driver:{driver}")).await;
    assert_eq!(apply(DriverStatus::Available, 1 << 53).await, IN);
    assert_eq!(members(&redis).await.len(), 1);
    assert_eq!(redis.query::<i64>("ZCARD drivers:expiry").await, 1);
    assert_eq!(apply(DriverStatus::Offline, (1 << 53) + 2).await, OUT);
    assert_eq!(redis.query::<i64>("ZCARD drivers:expiry").await, 0);
}

#[tokio::test]
async fn available_without_a_position_is_added_by_the_join_that_follows() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let driver = DriverId::new();
    assert_eq!(presence.join(&[driver]).await.unwrap(), [JoinOutcome::UnknownStatus]);
    assert_eq!(presence.transition(&[change(driver, DriverStatus::Available, 1)]).await.unwrap(), [OUT]);
    assert_eq!(presence.join(&[driver]).await.unwrap(), [JoinOutcome::NoPosition]);
    let here = beat(driver, at(12.0, 77.0));
    presence.heartbeats(&[Heartbeat { fix: None, ..here }]).await.unwrap();
    assert_eq!(presence.join(&[driver]).await.unwrap(), [JoinOutcome::NoPosition]);
    assert_eq!(presence.heartbeats(&[here]).await.unwrap(), [true]);
    assert_eq!(presence.join(&[driver]).await.unwrap(), [JoinOutcome::Joined]);
    presence.transition(&[change(driver, DriverStatus::Busy, 2)]).await.unwrap();
    assert_eq!(presence.join(&[driver]).await.unwrap(), [JoinOutcome::NotAvailable]);
    assert!(members(&redis).await.is_empty());
}

#[tokio::test]
async fn text_that_is_not_ours_is_no_position_and_breaks_no_batch() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let (odd, good) = (DriverId::new(), DriverId::new());
    for text in ["x", "a,b,c,1,1", "95,0,1,1,1", "nan,0,1,1,1", "1,inf,1,1,1"] {
        redis.query::<()>(&format!("SET driver:online:{odd} {text}")).await;
        presence.heartbeats(&[beat(good, at(1.0, 1.0))]).await.unwrap();
        let both = [change(odd, DriverStatus::Available, 1), change(good, DriverStatus::Available, 1)];
        assert_eq!(presence.transition(&both).await.unwrap(), [OUT, IN], "{text}");
        assert_eq!(presence.online(&[odd]).await.unwrap(), [None]);
    }
}

#[tokio::test]
async fn a_sweep_keeps_the_living_and_removes_the_expired() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let (alive, dead) = (available(&presence, at(1.0, 1.0)).await, available(&presence, at(1.0, 1.0)).await);
    assert_eq!(presence.sweep(100).await.unwrap(), SweepReport::default(), "nothing is due");
    redis.query::<()>(&format!("ZADD drivers:expiry 1 driver:{alive} 1 driver:{dead} 1 stranger")).await;
    redis.query::<()>(&format!("DEL driver:online:{dead}")).await;
    assert_eq!(presence.sweep(100).await.unwrap(), SweepReport { removed: 2, kept: 1 });
    assert_eq!(members(&redis).await, HashSet::from([format!("driver:{alive}")]));
    assert_eq!(presence.sweep(100).await.unwrap(), SweepReport::default(), "the living are scored anew");
    assert_eq!(redis.query::<i64>("ZCARD drivers:expiry").await, 1);
}

#[tokio::test]
async fn a_sweep_goes_on_until_nothing_is_due_and_not_beyond_its_limit() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let members: Vec<String> = (0..2500).map(|_| format!("1 driver:{}", DriverId::new())).collect();
    redis.query::<()>(&format!("ZADD drivers:expiry {}", members.join(" "))).await;
    assert_eq!(presence.sweep(1200).await.unwrap(), SweepReport { removed: 1200, kept: 0 });
    assert_eq!(presence.sweep(20_000).await.unwrap(), SweepReport { removed: 1300, kept: 0 });
    assert_eq!(redis.query::<i64>("ZCARD drivers:expiry").await, 0);
}

#[tokio::test]
async fn a_driver_who_was_silent_comes_back_by_a_heartbeat() {
    let redis = TestRedis::start();
    let settings = PresenceSettings { ttl: std::time::Duration::from_millis(150), ..redis.settings() };
    let presence = Presence::new(settings).unwrap();
    let driver = available(&presence, at(1.0, 1.0)).await;
    while presence.sweep(10).await.unwrap().removed == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(members(&redis).await.is_empty());
    assert_eq!(presence.heartbeats(&[beat(driver, at(1.0, 1.0))]).await.unwrap(), [true]);
    assert_eq!(presence.join(&[driver]).await.unwrap(), [JoinOutcome::Joined]);
}

/// Two nodes send heartbeats and joins concurrently with transitions that arrive twice and in any order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn races_of_heartbeats_and_shuffled_transitions_leave_no_ghosts() {
    const DRIVERS: usize = 40;
    const EPOCHS: i64 = 25;
    let redis = TestRedis::start();
    let nodes = [redis.presence(), redis.presence()];
    let drivers: Vec<DriverId> = (0..DRIVERS).map(|_| DriverId::new()).collect();
    let status_at = |driver: usize, epoch: i64| match (driver as i64 + epoch) % 3 {
        0 => DriverStatus::Available,
        1 => DriverStatus::Busy,
        _ => DriverStatus::Offline,
    };
    let mut changes: Vec<StatusChange> = (0..DRIVERS)
        .flat_map(|n| (1..=EPOCHS).map(move |epoch| (n, epoch)))
        .map(|(n, epoch)| change(drivers[n], status_at(n, epoch), epoch))
        .collect();
    changes.extend(changes.clone());
    changes.shuffle(&mut rand::rng());

    let mut tasks = tokio::task::JoinSet::new();
    for (n, part) in changes.chunks(changes.len() / 4 + 1).enumerate() {
        let (node, part) = (nodes[n % 2].clone(), part.to_vec());
        tasks.spawn(async move {
            for few in part.chunks(5) {
                node.transition(few).await.unwrap();
            }
        });
    }
    for n in 0..4 {
        let (node, drivers) = (nodes[n % 2].clone(), drivers.clone());
        tasks.spawn(async move {
            for round in 0..60 {
                let position = at(12.0 + f64::from(round) / 1_000.0, 77.0);
                let beats: Vec<_> = drivers.iter().map(|driver| beat(*driver, position)).collect();
                node.heartbeats(&beats).await.unwrap();
                node.join(&drivers[round as usize % 30..][..10]).await.unwrap();
                node.sweep(10).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }

    let statuses: HashMap<String, String> = redis.query("HGETALL drivers:status").await;
    let mut expected = HashSet::new();
    for (n, driver) in drivers.iter().enumerate() {
        let last = status_at(n, EPOCHS);
        assert_eq!(statuses[&driver.to_string()], format!("{last}:{EPOCHS}"));
        if last == DriverStatus::Available {
            expected.insert(format!("driver:{driver}"));
        }
    }
    assert_eq!(members(&redis).await, expected);
    let due: HashSet<String> = redis.query("ZRANGE drivers:expiry 0 -1").await;
    assert_eq!(due, expected);
}

#[tokio::test]
async fn every_key_bears_the_prefix_and_two_prefixes_never_meet() {
    let redis = TestRedis::start();
    let east = Presence::new(PresenceSettings { key_prefix: "east:".to_owned(), ..redis.settings() }).unwrap();
    let west = Presence::new(PresenceSettings { key_prefix: "west:".to_owned(), ..redis.settings() }).unwrap();
    rebuild(&east, &[]).await;
    rebuild(&west, &[]).await;
    let driver = available(&east, at(1.0, 1.0)).await;
    assert_eq!(west.nearest(&at(1.0, 1.0), 1, &HashSet::new(), 100.0).await.unwrap(), []);
    assert_eq!(east.nearest(&at(1.0, 1.0), 1, &HashSet::new(), 100.0).await.unwrap()[0].driver_id, driver);
    let names: Vec<String> = redis.query("KEYS *").await;
    assert!(names.contains(&Keys::new("east:").online(driver)));
    assert!(names.iter().all(|name| name.starts_with("east:") || name.starts_with("west:")), "{names:?}");
}
