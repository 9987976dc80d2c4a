//! Tests of a node that dies after a commit and before its effects are applied.

use std::time::Duration;

use super::support::plan::WEBHOOK_SECRET;
use super::support::proxy::{Proxy, ProxyMode};
use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_whose_node_dies_before_the_push_gets_the_assignment_through_another_node() {
    let mut world = World::with().nodes(2).set("HEARTBEAT_TTL_MS", 15_000).start().await;
    let mut driver = world.on_duty_at(&world.nodes[1], RESTAURANT.offset(100.0, 0.0)).await;
    // The node holds the driver's socket and is frozen: the commit happens and the push does not.
    world.nodes[1].freeze();
    let response = world.post_order_at(&world.nodes[0], &Order::new("orphan")).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap();
    world.nodes[1].kill9().await;
    assert_eq!(driver.session.waiting("assignment").len(), 0, "the assignment is not pushed");

    driver.session.wait_for_close(SOON).await;
    let welcome = driver.reconnect(&world.nodes[0]).await;
    assert_eq!(welcome["deliveries"][0]["id"], id, "the welcome contains the order");
    let frame = driver.wait_for_assignment(id).await;
    assert_eq!(frame["delivery"]["assignmentId"], response["assignmentId"]);
    driver.deliver(id, response["assignmentId"].as_str().unwrap()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_correct_within_five_seconds_after_a_node_dies_between_commit_and_redis() {
    let mut world = World::with().start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let proxy = Proxy::start(servers::shared_redis().port()).await;
    let mut cut_off_node = world.start_node_with(&[("REDIS_URL", &format!("redis://127.0.0.1:{}", proxy.port))]).await;
    cut_off_node.wait_for_health("ok").await;

    // From here on Redis receives nothing from this node, so the order is assigned by PostgreSQL alone.
    proxy.set(ProxyMode::Discard);
    let response = world.post_order_at(&cut_off_node, &Order::new("half-done")).await.expect(201);
    cut_off_node.kill9().await;
    assert_eq!(response["driverId"], driver.id.as_str());
    eventually("Redis reflects that the driver is busy", Duration::from_secs(5), || async {
        let redis_status = world.redis.statuses().await?.remove(&driver.id)?;
        let left_geo = !world.redis.geo_members().await?.contains(&driver.id);
        (redis_status.starts_with("BUSY:") && left_geo).then_some(())
    })
    .await;
    // The driver gets the assignment on the other node.
    driver.wait_for_assignment(response["deliveryId"].as_str().unwrap()).await;
    world.nodes.push(cut_off_node);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_kills_of_nodes_under_orders_lose_and_duplicate_nothing() {
    let mut world = World::with().nodes(2).set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let places: Vec<Place> = (1..=12).map(|n| RESTAURANT.offset(f64::from(n) * 70.0, 0.0)).collect();
    // All drivers are on the node that is not killed, so that orders are assigned throughout.
    let mut fleet = Vec::new();
    for place in places {
        fleet.push(world.on_duty_at(&world.nodes[0], place).await);
    }
    let mut accepted = Vec::new();
    for round in 0..3 {
        let names: Vec<String> = (0..8).map(|n| format!("round-{round}-{n}")).collect();
        let victim = &world.nodes[1];
        let pid = victim.pid();
        let posts = names.iter().map(|name| async move {
            let reply = orders::try_post_order(victim, &Order::new(name), WEBHOOK_SECRET).await?;
            matches!(reply.status, 200..=202).then(|| name.clone())
        });
        let (done, ()) = tokio::join!(join_all(posts), async {
            tokio::time::sleep(Duration::from_millis(20 + 30 * round)).await;
            node::signal(pid, "KILL");
        });
        accepted.extend(done.into_iter().flatten());
        // The shop repeats every order without a response, at the node that was not killed.
        for name in names {
            let reply = world.post_order(&Order::new(&name)).await;
            assert!(matches!(reply.status, 200..=202), "{}", reply.text);
            accepted.push(name);
        }
        world.nodes[1].kill9().await;
        world.nodes[1] = world.start_node().await;
    }
    eventually("every driver has an order", SOON, || async {
        (world.count("SELECT count(*) FROM assignments WHERE state = 'ACTIVE'").await == 12).then_some(())
    })
    .await;
    for driver in &fleet {
        driver.wait_for_any_assignment().await;
    }
    let known: Vec<String> =
        sqlx::query_scalar("SELECT seller_order_id FROM deliveries").fetch_all(&world.pool).await.unwrap();
    assert!(accepted.iter().all(|name| known.contains(name)));
    assert_eq!(known.len(), 24);
    world.finish().await;
}
