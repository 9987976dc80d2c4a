//! Tests that every given reason is in the audit rows.

use serde_json::{Value, json};

use super::support::*;

/// Returns the data of the newest audit row of a type.
async fn data_of(world: &World, id: &str, kind: &str) -> Value {
    let trail = world.admin().get(&format!("/api/v1/deliveries/{id}/events")).await.expect(200);
    let row = trail["items"].as_array().unwrap().iter().find(|row| row["type"] == kind);
    row.unwrap_or_else(|| panic!("no audit row {kind} in {trail}"))["data"].clone()
}

async fn post_action(world: &World, id: &str, action: &str, body: Value) {
    world.admin().post(&format!("/api/v1/deliveries/{id}/{action}"), &body).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_reason_is_recorded_with_every_action() {
    let world = World::start().await;
    let driver = world.connected_at(world.node(), RESTAURANT).await;
    let id = world.post_order(&Order::new("acts")).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
    let reason = |data: &Value| data["reason"].as_str().unwrap_or_default().to_owned();

    post_action(&world, &id, "assign", json!({"driverId": driver.id, "reason": "knows the way"})).await;
    assert_eq!(reason(&data_of(&world, &id, "ASSIGNED").await), "knows the way");
    for (status, why) in [
        ("PICKED_UP", "phone broken, called in"),
        ("IN_TRANSIT", "seen on the road"),
        ("DELIVERED", "the customer called"),
    ] {
        post_action(&world, &id, "status", json!({"status": status, "reason": why})).await;
        assert_eq!(reason(&data_of(&world, &id, status).await), why, "{status}");
    }

    let id = world.post_order(&Order::new("fails")).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
    for (failure, why, shown) in [
        (
            json!({"code": "DELIVERY_FAILED", "reason": "nobody at the door"}),
            "the customer called",
            "nobody at the door",
        ),
        (json!({"code": "TIMEOUT"}), "too late", "too late"),
        (Value::Null, "gave up", "gave up"),
    ] {
        post_action(&world, &id, "assign", json!({"driverId": driver.id, "reason": "x"})).await;
        post_action(&world, &id, "status", json!({"status": "FAILED", "reason": why, "failure": failure})).await;
        let data = data_of(&world, &id, "FAILED").await;
        assert_eq!((reason(&data).as_str(), &data["failure"]["reason"]), (why, &json!(shown)), "{data}");
        assert_eq!(world.delivery(&id).await["failure"]["reason"], shown);
        post_action(&world, &id, "retry", json!({"reason": "once more"})).await;
        assert_eq!(reason(&data_of(&world, &id, "RETRIED").await), "once more");
    }
    post_action(&world, &id, "cancel", json!({"reason": "sold out"})).await;
    assert_eq!(reason(&data_of(&world, &id, "CANCELLED").await), "sold out");

    let path = format!("/api/v1/drivers/{}/status", driver.id);
    world.admin().post(&path, &json!({"status": "AVAILABLE", "reason": "their phone is broken"})).await.expect(200);
    let recorded =
        "SELECT count(*) FROM driver_events WHERE reason = 'their phone is broken' AND actor_kind = 'operator'";
    assert_eq!(world.count(recorded).await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reasons_of_a_driver_and_a_shop_are_recorded() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let response = world.post_order(&Order::new("rejected")).await.expect(201);
    let (id, assignment) = (response["deliveryId"].as_str().unwrap(), response["assignmentId"].as_str().unwrap());
    let failure = json!({"code": "DRIVER_REJECTED", "reason": "too heavy"});
    assert_eq!(driver.update(id, assignment, "REJECTED", json!({"failure": failure})).await["type"], "ok");
    assert_eq!(data_of(&world, id, "UNASSIGNED").await["reason"], "too heavy");
    world.post_cancellation("rejected", Some("changed their mind")).await.expect(200);
    assert_eq!(data_of(&world, id, "CANCELLED").await["reason"], "changed their mind");
    world.post_cancellation("early", Some("never mind")).await.expect(202);
    let early = world.post_order(&Order::new("early")).await.expect(200);
    let early = early["deliveryId"].as_str().unwrap();
    assert_eq!(data_of(&world, early, "CANCELLED").await["reason"], "never mind");

    world.wait_for_driver(&driver.id, "AVAILABLE").await;
    let response = world.post_order(&Order::new("failed")).await;
    let id = response.body["deliveryId"].as_str().unwrap();
    let frame = driver.wait_for_assignment(id).await;
    let failure = json!({"code": "PICKUP_FAILED", "reason": "closed"});
    let more = json!({"failure": failure, "proofUrl": "https://x.example/door.jpg"});
    let assignment = frame["delivery"]["assignmentId"].as_str().unwrap();
    assert_eq!(driver.update(id, assignment, "FAILED", more).await["type"], "ok");
    let data = data_of(&world, id, "FAILED").await;
    assert_eq!(
        (&data["failure"]["reason"], &data["proofUrl"]),
        (&json!("closed"), &json!("https://x.example/door.jpg"))
    );
    assert!(data.get("reason").is_none(), "the driver's only reason is in the failure: {data}");
    world.finish().await;
}
