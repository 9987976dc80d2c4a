//! A heartbeat stores an online key and moves a member. It never adds a member.

use std::time::Duration;

use super::server::TestRedis;
use super::*;
use crate::presence::heartbeat::Stored as _;
use crate::presence::{OnlineValue, PresenceSettings};

#[tokio::test]
async fn a_heartbeat_renews_and_never_adds() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let driver = DriverId::new();
    assert_eq!(presence.heartbeats(&[beat(driver, at(12.0, 77.0))]).await.unwrap(), [true]);
    assert_eq!(presence.heartbeats(&[beat(driver, at(12.1, 77.0))]).await.unwrap(), [false]);
    assert_eq!(redis.query::<i64>("ZCARD drivers:geo").await, 0);
    let ttl_ms: i64 = redis.query(&format!("PTTL driver:online:{driver}")).await;
    assert!((1..=30_000).contains(&ttl_ms), "{ttl_ms}");
    let online = presence.online(&[driver, DriverId::new()]).await.unwrap();
    assert_eq!(online[0].unwrap().fix.unwrap().position, at(12.1, 77.0));
    assert_eq!(online[1], None);
}

#[tokio::test]
async fn a_heartbeat_moves_who_is_in() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let driver = available(&presence, at(12.0, 77.0)).await;
    presence.heartbeats(&[beat(driver, at(13.0, 78.0))]).await.unwrap();
    let found: Vec<String> = redis.query("GEOSEARCH drivers:geo FROMLONLAT 78 13 BYRADIUS 10 m ASC").await;
    assert_eq!(found, [format!("driver:{driver}")]);
}

#[tokio::test]
async fn a_new_session_or_a_first_position_makes_the_join_due() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let first = beat(DriverId::new(), at(12.0, 77.0));
    presence.heartbeats(&[first]).await.unwrap();
    assert_eq!(presence.heartbeats(&[Heartbeat { session_epoch: 2, ..first }]).await.unwrap(), [true]);
    let nowhere = Heartbeat { driver_id: DriverId::new(), fix: None, ..first };
    assert_eq!(presence.heartbeats(&[nowhere]).await.unwrap(), [true]);
    assert_eq!(presence.heartbeats(&[nowhere]).await.unwrap(), [false]);
    assert_eq!(presence.heartbeats(&[Heartbeat { fix: first.fix, ..nowhere }]).await.unwrap(), [true]);
}

#[tokio::test]
async fn a_replaced_session_leaves_nothing_behind() {
    let redis = TestRedis::start();
    let (new_node, old_node) = (redis.warm().await, redis.presence());
    let newer = Heartbeat { session_epoch: 2, received_at: ago(5_000), ..beat(DriverId::new(), at(12.0, 77.0)) };
    let driver = newer.driver_id;
    new_node.heartbeats(&[newer]).await.unwrap();
    new_node.transition(&[change(driver, DriverStatus::Available, 1)]).await.unwrap();
    let (stored, place) = (format!("GET driver:online:{driver}"), format!("GEOPOS drivers:geo driver:{driver}"));
    let before: (String, Vec<(f64, f64)>) = (redis.query(&stored).await, redis.query(&place).await);

    // Received later, at another position. Only its session is older. The other heartbeats of the batch are stored.
    let (older, other) =
        (Heartbeat { session_epoch: 1, ..beat(driver, at(13.0, 78.0)) }, beat(DriverId::new(), at(1.0, 1.0)));
    for older in [older, Heartbeat { fix: None, ..older }] {
        let due = old_node.heartbeats(&[older, Heartbeat { driver_id: DriverId::new(), ..other }]).await.unwrap();
        assert_eq!(due, [false, true], "who was replaced has nothing to join for");
        assert_eq!((redis.query(&stored).await, redis.query(&place).await), before);
        let ttl_ms: i64 = redis.query(&format!("PTTL driver:online:{driver}")).await;
        assert!((1..=25_000).contains(&ttl_ms), "counted from the newer session's heartbeat: {ttl_ms}");
    }
    let again = Heartbeat { received_at: Utc::now(), ..newer };
    assert_eq!(new_node.heartbeats(&[again]).await.unwrap(), [false], "nobody notices");
}

#[tokio::test]
async fn a_replaced_session_brings_nobody_back_into_geo() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let newer = Heartbeat { session_epoch: 2, ..beat(DriverId::new(), at(12.0, 77.0)) };
    presence.heartbeats(&[newer]).await.unwrap();
    presence.transition(&[change(newer.driver_id, DriverStatus::Busy, 1)]).await.unwrap();
    presence.heartbeats(&[Heartbeat { session_epoch: 1, ..newer }]).await.unwrap();
    assert_eq!(redis.query::<i64>("ZCARD drivers:geo").await, 0);
    assert_eq!(presence.online(&[newer.driver_id]).await.unwrap()[0].unwrap().session_epoch, 2);
}

#[tokio::test]
async fn two_sessions_at_once_leave_the_newer() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let driver = available(&presence, at(12.0, 77.0)).await;
    let of = |session_epoch, lat| Heartbeat { session_epoch, ..beat(driver, at(lat, 77.0)) };
    presence.heartbeats(&[of(2, 12.0)]).await.unwrap();
    for step in 0..100 {
        let lat = 12.0 + f64::from(step) / 1_000.0;
        let (newer, older) = ([of(2, lat)], [of(1, 50.0)]);
        let (new, old) = tokio::join!(presence.heartbeats(&newer), presence.heartbeats(&older));
        assert!(new.is_ok() && old.is_ok());
        let online = presence.online(&[driver]).await.unwrap()[0].unwrap();
        assert_eq!((online.session_epoch, online.fix.unwrap().position), (2, at(lat, 77.0)));
        let found: Vec<String> = redis.query(&format!("GEOSEARCH drivers:geo FROMLONLAT 77 {lat} BYRADIUS 5 m")).await;
        assert_eq!(found.len(), 1, "step {step}");
    }
}

#[tokio::test]
async fn a_heartbeat_without_coordinates_keeps_the_fix() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let placed = Heartbeat { received_at: ago(20_000), ..beat(DriverId::new(), at(12.0, 77.0)) };
    presence.heartbeats(&[placed]).await.unwrap();
    redis.query::<()>("SCRIPT FLUSH SYNC").await;
    let alive = Heartbeat { fix: None, received_at: Utc::now(), ..placed };
    assert_eq!(presence.heartbeats(&[alive, beat(DriverId::new(), at(1.0, 1.0))]).await.unwrap(), [false, true]);
    let OnlineValue { fix, received_at, .. } = presence.online(&[placed.driver_id]).await.unwrap()[0].unwrap();
    assert_eq!(fix.unwrap().position, at(12.0, 77.0));
    assert_eq!(received_at.timestamp_millis(), alive.received_at.timestamp_millis());
    let ttl_ms: i64 = redis.query(&format!("PTTL driver:online:{}", placed.driver_id)).await;
    assert!(ttl_ms > 20_000, "{ttl_ms}");
}

#[tokio::test]
async fn a_fix_that_may_be_an_old_one_never_replaces_a_newer_and_fills_in_where_there_is_none() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let driver = available(&presence, at(12.0, 77.0)).await;
    let old_fix = Some(Fix { position: at(13.0, 77.0), time: ago(9_000) });
    let place = async || presence.online(&[driver]).await.unwrap()[0].unwrap().fix.unwrap().position;
    for session_epoch in [1, 2] {
        let known = Heartbeat { fix: old_fix, fix_is_newest: false, session_epoch, ..beat(driver, at(0.0, 0.0)) };
        presence.heartbeats(&[known]).await.unwrap();
        assert_eq!(place().await, at(12.0, 77.0), "session {session_epoch}");
        let found: Vec<String> = redis.query("GEOSEARCH drivers:geo FROMLONLAT 77 12 BYRADIUS 10 m").await;
        assert_eq!(found.len(), 1);
    }
    redis.query::<()>(&format!("DEL driver:online:{driver}")).await;
    let known = Heartbeat { fix: old_fix, fix_is_newest: false, session_epoch: 2, ..beat(driver, at(0.0, 0.0)) };
    assert_eq!(presence.heartbeats(&[known]).await.unwrap(), [true]);
    assert_eq!(place().await, at(13.0, 77.0));
}

#[tokio::test]
async fn the_age_of_a_heartbeat_is_taken_off_its_ttl() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let (late, gone) = (beat(DriverId::new(), at(0.0, 0.0)), beat(DriverId::new(), at(0.0, 0.0)));
    let beats = [Heartbeat { received_at: ago(29_000), ..late }, Heartbeat { received_at: ago(31_000), ..gone }];
    assert_eq!(presence.heartbeats(&beats).await.unwrap(), [true, false]);
    assert!(redis.query::<i64>(&format!("PTTL driver:online:{}", late.driver_id)).await <= 1_000);
    assert_eq!(redis.query::<i64>(&format!("EXISTS driver:online:{}", gone.driver_id)).await, 0);
}

#[tokio::test]
async fn a_lost_answer_makes_the_join_due_next_time() {
    let redis = TestRedis::start();
    let settings = PresenceSettings { breaker_open: Duration::ZERO, ..redis.settings() };
    let presence = Presence::new(settings).unwrap();
    let driver = DriverId::new();
    redis.query::<()>("CONFIG SET maxmemory 1").await;
    assert!(presence.heartbeats(&[beat(driver, at(0.0, 0.0))]).await.is_err());
    redis.query::<()>("CONFIG SET maxmemory 0").await;
    // The same state as after a SET that took effect and whose answer was lost.
    let done = beat(driver, at(0.0, 0.0)).value().encode();
    redis.query::<()>(&format!("SET driver:online:{driver} {done}")).await;
    assert_eq!(presence.heartbeats(&[beat(driver, at(0.0, 0.0))]).await.unwrap(), [true]);
    assert_eq!(presence.heartbeats(&[beat(driver, at(0.0, 0.0))]).await.unwrap(), [false]);
}

#[tokio::test]
async fn many_heartbeats_take_several_trips() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    let beats: Vec<_> = (0..1_000).map(|n| beat(DriverId::new(), at(f64::from(n) / 100.0, 0.0))).collect();
    assert_eq!(presence.heartbeats(&beats).await.unwrap(), vec![true; 1_000]);
    assert_eq!(presence.heartbeats(&beats).await.unwrap(), vec![false; 1_000]);
}
