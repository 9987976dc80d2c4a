//! The generation (cold and warm) and the rebuild.

use std::collections::HashSet;

use super::server::TestRedis;
use super::*;
use crate::presence::PresenceError;

fn row(driver_id: DriverId, status: DriverStatus, epoch: i64, online: Option<Heartbeat>) -> RebuildDriver {
    RebuildDriver { change: change(driver_id, status, epoch), online }
}

async fn geo(redis: &TestRedis) -> Vec<String> {
    redis.query("ZRANGE drivers:geo 0 -1").await
}

#[tokio::test]
async fn cold_until_rebuilt_and_warm_for_every_node_then() {
    let redis = TestRedis::start();
    let (presence, other) = (redis.presence(), redis.presence());
    assert!(!is_warm(&presence).await.unwrap());
    assert!(matches!(presence.begin_rebuild().await, Err(PresenceError::Cold)), "no identity yet");
    presence.set_database_identity("db-1".to_owned());
    other.set_database_identity("db-1".to_owned());
    assert!(!presence.renew_generation().await.unwrap());

    let token = presence.begin_rebuild().await.unwrap().unwrap();
    assert!(other.begin_rebuild().await.unwrap().is_none(), "somebody rebuilds");
    let here = beat(DriverId::new(), at(1.0, 1.0));
    let busy = beat(DriverId::new(), at(1.0, 1.0));
    let silent = Heartbeat { received_at: ago(40_000), ..beat(DriverId::new(), at(1.0, 1.0)) };
    let rows = [
        row(here.driver_id, DriverStatus::Available, 3, Some(here)),
        row(busy.driver_id, DriverStatus::Busy, 4, Some(busy)),
        row(silent.driver_id, DriverStatus::Available, 5, Some(silent)),
        row(DriverId::new(), DriverStatus::Offline, 1, None),
    ];
    presence.load(&rows).await.unwrap();
    assert!(!is_warm(&other).await.unwrap());
    assert!(presence.finish_rebuild(token).await.unwrap());

    assert!(is_warm(&other).await.unwrap());
    assert!(other.begin_rebuild().await.unwrap().is_none(), "nothing to do");
    assert_eq!(geo(&redis).await, [format!("driver:{}", here.driver_id)]);
    let online = other.online(&[here.driver_id, busy.driver_id, silent.driver_id]).await.unwrap();
    assert_eq!(online.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);

    redis.query::<()>("PEXPIRE drivers:generation 5000").await;
    assert!(other.renew_generation().await.unwrap());
    assert!(redis.query::<i64>("PTTL drivers:generation").await > 20_000);
    other.set_database_identity("db-2".to_owned());
    assert!(!is_warm(&other).await.unwrap());
    assert!(!other.renew_generation().await.unwrap(), "another database's generation is left alone");
}

#[tokio::test]
async fn a_flush_during_the_rebuild_voids_it() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    presence.set_database_identity("db-1".to_owned());
    let here = beat(DriverId::new(), at(1.0, 1.0));
    let rows = [row(here.driver_id, DriverStatus::Available, 3, Some(here))];
    let token = presence.begin_rebuild().await.unwrap().unwrap();
    presence.load(&rows).await.unwrap();
    redis.query::<()>("FLUSHALL").await;
    assert!(matches!(presence.load(&rows).await, Err(PresenceError::Cold)));
    assert!(!presence.finish_rebuild(token).await.unwrap());
    assert!(!is_warm(&presence).await.unwrap());
    rebuild(&presence, &rows).await;
    assert!(is_warm(&presence).await.unwrap());
}

#[tokio::test]
async fn a_rebuild_given_up_holds_up_nobody_of_the_same_process() {
    let redis = TestRedis::start();
    let presence = redis.presence();
    presence.set_database_identity("db-1".to_owned());
    let first = presence.begin_rebuild().await.unwrap().unwrap();
    let second = presence.begin_rebuild().await.unwrap().unwrap();
    assert!(!presence.finish_rebuild(first).await.unwrap());
    assert!(presence.finish_rebuild(second).await.unwrap());
}

#[tokio::test]
async fn a_restart_from_an_old_file_is_cold_and_corrected_by_the_rebuild() {
    let mut redis = TestRedis::start();
    let presence = redis.warm().await;
    let assigned = available(&presence, at(1.0, 1.0)).await;
    redis.query::<()>("SAVE").await;
    presence.transition(&[change(assigned, DriverStatus::Busy, 2)]).await.unwrap();
    redis.kill();
    redis.start_again();
    let generation: Option<String> = redis.query("GET drivers:generation").await;
    assert!(generation.is_some(), "the file brought it back");
    while is_warm(&presence).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!is_warm(&presence).await.unwrap());
    assert_eq!(geo(&redis).await.len(), 1, "a ghost");
    rebuild(&presence, &[row(assigned, DriverStatus::Busy, 2, None)]).await;
    assert!(geo(&redis).await.is_empty());
    assert_eq!(presence.nearest(&at(1.0, 1.0), 1, &HashSet::new(), 100.0).await.unwrap(), []);
}

#[tokio::test]
async fn a_token_that_a_restart_brought_back_is_worth_nothing() {
    let mut redis = TestRedis::start();
    let presence = redis.presence();
    presence.set_database_identity("db-1".to_owned());
    let token = presence.begin_rebuild().await.unwrap().unwrap();
    redis.query::<()>("SAVE").await;
    presence.load(&[row(DriverId::new(), DriverStatus::Offline, 1, None)]).await.unwrap();
    redis.kill();
    redis.start_again();
    while is_warm(&presence).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!presence.finish_rebuild(token).await.unwrap());
}

#[tokio::test]
async fn another_databases_epochs_do_not_refuse_the_true_ones() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let driver = available(&presence, at(1.0, 1.0)).await;
    presence.transition(&[change(driver, DriverStatus::Available, 100)]).await.unwrap();
    presence.set_database_identity("restored".to_owned());
    let token = presence.begin_rebuild().await.unwrap().unwrap();
    presence.load(&[row(driver, DriverStatus::Offline, 40, None)]).await.unwrap();
    assert!(presence.finish_rebuild(token).await.unwrap());
    assert_eq!(redis.query::<String>(&format!("HGET drivers:status {driver}")).await, "OFFLINE:40");
    assert!(geo(&redis).await.is_empty());
}

#[tokio::test]
async fn a_rebuild_never_takes_a_living_driver_back_in_time() {
    let redis = TestRedis::start();
    let presence = redis.warm().await;
    let driver = available(&presence, at(2.0, 2.0)).await;
    let stored = Heartbeat { received_at: ago(25_000), ..beat(driver, at(1.0, 1.0)) };
    let stored = Heartbeat { fix: Some(Fix { time: ago(25_000), ..stored.fix.unwrap() }), ..stored };
    presence.load(&[row(driver, DriverStatus::Available, 1, Some(stored))]).await.unwrap();
    let value = presence.online(&[driver]).await.unwrap()[0].unwrap();
    assert_eq!(value.fix.unwrap().position, at(2.0, 2.0));
    assert!(redis.query::<i64>(&format!("PTTL driver:online:{driver}")).await > 20_000);

    // Online since the flush, but only PostgreSQL knows the position.
    let nowhere = Heartbeat { fix: None, ..beat(DriverId::new(), at(0.0, 0.0)) };
    presence.heartbeats(&[nowhere]).await.unwrap();
    let stored = Heartbeat { driver_id: nowhere.driver_id, ..stored };
    presence.load(&[row(nowhere.driver_id, DriverStatus::Available, 1, Some(stored))]).await.unwrap();
    let value = presence.online(&[nowhere.driver_id]).await.unwrap()[0].unwrap();
    assert_eq!(value.fix.unwrap().position, at(1.0, 1.0));
    assert!(redis.query::<i64>(&format!("PTTL driver:online:{}", nowhere.driver_id)).await > 20_000);
    assert_eq!(geo(&redis).await.len(), 2);
}
