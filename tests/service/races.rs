//! Tests of many concurrent orders, few drivers and two nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::support::*;

/// Returns the oldest pending order.
async fn oldest_waiting(world: &World) -> Option<uuid::Uuid> {
    sqlx::query_scalar("SELECT id FROM deliveries WHERE status = 'PENDING' ORDER BY created_at, id LIMIT 1")
        .fetch_optional(&world.pool)
        .await
        .expect("the deliveries are read")
}

/// Waits for the next assignment of a driver and delivers it.
async fn deliver_next(driver: &Driver) {
    let (delivery, assignment) = driver.wait_for_any_assignment().await;
    driver.deliver(&delivery, &assignment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_orders_for_a_hundred_drivers_the_rest_are_assigned_oldest_first() {
    let world = World::with().nodes(2).set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let places: Vec<Place> = (0..100).map(|n| RESTAURANT.offset(f64::from(n) * 23.0 - 1150.0, 300.0)).collect();
    let fleet = world.fleet(&places).await;

    let posts = (0..200).map(|n| {
        let world = &world;
        async move {
            let pickup = RESTAURANT.offset(f64::from(n % 10) * 50.0, f64::from(n % 7) * 60.0);
            world.post_order_at(&world.nodes[n as usize % 2], &Order::at(&format!("race-{n}"), pickup)).await
        }
    });
    for reply in join_all(posts).await {
        assert!(matches!(reply.status, 201 | 202), "{} {}", reply.status, reply.text);
    }
    eventually("every driver has an order", SOON, || async {
        let assigned = world.count("SELECT count(*) FROM deliveries WHERE status = 'ASSIGNED'").await;
        (assigned == 100).then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(DISTINCT driver_id) FROM assignments WHERE state = 'ACTIVE'").await, 100);
    assert_eq!(world.count("SELECT count(*) FROM deliveries WHERE status = 'PENDING'").await, 100);
    assert_eq!(world.count("SELECT count(*) FROM assignments").await, 100, "no delivery is assigned twice");

    // One by one: each driver who becomes free gets the oldest order.
    for driver in &fleet[..40] {
        let oldest = oldest_waiting(&world).await.expect("an order is pending").to_string();
        deliver_next(driver).await;
        driver.wait_for_assignment(&oldest).await;
    }
    // The remaining orders concurrently, until none is pending.
    let rounds = fleet[40..].iter().map(deliver_next);
    join_all(rounds).await;
    eventually("no order is pending", SOON, || async { oldest_waiting(&world).await.is_none().then_some(()) }).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_assign_each_order_at_one_restaurant_to_the_nearest_candidate() {
    let world = World::with().nodes(2).set("HEARTBEAT_TTL_MS", 20_000).start().await;
    // The drivers are in rings of about 60 m, each in a direction of their own.
    let places: Vec<Place> = (1..=50)
        .map(|n| {
            let (metres, angle) = (f64::from(n) * 61.0, f64::from(n) * 2.4);
            RESTAURANT.offset(metres * angle.cos(), metres * angle.sin())
        })
        .collect();
    let fleet = world.fleet(&places).await;
    let rank: BTreeMap<&str, usize> = fleet.iter().enumerate().map(|(n, driver)| (driver.id.as_str(), n)).collect();

    // One after the other, from either node: each goes to the nearest remaining driver.
    for n in 0..10 {
        let response = world.post_order_at(&world.nodes[n % 2], &Order::new(&format!("single-{n}"))).await.expect(201);
        assert_eq!(rank[response["driverId"].as_str().unwrap()], n, "order {n} goes to the nearest driver");
    }
    // Thirty concurrent orders: they go to the thirty nearest drivers and to no one farther.
    let posts = (0..30).map(|n| {
        let world = &world;
        async move { world.post_order_at(&world.nodes[n % 2], &Order::new(&format!("crowd-{n}"))).await }
    });
    for reply in join_all(posts).await {
        assert!(matches!(reply.status, 201 | 202), "{} {}", reply.status, reply.text);
    }
    eventually("all orders are assigned", SOON, || async {
        let waiting = world.count("SELECT count(*) FROM deliveries WHERE status = 'PENDING'").await;
        (waiting == 0).then_some(())
    })
    .await;
    let chosen: Vec<uuid::Uuid> =
        sqlx::query_scalar("SELECT driver_id FROM assignments").fetch_all(&world.pool).await.unwrap();
    let chosen: BTreeSet<usize> = chosen.iter().map(|id| rank[id.to_string().as_str()]).collect();
    assert_eq!(chosen, (0..40).collect(), "the forty nearest drivers have the orders");
    world.finish().await;
}
