//! Redis refuses connections, hangs, drops connections and restarts.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::server::TestRedis;
use super::*;
use crate::presence::{Outage, PresenceError, PresenceSettings, RedisState};

/// Waits until a call reaches Redis again. Returns whether Redis is warm.
async fn answers(presence: &Presence) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match is_warm(presence).await {
            Ok(warmth) => return warmth,
            Err(error) => assert!(Instant::now() < deadline, "Redis is back and nobody noticed: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_bad_url_is_refused_and_a_good_one_connects_to_nothing() {
    let settings = |url: &str| PresenceSettings::new(url, tokio::runtime::Handle::current());
    for url in ["", "http://127.0.0.1/", "redis//x", "redis://u:secret@127.0.0.1:port/"] {
        let error = Presence::new(settings(url)).err().expect(url);
        assert!(matches!(error, PresenceError::InvalidUrl(_)) && !error.to_string().contains("secret"), "{error}");
    }
    assert!(Presence::new(settings("redis://user:secret@127.0.0.1:1/")).is_ok());
    assert!(Presence::new(settings("rediss://user:secret@redis.invalid:6380/")).is_ok());
}

#[tokio::test]
async fn a_refused_connection_is_unavailable_at_once() {
    let mut redis = TestRedis::start();
    redis.kill();
    let presence = redis.presence();
    let started = Instant::now();
    let answer = presence.nearest(&at(1.0, 1.0), 1, &HashSet::new(), 100.0).await;
    assert!(matches!(answer, Err(PresenceError::Unavailable(Outage::Connect(_)))), "{answer:?}");
    let answer = presence.heartbeats(&[beat(DriverId::new(), at(1.0, 1.0))]).await;
    assert!(matches!(answer, Err(PresenceError::Unavailable(Outage::BreakerOpen(_)))), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(presence.health().await.state, RedisState::Down);
    redis.start_again();
    answers(&presence).await;
}

#[tokio::test]
async fn a_hung_redis_is_unavailable_in_time_then_not_asked_and_heals() {
    let redis = TestRedis::start();
    let patient = redis.warm().await;
    let driver = available(&patient, at(1.0, 1.0)).await;
    let call_timeout = Duration::from_millis(250);
    let presence = Presence::new(PresenceSettings { call_timeout, ..redis.settings() }).unwrap();
    presence.set_database_identity("db-1".to_owned());
    assert!(answers(&presence).await);
    let health = patient.health().await;
    assert!(health.state == RedisState::Up && health.warm && health.latency_ms.is_some());

    redis.signal("-STOP");
    let started = Instant::now();
    let answer = presence.nearest(&at(1.0, 1.0), 1, &HashSet::new(), 100.0).await;
    assert!(matches!(answer, Err(PresenceError::Unavailable(_))), "{answer:?}");
    let answer = presence.transition(&[change(driver, DriverStatus::Busy, 2)]).await;
    assert!(matches!(answer, Err(PresenceError::Unavailable(Outage::BreakerOpen(_)))), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    // While Redis hangs, every probe has a timeout too, including a new connection.
    tokio::time::sleep(Duration::from_millis(550)).await;
    let started = Instant::now();
    let health = presence.health().await;
    assert!(health.state == RedisState::Down && !health.warm);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());

    redis.signal("-CONT");
    assert!(answers(&presence).await, "it was the same run all along");
    answers(&patient).await;
    patient.transition(&[change(driver, DriverStatus::Busy, 2)]).await.unwrap();
    assert_eq!(patient.nearest(&at(1.0, 1.0), 1, &HashSet::new(), 100.0).await.unwrap(), []);
}

#[tokio::test]
async fn a_dropped_connection_costs_one_call_and_no_pause() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    redis.query::<()>("CLIENT KILL TYPE normal SKIPME yes").await;
    let _ = is_warm(&presence).await;
    assert!(is_warm(&presence).await.unwrap());
}

#[tokio::test]
async fn a_refused_command_does_not_open_the_breaker() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    redis.query::<()>("SET drivers:status text").await;
    let answer = presence.transition(&[change(DriverId::new(), DriverStatus::Busy, 1)]).await;
    assert!(matches!(answer, Err(PresenceError::Unavailable(Outage::Redis(_)))), "{answer:?}");
    assert!(is_warm(&presence).await.unwrap());
}

#[tokio::test]
async fn a_restarted_redis_is_found_again_and_cold() {
    let mut redis = TestRedis::start();
    let presence = redis.warm().await;
    redis.kill();
    assert!(is_warm(&presence).await.is_err());
    redis.start_again();
    assert!(!answers(&presence).await);
    rebuild(&presence, &[]).await;
}

/// actix runs several short-lived single-threaded runtimes. The connection belongs to none of them.
#[test]
fn the_connection_outlives_the_runtime_that_first_used_it() {
    let redis = TestRedis::start();
    let home = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let presence = {
        let _inside = home.enter();
        redis.presence()
    };
    for _ in 0..3 {
        let arbiter = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = arbiter.block_on(is_warm(&presence));
        assert!(!answer.unwrap());
    }
}

#[tokio::test]
async fn futures_can_be_spawned_and_dropped() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let clone = presence.clone();
    let search = tokio::spawn(async move { clone.nearest(&at(1.0, 1.0), 1, &HashSet::new(), 100.0).await });
    assert_eq!(search.await.unwrap().unwrap(), []);
    redis.signal("-STOP");
    let given_up = tokio::time::timeout(Duration::from_millis(30), is_warm(&presence)).await;
    assert!(given_up.is_err());
    redis.signal("-CONT");
    answers(&presence).await;
}
