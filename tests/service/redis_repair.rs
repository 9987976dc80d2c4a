//! Tests that Redis is repaired after drift, a flush during a rebuild, or the death of the node that holds the
//! reconcile lease.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::support::proxy::{Proxy, ProxyMode};
use super::support::registry::insert_candidates;
use super::support::*;

/// The limit for Redis to lag behind PostgreSQL after any failure.
const REPAIR_LIMIT: Duration = Duration::from_secs(5);

/// Commits a change without any effects, as a node that dies right after the commit: the driver goes off duty in
/// PostgreSQL only.
async fn commit_without_effects(world: &World, driver: &str) {
    let id: uuid::Uuid = driver.parse().unwrap();
    let statement = "WITH changed AS (
            UPDATE drivers SET on_duty = false, epoch = epoch + 1, changed_at = clock_timestamp() WHERE id = $1
            RETURNING id, epoch, status, on_duty)
        INSERT INTO driver_events (driver_id, epoch, status, on_duty, reason, actor_kind)
        SELECT id, epoch, status, on_duty, 'a test', 'system' FROM changed";
    sqlx::query(statement).bind(id).execute(&world.pool).await.expect("the change is committed");
}

async fn wait_until_offline_in_redis(world: &World, driver: &str) {
    eventually("Redis reflects the commit", REPAIR_LIMIT, || async {
        let redis_status = world.redis.statuses().await?.remove(driver)?;
        let left_geo = !world.redis.geo_members().await?.contains(driver);
        (redis_status.starts_with("OFFLINE:") && left_geo).then_some(())
    })
    .await;
}

async fn holder(world: &World) -> usize {
    eventually("one node holds the lease", SOON, || async {
        for (n, node) in world.nodes.iter().enumerate() {
            if node.metric("driver_tracker_reconcile_lease_held").await == 1.0 {
                return Some(n);
            }
        }
        None
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_takes_the_lease_of_a_dead_node_and_its_last_commit_reaches_redis_in_time() {
    let mut world = World::with().nodes(2).set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let holder = holder(&world).await;
    let other = 1 - holder;
    assert_eq!(
        world.nodes[other].metric("driver_tracker_reconcile_lease_held").await,
        0.0,
        "one node holds the lease at a time"
    );
    let first = world.on_duty_at(&world.nodes[other], RESTAURANT).await;
    let second = world.on_duty_at(&world.nodes[other], RESTAURANT.offset(100.0, 0.0)).await;
    commit_without_effects(&world, &first.id).await;
    wait_until_offline_in_redis(&world, &first.id).await;

    world.nodes[holder].kill9().await;
    commit_without_effects(&world, &second.id).await;
    wait_until_offline_in_redis(&world, &second.id).await;
    assert_eq!(world.nodes[other].metric("driver_tracker_reconcile_lease_held").await, 1.0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_delays_nothing_and_does_not_acquire_the_lease_again() {
    let world = World::with().nodes(2).set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let holder = holder(&world).await;
    let other = 1 - holder;
    let driver = world.on_duty_at(&world.nodes[other], RESTAURANT).await;
    world.nodes[holder].freeze();
    commit_without_effects(&world, &driver.id).await;
    wait_until_offline_in_redis(&world, &driver.id).await;
    world.nodes[holder].thaw();
    eventually("the thawed node learns that it lost the lease", SOON, || async {
        (world.nodes[holder].metric("driver_tracker_reconcile_lease_held").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(world.nodes[other].metric("driver_tracker_reconcile_lease_held").await, 1.0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_reach_redis_loses_the_lease_to_another_node() {
    let mut world = World::with().nodes(0).set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let proxy = Proxy::start(servers::shared_redis().port()).await;
    let cut_off = world.start_node_with(&[("REDIS_URL", &format!("redis://127.0.0.1:{}", proxy.port))]).await;
    world.nodes.push(cut_off);
    assert_eq!(holder(&world).await, 0);
    let other = world.start_node().await;
    other.wait_for_health("ok").await;
    world.nodes.push(other);
    let driver = world.on_duty_at(&world.nodes[1], RESTAURANT).await;
    proxy.set(ProxyMode::Discard);
    commit_without_effects(&world, &driver.id).await;
    wait_until_offline_in_redis(&world, &driver.id).await;
    assert_eq!(world.nodes[1].metric("driver_tracker_reconcile_lease_held").await, 1.0);
    assert_eq!(world.nodes[0].metric("driver_tracker_reconcile_lease_held").await, 0.0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_without_a_recent_change_is_repaired_by_the_full_resync() {
    let world = World::with().nodes(2).set("REDIS_COMPARE_EVERY_MS", 1000).start().await;
    let fleet = world.fleet(&[100.0, 200.0, 300.0, 400.0].map(|m| RESTAURANT.offset(m, 0.0))).await;
    let idle = world.connected_at(world.node(), RESTAURANT).await;
    idle.heartbeat().await;
    sqlx::query("UPDATE drivers SET changed_at = now() - interval '1 hour'").execute(&world.pool).await.unwrap();
    let (status, geo) = (world.redis.key("drivers:status"), world.redis.key("drivers:geo"));
    let [without_status, with_newer_epoch, with_invalid_status, without_member] =
        [0, 1, 2, 3].map(|n| fleet[n].id.clone());
    let stale_member = format!("driver:{}", uuid::Uuid::now_v7());
    let (lon, lat) = (RESTAURANT.lon.to_string(), RESTAURANT.lat.to_string());
    // One missing status, one status with an epoch that was never committed, one invalid status, one missing
    // member, three members too many.
    let _: i64 = world.redis.command(&["HDEL", &status, &without_status]).await;
    let _: i64 =
        world.redis.command(&["HSET", &status, &with_newer_epoch, "BUSY:4711", &with_invalid_status, "ASLEEP"]).await;
    let member = |id: &str| format!("driver:{id}");
    let _: i64 = world.redis.command(&["ZREM", &geo, &member(&with_newer_epoch), &member(&without_member)]).await;
    let _: i64 = world
        .redis
        .command(&["GEOADD", &geo, &lon, &lat, &stale_member, &lon, &lat, "x", &lon, &lat, &member(&idle.id)])
        .await;

    eventually("Redis agrees with PostgreSQL", Duration::from_secs(12), || async {
        let geo_members = world.redis.geo_members().await?;
        let complete = geo_members.len() == 4 && fleet.iter().all(|driver| geo_members.contains(&driver.id));
        (complete && invariants::redis_discrepancy(&world).await.is_none()).then_some(())
    })
    .await;
    let repaired_count = async |what: &str| {
        let series = format!("driver_tracker_presence_mended_total{{what=\"{what}\"}}");
        world.nodes[0].metric(&series).await + world.nodes[1].metric(&series).await
    };
    assert_eq!(repaired_count("status").await, 3.0);
    assert_eq!(repaired_count("ghost").await, 2.0);
    assert!(repaired_count("membership").await >= 1.0);
    world.post_order(&Order::new("found-again")).await.expect(201);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_in_redis_that_postgresql_lost_are_repaired_within_seconds() {
    let world = World::start().await;
    let fleet = world.fleet(&[100.0, 200.0, 300.0].map(|m| RESTAURANT.offset(m, 0.0))).await;
    // One driver changed long ago, one changes now, and one exists only in Redis.
    let [old, changed, lately] = [0, 1, 2].map(|n| &fleet[n]);
    sqlx::query("UPDATE drivers SET changed_at = now() - interval '1 hour' WHERE id = $1")
        .bind(old.id.parse::<uuid::Uuid>().unwrap())
        .execute(&world.pool)
        .await
        .unwrap();
    let (status, geo) = (world.redis.key("drivers:status"), world.redis.key("drivers:geo"));
    let member = |id: &str| format!("driver:{id}");
    for driver in [old, changed, lately] {
        let _: i64 = world.redis.command(&["HSET", &status, &driver.id, "BUSY:4711"]).await;
        let _: i64 = world.redis.command(&["ZREM", &geo, &member(&driver.id)]).await;
    }
    assert_eq!(changed.request_duty("OFFLINE").await["status"], "OFFLINE");
    eventually("Redis agrees with PostgreSQL", REPAIR_LIMIT, || async {
        let geo_members = world.redis.geo_members().await?;
        let right =
            geo_members.contains(&old.id) && geo_members.contains(&lately.id) && !geo_members.contains(&changed.id);
        (right && invariants::redis_discrepancy(&world).await.is_none()).then_some(())
    })
    .await;
    world.finish().await;
}

/// The periodic comparison is off for a day. A change that finds a newer epoch in Redis causes a comparison of its
/// driver.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_finds_a_newer_epoch_in_redis_is_compared_at_once() {
    let world = World::with().set("REDIS_COMPARE_EVERY_MS", 86_400_000).start().await;
    let driver = world.on_duty(RESTAURANT).await;
    let status = world.redis.key("drivers:status");
    let _: i64 = world.redis.command(&["HSET", &status, &driver.id, "AVAILABLE:4711"]).await;
    assert_eq!(driver.request_duty("OFFLINE").await["status"], "OFFLINE");
    wait_until_offline_in_redis(&world, &driver.id).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_during_the_rebuild_never_leaves_a_partial_index_that_counts_as_warm() {
    const DRIVERS: i64 = 30_000;
    let mut world = World::with().own_redis().nodes(0).set("HEARTBEAT_TTL_MS", 120_000).start().await;
    let redis = world.own_redis.clone().unwrap();
    insert_candidates(&world, DRIVERS, RESTAURANT).await;
    let (status, generation) = (world.redis.key("drivers:status"), world.redis.key("drivers:generation"));
    let node = world.start_node().await;
    world.nodes.push(node);
    for round in 0..3 {
        eventually(&format!("the rebuild has begun, round {round}"), SOON, || async {
            let loaded: i64 = world.redis.command(&["HLEN", &status]).await;
            (0 < loaded && loaded < DRIVERS).then_some(())
        })
        .await;
        block_in_place(|| redis.flush_all()).expect("Redis is flushed");
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        // The order of the two reads matters: an index that counts as warm is complete and stays complete.
        let warm_keys: i64 = world.redis.command(&["EXISTS", &generation]).await;
        let loaded: i64 = world.redis.command(&["HLEN", &status]).await;
        if warm_keys == 1 {
            assert_eq!(loaded, DRIVERS, "a warm index has all drivers");
            break;
        }
        assert!(Instant::now() < deadline, "Redis is warm in time: {loaded} drivers are loaded");
    }
    let geo_members: i64 = world.redis.command(&["ZCARD", &world.redis.key("drivers:geo")]).await;
    assert_eq!(geo_members, DRIVERS);
    // A check of each of so many drivers would take the harness minutes.
    world.expect_redis(false);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_of_redis_during_the_rebuild_does_not_restart_it() {
    const DRIVERS: i64 = 30_000;
    let mut world = World::with().own_redis().nodes(0).set("HEARTBEAT_TTL_MS", 120_000).start().await;
    let redis = world.own_redis.clone().unwrap();
    insert_candidates(&world, DRIVERS, RESTAURANT).await;
    let (status, rebuild) = (world.redis.key("drivers:status"), world.redis.key("drivers:rebuild"));
    let node = world.start_node().await;
    world.nodes.push(node);
    eventually("the rebuild has begun", SOON, || async {
        let loaded: i64 = world.redis.command(&["HLEN", &status]).await;
        (0 < loaded && loaded < DRIVERS).then_some(())
    })
    .await;
    let token: Option<String> = world.redis.command(&["GET", &rebuild]).await;
    // Longer than a call may take, and longer than the circuit breaker stays open.
    block_in_place(|| redis.freeze()).expect("Redis is frozen");
    world::let_time_pass("calls to Redis time out", Duration::from_millis(900)).await;
    block_in_place(|| redis.thaw());
    let token = token.expect("the rebuild has a token");
    eventually("the same rebuild ends", SOON, || async {
        let now: Option<String> = world.redis.command(&["GET", &rebuild]).await;
        assert!(now.is_none() || now.as_ref() == Some(&token), "the rebuild is not restarted");
        now.is_none().then_some(())
    })
    .await;
    world.node().wait_for_health("ok").await;
    assert_eq!(world.redis.command::<i64>(&["HLEN", &status]).await, DRIVERS);
    world.expect_redis(false);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_whose_online_key_expired_is_back_with_the_next_heartbeat() {
    let world = World::with().nodes(2).set("HEARTBEAT_TTL_MS", 3000).start().await;
    let mut driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    for node in [0, 1, 0] {
        driver.stop_heartbeats();
        eventually("the silent driver leaves drivers:geo", SOON, || async {
            let left_geo = !world.redis.geo_members().await?.contains(&driver.id);
            (left_geo && world.redis.online_ttl_ms(&driver.id).await.is_none()).then_some(())
        })
        .await;
        assert_eq!(world.driver(&driver.id).await["online"], false);
        driver.reconnect(&world.nodes[node]).await;
        driver.heartbeat().await;
        driver.start_heartbeats();
        world.wait_for_candidates(std::slice::from_ref(&driver)).await;
        assert_eq!(world.driver(&driver.id).await["online"], true);
    }
    let response = world.post_order(&Order::new("back")).await.expect(201);
    assert_eq!(response["driverId"], driver.id.as_str());
    world.finish().await;
}

/// To run it alone: `cargo test --release --test service -- --ignored --nocapture soak_warm_up`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long; prints how long a warm-up of a large fleet takes"]
async fn soak_warm_up_of_100_000_drivers() {
    const DRIVERS: i64 = 100_000;
    let mut world = World::with().own_redis().own_postgres().nodes(0).set("HEARTBEAT_TTL_MS", 300_000).start().await;
    insert_candidates(&world, DRIVERS, RESTAURANT).await;
    sqlx::query("ANALYZE").execute(&world.pool).await.expect("the statistics are updated");
    let node = world.start_node().await;
    world.nodes.push(node);
    let redis = world.own_redis.clone().unwrap();
    let geo = world.redis.key("drivers:geo");
    for round in 0..4 {
        let began = Instant::now();
        eventually("Redis is warm", Duration::from_secs(120), || async {
            let health = world.node().health().await?;
            (health["redis"]["warm"] == true).then_some(())
        })
        .await;
        let geo_members: i64 = world.redis.command(&["ZCARD", &geo]).await;
        assert_eq!(geo_members, DRIVERS);
        println!("round {round}: {DRIVERS} drivers warm after {:.1} s", began.elapsed().as_secs_f64());
        block_in_place(|| redis.flush_all()).expect("Redis is flushed");
        eventually("the node notices the flush", SOON, || async {
            (world.node().health().await?["redis"]["warm"] == false).then_some(())
        })
        .await;
    }
    let stats: String = world.redis.command(&["INFO", "commandstats"]).await;
    stats.lines().filter(|line| line.contains("evalsha:")).for_each(|line| println!("all rounds: {line}"));
    for line in world.node().log_lines().iter().filter(|line| line.contains("Redis rebuilt")) {
        println!("{line}");
    }
    world.expect_redis(false);
    world.finish().await;
}
