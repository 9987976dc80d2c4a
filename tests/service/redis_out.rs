//! Tests of Redis outages during orders: killed, frozen, and back empty. No order is lost, duplicated or wrongly
//! answered.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::support::*;

/// The limit for the response to an order during any failure of Redis.
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);

async fn fleet_of(world: &World, count: usize) -> Vec<Driver> {
    let places: Vec<Place> = (1..=count).map(|n| RESTAURANT.offset(n as f64 * 80.0, 0.0)).collect();
    world.fleet(&places).await
}

/// Posts an order. Asserts that it is assigned, at once or by a sweep.
async fn assert_order_is_assigned(world: &World, name: &str) {
    let started = Instant::now();
    let reply = world.post_order(&Order::new(name)).await;
    assert!(matches!(reply.status, 201 | 202), "{name}: {} {}", reply.status, reply.text);
    assert!(started.elapsed() < ANSWERED_WITHIN, "{name} took {:?}", started.elapsed());
    world.wait_for_delivery(reply.body["deliveryId"].as_str().unwrap(), "ASSIGNED").await;
}

/// Waits until Redis is rebuilt: it agrees with PostgreSQL and has every candidate.
async fn wait_for_rebuild(world: &World) {
    world.expect_redis(true);
    let free: Vec<String> = sqlx::query_scalar("SELECT id::text FROM drivers WHERE status = 'AVAILABLE'")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    let free: BTreeSet<String> = free.into_iter().collect();
    eventually("Redis is rebuilt", Duration::from_secs(10), || async {
        let complete = world.redis.geo_members().await? == free;
        (complete && invariants::redis_discrepancy(world).await.is_none()).then_some(())
    })
    .await;
    world.node().wait_for_health("ok").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_rebuilt_after_it_was_killed_during_orders_and_restarted_empty() {
    let world = World::with().own_redis().set("HEARTBEAT_TTL_MS", 15_000).start().await;
    let redis = world.own_redis.clone().unwrap();
    let _fleet = fleet_of(&world, 10).await;
    assert_order_is_assigned(&world, "before-1").await;
    let _order = world.post_order(&Order::new("before-2")).await.expect(201);

    world.expect_redis(false);
    block_in_place(|| redis.kill());
    for n in 0..3 {
        assert_order_is_assigned(&world, &format!("during-{n}")).await;
    }
    world.node().wait_for_health("degraded").await;
    assert_eq!(world.node().api().get("/health").await.status, 200);
    assert_eq!(world.node().api().get("/health/ready").await.status, 200);

    block_in_place(|| redis.start_again()).expect("Redis restarts");
    assert_order_is_assigned(&world, "after-1").await;
    wait_for_rebuild(&world).await;
    assert_order_is_assigned(&world, "after-2").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_delays_no_order() {
    let world = World::with().own_redis().set("HEARTBEAT_TTL_MS", 15_000).start().await;
    let redis = world.own_redis.clone().unwrap();
    let fleet = fleet_of(&world, 8).await;
    assert_order_is_assigned(&world, "before").await;

    world.expect_redis(false);
    block_in_place(|| redis.freeze()).expect("Redis is frozen");
    for n in 0..3 {
        assert_order_is_assigned(&world, &format!("during-{n}")).await;
    }
    // Heartbeats are acknowledged too: they are stored in PostgreSQL.
    fleet[7].heartbeat().await;
    let started = Instant::now();
    assert_eq!(world.node().health().await.unwrap()["status"], "degraded");
    assert!(started.elapsed() < Duration::from_secs(3), "/health responds in time: {:?}", started.elapsed());

    block_in_place(|| redis.thaw());
    wait_for_rebuild(&world).await;
    assert_order_is_assigned(&world, "after").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_after_a_flush_of_redis_still_finds_its_candidates() {
    let world = World::with().own_redis().nodes(2).set("HEARTBEAT_TTL_MS", 15_000).start().await;
    let redis = world.own_redis.clone().unwrap();
    let fleet = fleet_of(&world, 12).await;
    for round in 0..4 {
        assert_order_is_assigned(&world, &format!("before-{round}")).await;
        block_in_place(|| redis.flush_all()).expect("Redis is flushed");
        // The order is assigned at once and not by a later sweep: an empty Redis does not mean that there are
        // no candidates.
        world.post_order(&Order::new(&format!("after-{round}"))).await.expect(201);
    }
    fleet[11].heartbeat().await;
    wait_for_rebuild(&world).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_starts_without_redis_connects_when_it_is_available() {
    let world = World::with().own_redis().nodes(0).start().await;
    let redis = world.own_redis.clone().unwrap();
    block_in_place(|| redis.stop());
    let mut world = world;
    let node = world.start_node().await;
    world.nodes.push(node);
    world.expect_redis(false);
    let _fleet = fleet_of(&world, 3).await;
    assert_order_is_assigned(&world, "without").await;
    block_in_place(|| redis.start_again()).expect("Redis restarts");
    wait_for_rebuild(&world).await;
    assert_order_is_assigned(&world, "with").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_on_another_node_gets_an_assignment_while_redis_is_out() {
    let world = World::with().without_redis().nodes(2).start().await;
    let driver = world.on_duty_at(&world.nodes[1], RESTAURANT.offset(100.0, 0.0)).await;
    // Hints cannot reach the other node. Its poll finds the command.
    let response = world.post_order_at(&world.nodes[0], &Order::new("by-poll")).await.expect(201);
    driver.wait_for_assignment(response["deliveryId"].as_str().unwrap()).await;
    world.finish().await;
}
