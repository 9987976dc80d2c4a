//! Drift is found and repaired. A newer epoch is never overwritten.

use std::collections::BTreeSet;

use super::server::TestRedis;
use super::*;
use crate::presence::{Expected, Repaired};

fn expected(driver_id: DriverId, status: DriverStatus, epoch: i64) -> Expected {
    Expected { change: change(driver_id, status, epoch), must_be_known: true, must_be_found: true }
}

fn repaired(status: bool, membership: bool) -> Repaired {
    Repaired::Repairs { status, membership }
}

async fn geo(redis: &TestRedis) -> Vec<String> {
    redis.query("ZRANGE drivers:geo 0 -1").await
}

#[tokio::test]
async fn what_differs_is_mended_and_told_and_what_does_not_is_left() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let driver = available(&presence, at(1.0, 1.0)).await;
    let repair = async |status, epoch| presence.repair(&[expected(driver, status, epoch)]).await.unwrap()[0];
    assert_eq!(repair(DriverStatus::Available, 1).await, Repaired::Equal);
    redis.query::<()>(&format!("HDEL drivers:status {driver}")).await;
    assert_eq!(repair(DriverStatus::Available, 1).await, repaired(true, false));
    redis.query::<()>(&format!("ZREM drivers:geo driver:{driver}")).await;
    let first_look = Expected { must_be_found: false, ..expected(driver, DriverStatus::Available, 1) };
    redis.query::<()>(&format!("HDEL drivers:status {driver}")).await;
    for status in [true, false] {
        assert_eq!(
            presence.repair(&[first_look]).await.unwrap(),
            [Repaired::Absent { status }],
            "may be joining just now"
        );
        assert!(geo(&redis).await.is_empty());
    }
    assert_eq!(repair(DriverStatus::Available, 1).await, repaired(false, true));
    redis.query::<()>(&format!("ZREM drivers:expiry driver:{driver}")).await;
    assert_eq!(repair(DriverStatus::Available, 1).await, repaired(false, true), "nobody would sweep it");
    redis.query::<()>(&format!("HSET drivers:status {driver} AVAILABLE:1x")).await;
    assert_eq!(repair(DriverStatus::Available, 1).await, repaired(true, false));
    assert_eq!(repair(DriverStatus::Busy, 2).await, repaired(true, true));
    assert_eq!(repair(DriverStatus::Busy, 2).await, Repaired::Equal);
    assert!(geo(&redis).await.is_empty());
    redis.query::<()>(&format!("GEOADD drivers:geo 1 1 driver:{driver}")).await;
    assert_eq!(repair(DriverStatus::Busy, 2).await, repaired(false, true));
    assert!(geo(&redis).await.is_empty());

    // A member that expired and was not swept yet is not drift.
    assert_eq!(repair(DriverStatus::Available, 3).await, repaired(true, true));
    redis.query::<()>(&format!("DEL driver:online:{driver}")).await;
    assert_eq!(repair(DriverStatus::Available, 3).await, Repaired::Equal);
    assert!(geo(&redis).await.is_empty());

    let unheard = Expected { must_be_known: false, ..expected(DriverId::new(), DriverStatus::Offline, 4) };
    assert_eq!(presence.repair(&[unheard]).await.unwrap(), [Repaired::Equal]);
    redis.query::<()>(&format!("GEOADD drivers:geo 1 1 driver:{}", unheard.change.driver_id)).await;
    assert_eq!(
        presence.repair(&[unheard]).await.unwrap(),
        [repaired(false, true)],
        "a ghost of whom nothing else is known"
    );
    assert!(geo(&redis).await.is_empty());
    assert_eq!(redis.query::<i64>("HLEN drivers:status").await, 1, "of an OFFLINE driver nothing need be known");
}

#[tokio::test]
async fn a_newer_epoch_is_told_and_only_the_very_one_that_was_seen_is_corrected() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let driver = available(&presence, at(1.0, 1.0)).await;
    presence.transition(&[change(driver, DriverStatus::Busy, 9)]).await.unwrap();
    let true_state = change(driver, DriverStatus::Available, 3);
    let seen = presence.repair(&[expected(driver, DriverStatus::Available, 3)]).await.unwrap();
    assert_eq!(seen, [Repaired::Newer(9)]);
    assert_eq!(presence.correct(&[(true_state, 8)]).await.unwrap(), 0, "something else stands there by now");
    assert_eq!(redis.query::<String>(&format!("HGET drivers:status {driver}")).await, "BUSY:9");
    assert_eq!(presence.correct(&[(true_state, 9)]).await.unwrap(), 1);
    assert_eq!(redis.query::<String>(&format!("HGET drivers:status {driver}")).await, "AVAILABLE:3");
    assert_eq!(geo(&redis).await, [format!("driver:{driver}")]);
}

#[tokio::test]
async fn an_epoch_that_cannot_be_is_mended_as_any_other_text() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let driver = available(&presence, at(1.0, 1.0)).await;
    redis.query::<()>(&format!("HSET drivers:status {driver} BUSY:99999999999999999999")).await;
    let seen = presence.repair(&[expected(driver, DriverStatus::Available, 3)]).await.unwrap();
    assert_eq!(seen, [repaired(true, false)]);
    assert_eq!(redis.query::<String>(&format!("HGET drivers:status {driver}")).await, "AVAILABLE:3");
}

#[tokio::test]
async fn members_are_read_in_pages_and_strangers_are_expelled() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let mut all = BTreeSet::new();
    for _ in 0..5 {
        all.insert(available(&presence, at(1.0, 1.0)).await);
    }
    let names: Vec<String> = (0..700).map(|n| format!("1 1 x{n}")).collect();
    redis.query::<()>(&format!("GEOADD drivers:geo {}", names.join(" "))).await;
    let (mut drivers, mut unknown_members, mut cursor, mut pages) = (BTreeSet::new(), BTreeSet::new(), 0, 0);
    loop {
        let page = presence.members(cursor).await.unwrap();
        drivers.extend(page.drivers);
        unknown_members.extend(page.unknown_members);
        (cursor, pages) = (page.cursor, pages + 1);
        if cursor == 0 {
            break;
        }
    }
    assert!(
        pages > 1 && drivers == all && unknown_members.len() == 700,
        "{pages} pages, {} unknown_members",
        unknown_members.len()
    );
    let out = *all.first().unwrap();
    presence.expel(&[out], &unknown_members.into_iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(redis.query::<i64>("ZCARD drivers:geo").await, 4);
    assert_eq!(redis.query::<i64>("ZCARD drivers:expiry").await, 4);
}

#[tokio::test]
async fn what_redis_holds_is_read_whole_or_of_some_and_cold_or_not() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let here = available(&presence, at(1.0, 1.0)).await;
    let nowhere = DriverId::new();
    let beat = Heartbeat { driver_id: nowhere, fix: None, ..beat(here, at(1.0, 1.0)) };
    presence.heartbeats(&[beat]).await.unwrap();
    presence.transition(&[change(nowhere, DriverStatus::Available, 2)]).await.unwrap();
    redis.query::<()>("HSET drivers:status me x").await;
    let mut whole = presence.contents().await.unwrap();
    assert_eq!(whole.unknown_members, BTreeSet::from(["me".to_owned()]));
    presence.read_online_into(&mut whole, &[here, nowhere, DriverId::new()]).await.unwrap();
    whole.unknown_members.clear();
    assert_eq!(whole, presence.contents_of(&[here, nowhere]).await.unwrap());
    assert_eq!(whole.online, [(here, true), (nowhere, false)].into());
    assert_eq!(whole.members, [here].into());

    let overview = presence.overview().await.unwrap();
    assert!(overview.eviction_policy.as_deref() == Some("noeviction") && overview.used_memory > Some(0));
    assert_eq!((overview.generation, overview.expected_generation), (None, None));
    rebuild(&presence, &[]).await;
    let overview = presence.overview().await.unwrap();
    assert!(overview.generation.is_some() && overview.generation == overview.expected_generation);
    assert!(!overview.is_rebuilding);
}
