//! Tests of PostgreSQL restarts and freezes: orders are refused in time, sessions stay open, and the service recovers
//! without a restart.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::block_in_place;

use super::support::plan::WEBHOOK_SECRET;
use super::support::*;

/// Asserts that the webhook responds with 503 and `Retry-After` within five seconds.
async fn assert_refused_in_time(world: &World, name: &str) {
    let started = Instant::now();
    let reply = world.post_order(&Order::new(name)).await;
    let took = started.elapsed();
    assert!(took < Duration::from_millis(5_500), "{took:?}");
    assert!(reply.retry_after_s() >= 1);
    reply.problem(503);
}

/// Asserts what must hold during any outage of PostgreSQL.
async fn assert_outage_is_tolerated(world: &World, driver: &Driver, name: &str) {
    assert_refused_in_time(world, name).await;
    let started = Instant::now();
    let health = world.node().api().get("/health").await;
    assert!(started.elapsed() < Duration::from_secs(3), "/health responds in time: {:?}", started.elapsed());
    assert_eq!((health.status, &health.body["status"]), (503, &json!("down")));
    assert_eq!(world.node().api().get("/health/ready").await.status, 200);
    assert_eq!(world.node().api().get("/health/live").await.status, 200);

    let response = driver.request_duty("OFFLINE").await;
    assert_eq!((&response["type"], &response["code"]), (&json!("error"), &json!("unavailable")), "{response}");
    assert_eq!(response["retryable"], true);
    // Redis is reachable, so heartbeats are stored.
    driver.heartbeat().await;
    assert_eq!(driver.session.ended(), None);
}

/// Posts the same order until it is accepted. Returns the delivery's id.
async fn post_until_accepted(world: &World, name: &str) -> String {
    eventually("orders are accepted again", SOON, || async {
        let reply = orders::try_post_order(world.node(), &Order::new(name), WEBHOOK_SECRET).await?;
        matches!(reply.status, 200..=202).then(|| reply.body["deliveryId"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_a_restart_of_postgresql_sessions_stay_open_and_orders_are_refused() {
    let world = World::with().own_postgres().set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let postgres = world.own_postgres.clone().unwrap();
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    block_in_place(|| postgres.stop());
    assert_outage_is_tolerated(&world, &driver, "out").await;
    block_in_place(|| postgres.start_again()).expect("PostgreSQL restarts");

    let id = post_until_accepted(&world, "out").await;
    driver.wait_for_assignment(&id).await;
    world.node().wait_for_health("ok").await;
    assert_eq!(driver.session.ended(), None, "the session stays open");
    world.shop().wait_for_event(&id, "DELIVERY_ASSIGNED_V1").await;
    assert_eq!(world.count("SELECT count(*) FROM deliveries").await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_accepted_order_is_lost_when_postgresql_crashes_during_orders() {
    let world = World::with().own_postgres().set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let postgres = world.own_postgres.clone().unwrap();
    let _driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let posts = (0..40).map(|n| {
        let world = &world;
        async move {
            let order = Order::new(&format!("crash-{n}"));
            tokio::time::sleep(Duration::from_millis(n * 15)).await;
            let reply = orders::try_post_order(world.node(), &order, WEBHOOK_SECRET).await?;
            matches!(reply.status, 200..=202).then(|| order.id().to_owned())
        }
    });
    let crash = async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        block_in_place(|| postgres.kill());
        block_in_place(|| postgres.start_again()).expect("PostgreSQL restarts");
    };
    let (accepted, ()) = tokio::join!(join_all(posts), crash);
    post_until_accepted(&world, "after").await;
    let known: Vec<String> =
        sqlx::query_scalar("SELECT seller_order_id FROM deliveries").fetch_all(&world.pool).await.unwrap();
    for name in accepted.into_iter().flatten() {
        assert!(known.contains(&name), "the accepted order {name} is in the database");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_a_freeze_of_postgresql_sessions_stay_open_and_orders_are_refused_in_time() {
    let world = World::with().own_postgres().set("HEARTBEAT_TTL_MS", 30_000).start().await;
    let postgres = world.own_postgres.clone().unwrap();
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    block_in_place(|| postgres.freeze()).expect("PostgreSQL is frozen");
    assert_outage_is_tolerated(&world, &driver, "hung").await;
    // Many concurrent orders are refused as fast as one.
    join_all((0..20).map(|n| {
        let world = &world;
        async move { assert_refused_in_time(world, &format!("hung-{n}")).await }
    }))
    .await;
    block_in_place(|| postgres.thaw());

    post_until_accepted(&world, "hung").await;
    world.node().wait_for_health("ok").await;
    assert_eq!(driver.session.ended(), None, "the session stays open");
    // The duty request that got `unavailable` may have been committed. Then the order waits until the driver
    // requests duty again.
    assert_eq!(driver.request_duty("AVAILABLE").await["type"], "ok");
    let (assigned, assignment) = driver.wait_for_any_assignment().await;
    driver.deliver(&assigned, &assignment).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_starts_before_postgresql_waits_for_it() {
    let world = World::with().own_postgres().nodes(0).start().await;
    let postgres = world.own_postgres.clone().unwrap();
    block_in_place(|| postgres.stop());
    let (node, ()) = tokio::join!(world.start_node(), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        block_in_place(|| postgres.start_again()).expect("PostgreSQL restarts");
    });
    let mut world = world;
    world.nodes.push(node);
    world.node().wait_for_health("ok").await;
    world.post_order(&Order::new("first")).await.expect(202);
    world.finish().await;
}
