//! Tests of an order from the webhook to the drop-off, and of repeated orders.

use serde_json::json;

use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_delivered_and_the_shop_receives_its_events() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(300.0, 0.0)).await;
    let order = Order::new("4711")
        .with("orderCode", json!("T3XK"))
        .with("metadata", json!({"table": 7}))
        .with("externalId", json!("ext-1"))
        .with("items", json!([{"sku": "A1", "name": "Dosa", "quantity": 2}]));

    let response = world.post_order(&order).await.expect(201);
    assert_eq!((&response["status"], &response["duplicate"]), (&json!("ASSIGNED"), &json!(false)));
    assert_eq!((&response["shop"], &response["sellerOrderId"]), (&json!("vendure"), &json!("4711")));
    assert_eq!(response["driverId"], driver.id.as_str());
    let delivery = response["deliveryId"].as_str().unwrap().to_owned();

    let frame = driver.wait_for_assignment(&delivery).await;
    let pushed = &frame["delivery"];
    assert_eq!((&pushed["sellerOrderId"], &pushed["orderCode"]), (&json!("4711"), &json!("T3XK")));
    assert_eq!((&pushed["metadata"], &pushed["items"][0]["quantity"]), (&json!({"table": 7}), &json!(2)));
    assert_eq!(
        (&pushed["pickup"]["lat"], &pushed["drop"]["lon"]),
        (&order.0["pickup"]["lat"], &order.0["drop"]["lon"])
    );
    assert_eq!(pushed["assignmentId"], response["assignmentId"]);
    let busy = driver.session.take("status").await;
    assert_eq!(busy["status"], "BUSY");

    let assigned = world.shop().wait_for_event(&delivery, "DELIVERY_ASSIGNED_V1").await;
    assert!(assigned.signed);
    assert_eq!(assigned.headers["webhook-id"].to_str().unwrap(), assigned.event["eventId"].as_str().unwrap());
    let event = &assigned.event;
    assert_eq!((&event["version"], &event["attempt"], &event["status"]), (&json!(1), &json!(1), &json!("ASSIGNED")));
    assert_eq!((&event["sellerOrderId"], &event["channelId"]), (&json!("4711"), &json!("2")));
    assert_eq!((&event["orderCode"], &event["externalId"]), (&json!("T3XK"), &json!("ext-1")));
    assert_eq!((&event["metadata"], &event["driver"]["name"]), (&json!({"table": 7}), &json!(driver.name)));
    assert_eq!((&event["driverId"], &event["assignmentId"]), (&json!(driver.id), &response["assignmentId"]));
    assert!(event["assignedAt"].is_string() && event["timestamp"].is_string());

    driver.deliver(&delivery, response["assignmentId"].as_str().unwrap()).await;
    let done = world.shop().wait_for_event(&delivery, "DELIVERY_DELIVERED_V1").await;
    assert!(done.event["deliveredAt"].is_string());
    let names = ["DELIVERY_ASSIGNED_V1", "DELIVERY_PICKED_UP_V1", "DELIVERY_DELIVERED_V1"];
    assert_eq!(world.shop().accepted(&delivery), names);
    assert_eq!(world.trail(&delivery).await, ["CREATED", "ASSIGNED", "PICKED_UP", "DELIVERED"]);
    let free = driver.session.take("status").await;
    assert_eq!((&free["status"], &free["onDuty"]), (&json!("AVAILABLE"), &json!(true)));
    assert_eq!(world.delivery(&delivery).await["status"], "DELIVERED");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_identical_concurrent_webhooks_on_two_nodes_make_one_delivery_and_one_assignment() {
    let world = World::with().nodes(2).start().await;
    let fleet = world.fleet(&[RESTAURANT.offset(200.0, 0.0), RESTAURANT.offset(0.0, 400.0)]).await;
    let order = Order::new("one-and-only");
    let posts = (0..20).map(|n| world.post_order_at(&world.nodes[n % 2], &order));
    let responses = join_all(posts).await;

    let first_time = responses.iter().filter(|a| a.body["duplicate"] == false).count();
    assert_eq!(first_time, 1, "exactly one post creates the delivery");
    let id = responses[0].body["deliveryId"].as_str().unwrap().to_owned();
    for response in &responses {
        assert!(matches!(response.status, 200..=202), "{}", response.text);
        assert_eq!(response.body["deliveryId"], id.as_str());
        assert!(response.body.get("conflict").is_none_or(|c| c == false), "{}", response.text);
    }
    world.wait_for_delivery(&id, "ASSIGNED").await;
    assert_eq!(world.count("SELECT count(*) FROM deliveries").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM assignments").await, 1);
    let nearest = &fleet[0];
    assert_eq!(world.delivery(&id).await["driverId"], nearest.id.as_str());
    assert_eq!(world.trail(&id).await, ["CREATED", "ASSIGNED"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_without_candidates_is_assigned_to_the_first_driver_who_goes_on_duty() {
    let world = World::start().await;
    let response = world.post_order(&Order::new("early")).await.expect(202);
    assert_eq!(response["status"], "PENDING");
    assert!(response.get("driverId").is_none() && response.get("assignmentId").is_none(), "{response}");
    let id = response["deliveryId"].as_str().unwrap().to_owned();

    let driver = world.on_duty(RESTAURANT.offset(900.0, 0.0)).await;
    driver.wait_for_assignment(&id).await;
    let again = world.post_order(&Order::new("early")).await.expect(200);
    assert_eq!((&again["status"], &again["duplicate"]), (&json!("ASSIGNED"), &json!(true)));
    assert_eq!(again["driverId"], driver.id.as_str());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_order_survives_the_death_of_every_node() {
    let mut world = World::start().await;
    let id = world.post_order(&Order::new("patient")).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
    world.nodes[0].kill9().await;
    let node = world.start_node().await;
    world.nodes = vec![node];
    let driver = world.on_duty(RESTAURANT.offset(100.0, 100.0)).await;
    driver.wait_for_assignment(&id).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_reaches_across_regions_but_not_beyond_the_search_radius() {
    let world = World::with().set("SEARCH_MAX_RADIUS_M", 10_000).start().await;
    // Far enough that no region of a city's size contains both ends.
    let far = world.on_duty(RESTAURANT.offset(9_000.0, 3_000.0)).await;
    let too_far = world.on_duty(RESTAURANT.offset(-10_300.0, 0.0)).await;
    let first = world.post_order(&Order::new("far")).await.expect(201);
    assert_eq!(first["driverId"], far.id.as_str());
    let second = world.post_order(&Order::new("too-far")).await.expect(202);
    assert_eq!(second["status"], "PENDING");
    // The driver comes into the search radius by moving. Nothing else is needed.
    too_far.move_to(RESTAURANT.offset(-9_900.0, 0.0));
    too_far.wait_for_assignment(second["deliveryId"].as_str().unwrap()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_off_duty_or_silent_gets_no_order() {
    let world = World::with().set("HEARTBEAT_TTL_MS", 3000).start().await;
    let off_duty = world.connected_at(world.node(), RESTAURANT.offset(50.0, 0.0)).await;
    off_duty.heartbeat().await;
    let mut silent = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    silent.stop_heartbeats();
    eventually("the silent driver leaves drivers:geo", SOON, || async {
        (!world.redis.geo_members().await?.contains(&silent.id)).then_some(())
    })
    .await;
    let response = world.post_order(&Order::new("nobody-there")).await.expect(202);
    // The next heartbeat makes the driver a candidate again. Nothing else is needed.
    silent.start_heartbeats();
    silent.wait_for_assignment(response["deliveryId"].as_str().unwrap()).await;
    assert_eq!(world.driver(&silent.id).await["status"], "BUSY");
    world.finish().await;
}
