//! Tests of the storage of heartbeats: which heartbeats wait for which, and which never wait.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::block_in_place;

use super::support::driver::heartbeat;
use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_who_returns_while_postgresql_is_frozen_delays_no_other_heartbeat_and_joins_afterwards() {
    let world = World::with().own_postgres().start().await;
    let postgres = world.own_postgres.clone().unwrap();
    let (mut other, mut back) = (world.on_duty(RESTAURANT).await, world.on_duty(RESTAURANT.offset(100.0, 0.0)).await);
    back.stop_heartbeats();
    eventually("the silent driver leaves drivers:geo", SOON, || async {
        (!world.redis.geo_members().await?.contains(&back.id)).then_some(())
    })
    .await;
    block_in_place(|| postgres.freeze()).expect("PostgreSQL is frozen");
    // The heartbeat is acknowledged because Redis has it. A join to drivers:geo needs PostgreSQL.
    back.heartbeat().await;
    back.start_heartbeats();
    other.stop_heartbeats();
    let one_after_another = async {
        for _ in 0..20 {
            other.heartbeat().await;
        }
    };
    // Each attempt to join takes PostgreSQL's whole timeout of some seconds.
    tokio::time::timeout(SOON, one_after_another).await.expect("heartbeats do not wait for PostgreSQL");
    assert!(
        !world.redis.geo_members().await.unwrap().contains(&back.id),
        "a driver joins drivers:geo only after PostgreSQL has the heartbeat"
    );
    other.start_heartbeats();
    block_in_place(|| postgres.thaw());
    world.wait_for_candidates(&[back, other]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_that_no_store_accepts_are_retried_with_pauses_and_not_acknowledged() {
    let plan = World::with().own_redis().set("HEARTBEAT_TTL_MS", 20_000);
    let world = plan.set("FRAMES_PER_SECOND", 0).start().await;
    let redis = world.own_redis.clone().unwrap();
    let mut driver = world.on_duty(RESTAURANT).await;
    driver.stop_heartbeats();
    driver.heartbeat().await;
    // Both stores refuse at once, so only the pause lies between two attempts.
    sqlx::query("ALTER TABLE driver_positions RENAME TO moved").execute(&world.pool).await.unwrap();
    block_in_place(|| redis.stop());
    let calls = async || {
        let count = async |outcome: &str| {
            let series = format!("driver_tracker_redis_calls_total{{op=\"heartbeats\",outcome=\"{outcome}\"}}");
            world.node().metric(&series).await
        };
        count("error").await + count("breaker_open").await + count("timeout").await
    };
    let (before, began) = (calls().await, Instant::now());
    for seq in 50_000..50_400 {
        driver.session.send(&heartbeat(seq, RESTAURANT));
        world::let_time_pass("heartbeats continue", Duration::from_millis(5)).await;
    }
    let (tried, allowed) = (calls().await - before, began.elapsed().as_secs_f64() * 2.0 + 2.0);
    assert!(tried >= 1.0 && tried <= allowed, "there are at least 1 and at most {allowed} attempts: {tried}");
    sqlx::query("ALTER TABLE moved RENAME TO driver_positions").execute(&world.pool).await.unwrap();
    block_in_place(|| redis.start_again()).expect("Redis restarts");
    driver.session.wait_for_ack(50_399).await;
    assert_eq!(driver.session.ended(), None);
    driver.start_heartbeats();
    world.node().wait_for_health("ok").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_without_coordinates_does_not_overwrite_a_newer_fix_from_http() {
    let world = World::with().set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let mut driver = world.on_duty(RESTAURANT).await;
    driver.stop_heartbeats();
    driver.heartbeat().await;
    let there = RESTAURANT.offset(40.0, 0.0);
    let by_http = heartbeat(0, there);
    let app = world.node().api().keyed(Some(&driver.token));
    app.post("/api/v1/driver/locations", &json!({"fixes": [by_http]})).await.expect(200);
    let lat = async || world.driver(&driver.id).await["position"]["lat"].as_f64().expect("the driver has a position");
    eventually("the driver is at the place of the HTTP fix", SOON, || async {
        ((lat().await - there.lat).abs() < 1e-6).then_some(())
    })
    .await;
    driver.session.send(&json!({"type": "heartbeat", "seq": 9000}));
    driver.session.wait_for_ack(9000).await;
    let key = world.redis.key(&format!("driver:online:{}", driver.id));
    let online: String = world.redis.command(&["GET", &key]).await;
    let stored_lat: f64 = online.split(',').next().unwrap().parse().expect("the online key has a latitude");
    assert!((stored_lat - there.lat).abs() < 1e-6, "the online key keeps the newer place: {online}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_consistent_fixes_override_the_speed_rule_over_http_with_one_fix_a_post() {
    let world = World::with().set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let (id, token) = world.new_driver().await;
    let app = world.node().api().keyed(Some(&token));
    let far = RESTAURANT.offset(50_000.0, 0.0);
    let post = async |place| {
        let response = app.post("/api/v1/driver/locations", &json!({"fixes": [heartbeat(0, place)]})).await.expect(200);
        response["accepted"].as_u64()
    };
    assert_eq!(post(RESTAURANT).await, Some(1));
    let lat = async || world.driver(&id).await["position"]["lat"].as_f64();
    eventually("the driver has a first place", SOON, || async { lat().await }).await;
    assert_eq!((post(far).await, post(far).await, post(far).await), (Some(0), Some(0), Some(1)));
    eventually("the driver is at the new place", SOON, || async {
        ((lat().await? - far.lat).abs() < 1e-6).then_some(())
    })
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_driver_does_not_prevent_the_storage_of_other_positions() {
    // An interval so short that all positions are written together.
    let world = World::with().set("POSITION_FLUSH_MS", 100).start().await;
    let (mut deleted_driver, stays) =
        (world.on_duty(RESTAURANT).await, world.on_duty(RESTAURANT.offset(100.0, 0.0)).await);
    let tables = "driver_events driver_tokens driver_sessions driver_positions driver_commands";
    for table in tables.split(' ') {
        let sql = format!("DELETE FROM {table} WHERE driver_id = '{}'", deleted_driver.id);
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&world.pool).await.unwrap();
    }
    let sql = format!("DELETE FROM drivers WHERE id = '{}'", deleted_driver.id);
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&world.pool).await.unwrap();
    stored_after_now(&world, &stays.id).await;
    // The deletion bypassed the service, so the rest of the driver in Redis is removed here.
    deleted_driver.stop_heartbeats();
    let (geo, member) = (world.redis.key("drivers:geo"), format!("driver:{}", deleted_driver.id));
    world.redis.command::<()>(&["ZREM", &geo, &member]).await;
    world.redis.command::<()>(&["HDEL", &world.redis.key("drivers:status"), &deleted_driver.id]).await;
    world.finish().await;
}

/// Waits until PostgreSQL has a heartbeat of the driver that is later than this call.
async fn stored_after_now(world: &World, driver: &str) {
    let now: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&world.pool).await.unwrap();
    eventually("PostgreSQL has a newer heartbeat of the driver", SOON, || async {
        let is_newer = "SELECT last_seen_at > $1 FROM driver_positions WHERE driver_id = $2::uuid";
        let is_newer: bool = sqlx::query_scalar(is_newer).bind(now).bind(driver).fetch_one(&world.pool).await.unwrap();
        is_newer.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stall_all_drivers_are_written_to_postgresql_together() {
    let plan = World::with().own_postgres().set("HEARTBEAT_TTL_MS", 60_000).set("POSITION_FLUSH_MS", 10_000);
    let world = plan.start().await;
    let postgres = world.own_postgres.clone().unwrap();
    let mut drivers = Vec::new();
    for n in 0..12 {
        drivers.push(world.on_duty(RESTAURANT.offset(50.0 * f64::from(n), 0.0)).await);
    }
    block_in_place(|| postgres.freeze()).expect("PostgreSQL is frozen");
    eventually("a write to PostgreSQL has failed", SOON, || async {
        world.node().log_lines().iter().any(|line| line.contains("positions were not stored")).then_some(())
    })
    .await;
    block_in_place(|| postgres.thaw());
    // If each waited for its own flush time, one a second, no six of the twelve would be written together.
    eventually("all are written together", SOON, || async {
        let most =
            "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM driver_positions GROUP BY xmin::text) AS t";
        (world.count(most).await >= 6).then_some(())
    })
    .await;
    drop(drivers);
    world.finish().await;
}
