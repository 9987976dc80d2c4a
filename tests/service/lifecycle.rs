//! Tests of the states of a delivery, changed by its driver and by operators.

use serde_json::{Value, json};

use super::support::*;

/// Returns a driver with an assigned order, the delivery's id and the assignment's id.
async fn assigned(world: &World, name: &str) -> (Driver, String, String) {
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let (id, assignment) = order_for(world, &driver, name).await;
    (driver, id, assignment)
}

async fn order_for(world: &World, driver: &Driver, name: &str) -> (String, String) {
    let response = world.post_order(&Order::new(name)).await.expect(201);
    assert_eq!(response["driverId"], driver.id.as_str());
    let text = |name: &str| response[name].as_str().unwrap().to_owned();
    let (id, assignment) = (text("deliveryId"), text("assignmentId"));
    driver.wait_for_assignment(&id).await;
    (id, assignment)
}

fn refused_with(response: &Value, code: &str) {
    assert_eq!((&response["type"], &response["code"]), (&json!("error"), &json!(code)), "{response}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_reports_every_state_and_repeats_change_nothing() {
    let world = World::start().await;
    let (driver, id, assignment) = assigned(&world, "whole").await;
    let early = driver.update(&id, &assignment, "DELIVERED", json!({})).await;
    refused_with(&early, "invalid_transition");
    assert!(early["message"].as_str().unwrap().contains("ASSIGNED"), "the error names the current state: {early}");

    let proof = "https://proof.example.com/p.jpg";
    for (status, more) in [
        ("PICKED_UP", json!({"proofUrl": proof})),
        ("PICKED_UP", json!({})),
        ("IN_TRANSIT", json!({})),
        ("PICKED_UP", json!({})),
        ("IN_TRANSIT", json!({})),
        ("DELIVERED", json!({"proofUrl": proof, "lat": 12.9352, "lon": 77.6245})),
        ("DELIVERED", json!({})),
        ("IN_TRANSIT", json!({})),
    ] {
        let response = driver.update(&id, &assignment, status, more).await;
        assert_eq!(response["type"], "ok", "{status}: {response}");
    }
    assert_eq!(world.trail(&id).await, ["CREATED", "ASSIGNED", "PICKED_UP", "IN_TRANSIT", "DELIVERED"]);
    let delivery = world.delivery(&id).await;
    assert!(delivery["assignedAt"].is_string() && delivery["pickedUpAt"].is_string());
    assert!(delivery["deliveredAt"].is_string() && delivery.get("cancelledAt").is_none());

    let picked_up = world.shop().wait_for_event(&id, "DELIVERY_PICKED_UP_V1").await.event;
    assert_eq!(picked_up["pickupProofUrl"], proof);
    assert!(picked_up["pickedUpAt"].is_string());
    let done = world.shop().wait_for_event(&id, "DELIVERY_DELIVERED_V1").await.event;
    assert_eq!((&done["deliveryProofUrl"], &done["deliveryLat"]), (&json!(proof), &json!(12.9352)));
    assert_eq!((&done["deliveryLon"], &done["driver"]["name"]), (&json!(77.6245), &json!(driver.name)));
    assert_eq!(world.shop().accepted(&id).len(), 3, "IN_TRANSIT is never posted to the shop");
    let failed = driver.update(&id, &assignment, "FAILED", json!({"failure": {"code": "DELIVERY_FAILED"}})).await;
    refused_with(&failed, "assignment_closed");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_order_is_pending_again_and_assigned_to_another_driver() {
    let world = World::start().await;
    let (driver, id, assignment) = assigned(&world, "rejected").await;
    // The driver goes off duty, so that only the other driver is a candidate for the next round.
    assert_eq!(driver.request_duty("OFFLINE").await["type"], "ok");
    let response = driver.update(&id, &assignment, "REJECTED", json!({"failure": {"code": "DRIVER_REJECTED"}})).await;
    assert_eq!((&response["type"], &response["status"]), (&json!("ok"), &json!("PENDING")), "{response}");
    world.wait_for_driver(&driver.id, "OFFLINE").await;
    assert_eq!(driver.update(&id, &assignment, "REJECTED", json!({})).await["type"], "ok", "a repeat succeeds");

    let unassigned = world.shop().wait_for_event(&id, "DELIVERY_UNASSIGNED_V1").await.event;
    assert_eq!((&unassigned["previousDriverId"], &unassigned["status"]), (&json!(driver.id), &json!("PENDING")));
    assert!(unassigned["reason"].is_string());
    let other = world.on_duty(RESTAURANT.offset(400.0, 0.0)).await;
    other.wait_for_assignment(&id).await;
    let delivery = world.delivery(&id).await;
    assert_eq!((&delivery["attempt"], &delivery["driverId"]), (&json!(2), &json!(other.id)));
    refused_with(&driver.update(&id, &assignment, "PICKED_UP", json!({})).await, "assignment_closed");
    assert_eq!(world.trail(&id).await, ["CREATED", "ASSIGNED", "UNASSIGNED", "ASSIGNED"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_pickup_an_order_cannot_be_rejected() {
    let world = World::start().await;
    let (driver, id, assignment) = assigned(&world, "kept").await;
    assert_eq!(driver.update(&id, &assignment, "PICKED_UP", json!({})).await["type"], "ok");
    let response = driver.update(&id, &assignment, "REJECTED", json!({})).await;
    refused_with(&response, "invalid_transition");
    assert!(response["message"].as_str().unwrap().contains("PICKED_UP"), "{response}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_delivery_is_reported_with_its_failure_and_can_be_retried() {
    let world = World::start().await;
    let (driver, id, assignment) = assigned(&world, "failed").await;
    let failure = json!({"failure": {"code": "PICKUP_FAILED", "reason": "shop closed"}});
    let response = driver.update(&id, &assignment, "FAILED", failure).await;
    assert_eq!((&response["type"], &response["status"]), (&json!("ok"), &json!("FAILED")), "{response}");
    let event = world.shop().wait_for_event(&id, "DELIVERY_FAILED_V1").await.event;
    assert_eq!(
        (&event["failure"]["code"], &event["failure"]["reason"]),
        (&json!("PICKUP_FAILED"), &json!("shop closed"))
    );
    assert!(event["failure"]["occurredAt"].is_string());
    assert_eq!(world.delivery(&id).await["failure"]["code"], "PICKUP_FAILED");
    world.wait_for_driver(&driver.id, "AVAILABLE").await;

    let path = format!("/api/v1/deliveries/{id}/retry");
    let again = world.admin().post(&path, &json!({"reason": "open now"})).await.expect(200);
    assert_eq!(again["attempt"], 2);
    let frame = driver.wait_for_assignment(&id).await;
    let second = frame["delivery"]["assignmentId"].as_str().unwrap();
    assert_ne!(second, assignment);
    driver.deliver(&id, second).await;
    let delivery = world.delivery(&id).await;
    assert!(delivery.get("failure").is_none(), "{delivery}");
    let expected_rows = ["CREATED", "ASSIGNED", "FAILED", "RETRIED", "ASSIGNED", "PICKED_UP", "DELIVERED"];
    assert_eq!(world.trail(&id).await, expected_rows);
    world.admin().post(&path, &json!({"reason": "once more"})).await.refused(409, "invalid_transition");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_drivers_delivery_is_not_found_and_nothing_changes() {
    let world = World::start().await;
    let (driver, id, assignment) = assigned(&world, "mine").await;
    let other_driver = world.on_duty(RESTAURANT.offset(3_000.0, 0.0)).await;
    refused_with(&other_driver.update(&id, &assignment, "PICKED_UP", json!({})).await, "not_found");
    let made_up = uuid::Uuid::now_v7().to_string();
    refused_with(&driver.update(&id, &made_up, "PICKED_UP", json!({})).await, "not_found");
    refused_with(&driver.update(&made_up, &assignment, "PICKED_UP", json!({})).await, "not_found");
    assert_eq!(world.trail(&id).await, ["CREATED", "ASSIGNED"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_update_of_a_cancelled_delivery_changes_nothing() {
    let world = World::start().await;
    let (driver, id, assignment) = assigned(&world, "cancelled").await;
    assert_eq!(driver.update(&id, &assignment, "PICKED_UP", json!({})).await["type"], "ok");
    let path = format!("/api/v1/deliveries/{id}/cancel");
    let cancelled = world.admin().post(&path, &json!({"reason": "customer called"})).await.expect(200);
    assert_eq!(cancelled["status"], "CANCELLED");
    let cancelled_frame = driver.session.take("assignment.cancelled").await;
    assert_eq!((&cancelled_frame["deliveryId"], &cancelled_frame["reason"]), (&json!(id), &json!("customer called")));
    refused_with(&driver.update(&id, &assignment, "DELIVERED", json!({})).await, "assignment_closed");
    assert_eq!(world.delivery(&id).await["status"], "CANCELLED");
    // A state that this assignment already passed still succeeds.
    assert_eq!(driver.update(&id, &assignment, "PICKED_UP", json!({})).await["type"], "ok");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_concurrent_updates_make_one_audit_row() {
    let world = World::start().await;
    let (driver, id, assignment) = assigned(&world, "eager").await;
    let responses = join_all((0..20).map(|_| driver.update(&id, &assignment, "PICKED_UP", json!({})))).await;
    assert!(responses.iter().all(|a| a["type"] == "ok"), "{responses:?}");
    assert_eq!(world.trail(&id).await, ["CREATED", "ASSIGNED", "PICKED_UP"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_who_rejects_stays_on_duty_and_is_not_assigned_the_same_delivery_again() {
    let world = World::start().await;
    let (driver, id, assignment) = assigned(&world, "unwanted").await;
    let other = world.on_duty(RESTAURANT.offset(2_000.0, 0.0)).await;
    let response = driver.update(&id, &assignment, "REJECTED", json!({"failure": {"code": "DRIVER_REJECTED"}})).await;
    assert_eq!(response["type"], "ok", "{response}");
    other.wait_for_assignment(&id).await;
    assert_eq!(world.driver_status(&driver.id).await, "AVAILABLE");
    world.finish().await;
}
