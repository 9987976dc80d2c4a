//! Tests of orders that the shop cancels before or after the service has received them.

use serde_json::json;

use super::support::orders::{cancelled_path, signed, unsigned};
use super::support::plan::WEBHOOK_SECRET;
use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_frees_the_driver_and_notifies_driver_and_shop() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(300.0, 0.0)).await;
    let response = world.post_order(&Order::new("c1")).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap().to_owned();
    driver.wait_for_assignment(&id).await;

    let cancelled = world.post_cancellation("c1", Some("out of rice")).await.expect(200);
    assert_eq!((&cancelled["deliveryId"], &cancelled["status"]), (&json!(id), &json!("CANCELLED")));
    let cancelled_frame = driver.session.take("assignment.cancelled").await;
    assert_eq!(
        (&cancelled_frame["deliveryId"], &cancelled_frame["assignmentId"]),
        (&json!(id), &response["assignmentId"])
    );
    assert_eq!(cancelled_frame["reason"], "out of rice");
    let event = world.shop().wait_for_event(&id, "DELIVERY_CANCELLED_V1").await.event;
    assert_eq!((&event["reason"], &event["status"]), (&json!("out of rice"), &json!("CANCELLED")));
    assert!(event["cancelledAt"].is_string());
    assert_eq!(event["driverId"], driver.id.as_str());
    world.wait_for_driver(&driver.id, "AVAILABLE").await;

    let again = world.post_cancellation("c1", None).await.expect(200);
    assert_eq!(again["status"], "CANCELLED");
    assert_eq!(world.trail(&id).await, ["CREATED", "ASSIGNED", "CANCELLED"], "a repeated cancellation changes nothing");
    let reordered = world.post_order(&Order::new("c1")).await.expect(200);
    assert_eq!((&reordered["status"], &reordered["duplicate"]), (&json!("CANCELLED"), &json!(true)));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_pending_order_is_assigned_to_no_driver() {
    let world = World::start().await;
    let id = world.post_order(&Order::new("c2")).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
    world.post_cancellation("c2", None).await.expect(200);
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let other = world.post_order(&Order::new("c2-next")).await.expect(201);
    driver.wait_for_assignment(other["deliveryId"].as_str().unwrap()).await;
    assert_eq!(world.trail(&id).await, ["CREATED", "CANCELLED"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_in_a_terminal_state_cannot_be_cancelled() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(300.0, 0.0)).await;
    let response = world.post_order(&Order::new("done")).await.expect(201);
    let (id, assignment) = (response["deliveryId"].as_str().unwrap(), response["assignmentId"].as_str().unwrap());
    driver.deliver(id, assignment).await;
    world.post_cancellation("done", Some("too late")).await.refused(409, "already_terminal");

    let response = world.post_order(&Order::new("failed")).await.expect(201);
    let (id, assignment) = (response["deliveryId"].as_str().unwrap(), response["assignmentId"].as_str().unwrap());
    let failure = json!({"failure": {"code": "PICKUP_FAILED"}});
    assert_eq!(driver.update(id, assignment, "FAILED", failure).await["type"], "ok");
    world.post_cancellation("failed", None).await.refused(409, "already_terminal");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_cancellation_arrived_first_is_created_as_cancelled() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(300.0, 0.0)).await;
    world.post_cancellation("future", Some("changed my mind")).await.expect(202);
    world.post_cancellation("future", Some("changed my mind")).await.expect(202);
    let response = world.post_order(&Order::new("future")).await;
    assert!(matches!(response.status, 200..=202), "{}", response.text);
    assert_eq!((&response.body["status"], &response.body["duplicate"]), (&json!("CANCELLED"), &json!(false)));
    let id = response.body["deliveryId"].as_str().unwrap();
    let event = world.shop().wait_for_event(id, "DELIVERY_CANCELLED_V1").await.event;
    assert_eq!(event["reason"], "changed my mind");
    assert_eq!(world.trail(id).await, ["CREATED", "CANCELLED"]);
    assert_eq!(world.driver_status(&driver.id).await, "AVAILABLE");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_and_a_concurrent_cancellation_end_as_cancelled() {
    let world = World::with().nodes(2).start().await;
    let _driver = world.on_duty(RESTAURANT.offset(300.0, 0.0)).await;
    for n in 0..10 {
        let name = format!("race-{n}");
        let order = Order::new(&name);
        let (ordered, cancelled) = tokio::join!(
            world.post_order_at(&world.nodes[n % 2], &order),
            orders::post_cancellation(&world.nodes[(n + 1) % 2], &name, None, WEBHOOK_SECRET),
        );
        assert!(matches!(ordered.status, 200..=202), "{}", ordered.text);
        assert!(matches!(cancelled.status, 200 | 202), "{}", cancelled.text);
        let id = ordered.body["deliveryId"].as_str().unwrap().to_owned();
        world.wait_for_delivery(&id, "CANCELLED").await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_is_authenticated_and_validated_as_an_order_is() {
    let world = World::start().await;
    let (node, path) = (world.node(), cancelled_path("vendure"));
    http::send(unsigned(node, &path, b"{\"sellerOrderId\":\"1\",\"channelId\":\"2\"}")).await.problem(401);
    http::send(signed(node, &path, b"{", WEBHOOK_SECRET)).await.problem(400);
    let reply = http::send(signed(node, &path, b"{\"reason\": 7}", WEBHOOK_SECRET)).await;
    let fields = reply.invalid_field_names();
    reply.problem(422);
    for field in ["channelId", "reason", "sellerOrderId"] {
        assert!(fields.iter().any(|f| f == field), "the errors name {field}: {fields:?}");
    }
    world.finish().await;
}
