//! Many orders, few drivers, two nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::support::*;

/// The oldest order that waits.
async fn oldest_waiting(world: &World) -> Option<uuid::Uuid> {
    sqlx::query_scalar("SELECT id FROM deliveries WHERE status = 'PENDING' ORDER BY created_at, id LIMIT 1")
        .fetch_optional(&world.pool)
        .await
        .expect("the deliveries")
}

/// Takes the next assignment of a driver and delivers it.
async fn deliver_next(driver: &Driver) {
    let (delivery, assignment) = driver.any_assignment().await;
    driver.deliver(&delivery, &assignment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_orders_race_for_a_hundred_drivers_and_the_rest_are_served_oldest_first() {
    let world = World::with().nodes(2).set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let places: Vec<Place> = (0..100).map(|n| RESTAURANT.offset(f64::from(n) * 23.0 - 1150.0, 300.0)).collect();
    let fleet = world.fleet(&places).await;

    let posts = (0..200).map(|n| {
        let world = &world;
        async move {
            let pickup = RESTAURANT.offset(f64::from(n % 10) * 50.0, f64::from(n % 7) * 60.0);
            world.order_at(&world.nodes[n as usize % 2], &Order::at(&format!("race-{n}"), pickup)).await
        }
    });
    for reply in together(posts).await {
        assert!(matches!(reply.status, 201 | 202), "{} {}", reply.status, reply.text);
    }
    eventually("every driver has an order", SOON, || async {
        let given = world.count("SELECT count(*) FROM deliveries WHERE status = 'ASSIGNED'").await;
        (given == 100).then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(DISTINCT driver_id) FROM assignments WHERE state = 'ACTIVE'").await, 100);
    assert_eq!(world.count("SELECT count(*) FROM deliveries WHERE status = 'PENDING'").await, 100);
    assert_eq!(world.count("SELECT count(*) FROM assignments").await, 100, "nobody was given and taken again");

    // One by one: whoever becomes free gets the oldest order.
    for driver in &fleet[..40] {
        let oldest = oldest_waiting(&world).await.expect("an order that waits").to_string();
        deliver_next(driver).await;
        driver.assignment(&oldest).await;
    }
    // And the rest all at once, until nothing waits.
    let rounds = fleet[40..].iter().map(deliver_next);
    together(rounds).await;
    eventually("nothing waits any more", SOON, || async { oldest_waiting(&world).await.is_none().then_some(()) }).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_with_orders_at_one_restaurant_give_each_to_the_nearest_who_is_free() {
    let world = World::with().nodes(2).set("HEARTBEAT_TTL_MS", 20_000).start().await;
    // In rings of about 60 m, each driver in a direction of their own.
    let places: Vec<Place> = (1..=50)
        .map(|n| {
            let (metres, angle) = (f64::from(n) * 61.0, f64::from(n) * 2.4);
            RESTAURANT.offset(metres * angle.cos(), metres * angle.sin())
        })
        .collect();
    let fleet = world.fleet(&places).await;
    let rank: BTreeMap<&str, usize> = fleet.iter().enumerate().map(|(n, driver)| (driver.id.as_str(), n)).collect();

    // One after the other, from either node: always the nearest of those who are left.
    for n in 0..10 {
        let answer = world.order_at(&world.nodes[n % 2], &Order::new(&format!("single-{n}"))).await.expect(201);
        assert_eq!(rank[answer["driverId"].as_str().unwrap()], n, "order {n} went past a nearer driver");
    }
    // Thirty at once: the thirty nearest, and nobody farther while one of them was free.
    let posts = (0..30).map(|n| {
        let world = &world;
        async move { world.order_at(&world.nodes[n % 2], &Order::new(&format!("crowd-{n}"))).await }
    });
    for reply in together(posts).await {
        assert!(matches!(reply.status, 201 | 202), "{} {}", reply.status, reply.text);
    }
    eventually("the crowd is served", SOON, || async {
        let waiting = world.count("SELECT count(*) FROM deliveries WHERE status = 'PENDING'").await;
        (waiting == 0).then_some(())
    })
    .await;
    let taken: Vec<uuid::Uuid> =
        sqlx::query_scalar("SELECT driver_id FROM assignments").fetch_all(&world.pool).await.unwrap();
    let taken: BTreeSet<usize> = taken.iter().map(|id| rank[id.to_string().as_str()]).collect();
    assert_eq!(taken, (0..40).collect(), "a farther driver was taken while a nearer one was free");
    world.finish().await;
}
