//! Tests of the operators' API for deliveries and outbound events.

use serde_json::{Value, json};

use super::support::*;

fn ids(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("the list has items");
    items.iter().map(|item| item["id"].as_str().expect("the item has an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_posts_an_order_as_a_shop_does_and_gets_the_same_responses() {
    let world = World::start().await;
    let admin = world.admin();
    let order = Order::new("by-hand").with("shop", json!("vendure"));
    let made = admin.post("/api/v1/deliveries", &order.0).await.expect(202);
    assert_eq!((&made["status"], &made["duplicate"]), (&json!("PENDING"), &json!(false)));
    let again = world.post_order(&Order::new("by-hand")).await.expect(200);
    assert_eq!(
        (&again["deliveryId"], &again["duplicate"]),
        (&made["deliveryId"], &json!(true)),
        "the same order over both interfaces is one delivery"
    );

    let missing = admin.post("/api/v1/deliveries", &Order::new("no-shop").0).await;
    assert_eq!(missing.invalid_field_names(), ["shop"]);
    missing.problem(422);
    let bad = admin.post("/api/v1/deliveries", &json!({"shop": "vendure", "sellerOrderId": "x"})).await;
    assert!(bad.invalid_field_names().contains(&"channelId".to_owned()), "{}", bad.text);
    bad.problem(422);
    let nowhere = admin.post("/api/v1/deliveries", &Order::new("x").with("shop", json!("nobody")).0).await;
    assert_eq!((nowhere.status, nowhere.invalid_field_names()), (422, vec!["shop".to_owned()]), "{}", nowhere.text);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_are_listed_newest_first_in_pages_and_by_filters() {
    let world = World::start().await;
    let admin = world.admin();
    let mut made = Vec::new();
    for n in 0..5 {
        let order = Order::new(&format!("l{n}")).with("externalId", json!(format!("e{n}")));
        made.push(world.post_order(&order).await.expect(202)["deliveryId"].as_str().unwrap().to_owned());
    }
    world.post_cancellation("l1", None).await.expect(200);
    made.reverse();
    assert_eq!(ids(&admin.get("/api/v1/deliveries").await.expect(200)), made);
    let first = admin.get("/api/v1/deliveries?limit=2").await.expect(200);
    let cursor = first["nextCursor"].as_str().expect("there is another page");
    let second = admin.get(&format!("/api/v1/deliveries?limit=3&cursor={cursor}")).await.expect(200);
    assert_eq!([ids(&first), ids(&second)].concat(), made);
    assert!(second.get("nextCursor").is_none(), "{second}");

    let list = |query: String| {
        let admin = world.admin();
        async move { ids(&admin.get(&format!("/api/v1/deliveries?{query}")).await.expect(200)) }
    };
    assert_eq!(list("status=CANCELLED".into()).await, [made[3].clone()]);
    assert_eq!(list("sellerOrderId=l0&shop=vendure".into()).await, [made[4].clone()]);
    assert_eq!(list("externalId=e4".into()).await, [made[0].clone()]);
    let created = world.delivery(&made[2]).await["createdAt"].as_str().unwrap().to_owned();
    let from = list(format!("from={created}")).await;
    assert!(from.contains(&made[0]) && !from.contains(&made[4]), "{from:?}");
    assert!(list(format!("driverId={}", uuid::Uuid::now_v7())).await.is_empty());
    admin.get("/api/v1/deliveries?status=LOST").await.problem(422);
    for unknown in ["nonsense", "00000000-0000-7000-8000-000000000000"] {
        admin.get(&format!("/api/v1/deliveries/{unknown}")).await.problem(404);
        admin.get(&format!("/api/v1/deliveries/{unknown}/events")).await.problem(404);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_shows_its_known_fields_and_its_audit_rows_name_their_actors() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let mut order = Order::new("shown").with("metadata", json!({"k": [1, null]})).with("externalId", json!("e"));
    order.0["pickup"]["address"] = json!("1 Market St");
    order.0["pickup"]["contactName"] = json!("Meera");
    let response = world.post_order(&order).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap();
    let shown = world.delivery(id).await;
    assert_eq!(
        (&shown["shop"], &shown["sellerOrderId"], &shown["channelId"]),
        (&json!("vendure"), &json!("shown"), &json!("2"))
    );
    assert_eq!(
        (&shown["pickup"]["address"], &shown["pickup"]["contactName"]),
        (&json!("1 Market St"), &json!("Meera"))
    );
    assert_eq!((&shown["metadata"], &shown["externalId"]), (&json!({"k": [1, null]}), &json!("e")));
    assert_eq!((&shown["driverId"], &shown["assignmentId"]), (&json!(driver.id), &response["assignmentId"]));
    assert_eq!(shown["attempt"], 1);
    for unknown in ["orderCode", "pickedUpAt", "deliveredAt", "cancelledAt", "failure", "trackingUrl"] {
        assert!(shown.get(unknown).is_none(), "{unknown} is left out: {shown}");
    }
    driver.deliver(id, response["assignmentId"].as_str().unwrap()).await;
    let trail = world.admin().get(&format!("/api/v1/deliveries/{id}/events")).await.expect(200);
    let rows = trail["items"].as_array().unwrap();
    let kinds: Vec<_> = rows.iter().map(|r| (r["sequence"].as_i64().unwrap(), r["type"].as_str().unwrap())).collect();
    assert_eq!(kinds, [(4, "DELIVERED"), (3, "PICKED_UP"), (2, "ASSIGNED"), (1, "CREATED")]);
    assert_eq!(rows[3]["actor"], json!({"kind": "shop", "id": "vendure"}));
    assert_eq!(rows[2]["actor"]["kind"], "system");
    assert_eq!(rows[0]["actor"], json!({"kind": "driver", "id": driver.id}));
    assert!(rows.iter().all(|r| r["at"].is_string() && r["data"].is_object()));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_assigns_an_order_to_any_active_driver_with_a_free_slot() {
    let world = World::start().await;
    let admin = world.admin();
    let off_duty = world.connected_at(world.node(), RESTAURANT.offset(5_000.0, 0.0)).await;
    let id = world.post_order(&Order::new("by-word")).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/deliveries/{id}/assign");
    let body = json!({"driverId": off_duty.id, "reason": "knows the way"});
    let assigned_delivery = admin.post(&path, &body).await.expect(200);
    assert_eq!(
        (&assigned_delivery["status"], &assigned_delivery["driverId"]),
        (&json!("ASSIGNED"), &json!(off_duty.id))
    );
    let frame = off_duty.wait_for_assignment(&id).await;
    admin.post(&path, &body).await.problem(409);

    let second = world.post_order(&Order::new("second")).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
    let second_path = format!("/api/v1/deliveries/{second}/assign");
    admin.post(&second_path, &body).await.refused(409, "driver_full");
    off_duty.deliver(&id, frame["delivery"]["assignmentId"].as_str().unwrap()).await;
    world.wait_for_driver(&off_duty.id, "OFFLINE").await;
    admin.delete(&format!("/api/v1/drivers/{}", off_duty.id)).await.expect(204);
    admin.post(&second_path, &body).await.problem(409);
    let nobody = admin.post(&second_path, &json!({"driverId": uuid::Uuid::now_v7(), "reason": "x"})).await;
    assert_eq!((nobody.status, nobody.invalid_field_names()), (422, vec!["driverId".to_owned()]), "{}", nobody.text);
    admin.post(&second_path, &json!({})).await.problem(422);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_updates_a_delivery_under_the_same_rules_as_its_driver() {
    let world = World::start().await;
    let admin = world.admin();
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let response = world.post_order(&Order::new("told")).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap();
    let path = format!("/api/v1/deliveries/{id}/status");
    let update_status = |status: &'static str| {
        let (admin, path) = (admin.clone(), path.clone());
        async move { admin.post(&path, &json!({"status": status, "reason": "by phone"})).await }
    };
    let early = update_status("DELIVERED").await.refused(409, "invalid_transition");
    assert!(early.to_string().contains("ASSIGNED"), "the error names the current state: {early}");
    assert_eq!(update_status("PICKED_UP").await.expect(200)["status"], "PICKED_UP");
    assert_eq!(update_status("IN_TRANSIT").await.expect(200)["status"], "IN_TRANSIT");
    assert_eq!(update_status("DELIVERED").await.expect(200)["status"], "DELIVERED");
    update_status("DELIVERED").await.problem(409);
    update_status("ASSIGNED").await.problem(422);
    world.wait_for_driver(&driver.id, "AVAILABLE").await;
    world.shop().wait_for_event(id, "DELIVERY_DELIVERED_V1").await;

    let response = world.post_order(&Order::new("failed")).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap();
    driver.wait_for_assignment(id).await;
    let body =
        json!({"status": "FAILED", "reason": "flood", "failure": {"code": "DELIVERY_FAILED", "reason": "flood"}});
    let failed = admin.post(&format!("/api/v1/deliveries/{id}/status"), &body).await.expect(200);
    assert_eq!((&failed["status"], &failed["failure"]["code"]), (&json!("FAILED"), &json!("DELIVERY_FAILED")));
    let cancelled_frame = driver.session.take("assignment.cancelled").await;
    assert_eq!(cancelled_frame["deliveryId"], id);
    world.wait_for_driver(&driver.id, "AVAILABLE").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_cannot_fail_a_pending_delivery_but_can_cancel_and_retry_it() {
    let world = World::start().await;
    let admin = world.admin();
    let id = world.post_order(&Order::new("waiting")).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
    let action = |name: &str| format!("/api/v1/deliveries/{id}/{name}");
    let fail = json!({"status": "FAILED", "reason": "x", "failure": {"code": "NO_DRIVER"}});
    admin.post(&action("status"), &fail).await.refused(409, "invalid_transition");
    let cancelled = admin.post(&action("cancel"), &json!({"reason": "no"})).await.expect(200);
    assert_eq!(cancelled["status"], "CANCELLED");
    assert!(cancelled["cancelledAt"].is_string());
    admin.post(&action("cancel"), &json!({})).await.problem(422);
    let again = admin.post(&action("retry"), &json!({"reason": "yes"})).await.expect(200);
    assert_eq!((&again["status"], &again["attempt"]), (&json!("PENDING"), &json!(2)));
    assert!(again.get("cancelledAt").is_none(), "{again}");
    admin.post(&action("retry"), &json!({"reason": "yes"})).await.refused(409, "invalid_transition");
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    driver.wait_for_assignment(&id).await;
    assert_eq!(world.trail(&id).await, ["CREATED", "CANCELLED", "RETRIED", "ASSIGNED"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outbound_events_are_listed_and_read() {
    let world = World::start().await;
    let _driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let id = world.post_order(&Order::new("out")).await.expect(201)["deliveryId"].as_str().unwrap().to_owned();
    world.shop().wait_for_event(&id, "DELIVERY_ASSIGNED_V1").await;
    let listed = eventually("the event is delivered", SOON, || async {
        let listed = world.admin().get("/api/v1/outbound-events?state=delivered&shop=vendure").await.expect(200);
        (listed["items"].as_array()?.len() == 1).then_some(listed)
    })
    .await;
    let event = &listed["items"][0];
    assert_eq!((&event["type"], &event["sequence"]), (&json!("DELIVERY_ASSIGNED_V1"), &json!(2)));
    assert_eq!((&event["deliveryId"], &event["state"]), (&json!(id), &json!("delivered")));
    assert_eq!(event["attempts"][0]["status"], 200);
    assert!(event["createdAt"].is_string() && event.get("nextAttemptAt").is_none(), "{event}");
    let read =
        world.admin().get(&format!("/api/v1/outbound-events/{}", event["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(&read, event);
    world.admin().get("/api/v1/outbound-events?state=lost").await.problem(422);
    world.finish().await;
}
