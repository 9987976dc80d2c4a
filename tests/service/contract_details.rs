//! Sentences of the contract that are easy to lose: each of these was lost once.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_configured_shop_only_secrets_address_and_rate_are_the_configurations() {
    let world = World::start().await;
    let admin = world.admin();
    assert_eq!(admin.patch("/api/v1/shops/vendure", &json!({})).await.expect(200)["name"], "vendure");
    let refused = admin.patch("/api/v1/shops/vendure", &json!({"ordersPerSecond": 5})).await;
    refused.refused(409, "configured_shop");
    let enabled = admin.post("/api/v1/shops/vendure/endpoint/enable", &json!({})).await.expect(200);
    assert_eq!((&enabled["name"], &enabled["endpoint"]["enabled"]), (&json!("vendure"), &json!(true)), "{enabled}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_change_of_duty_reaches_the_driver_whatever_its_reason_says() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT).await;
    let path = format!("/api/v1/drivers/{}/status", driver.id);
    world.admin().post(&path, &json!({"status": "OFFLINE", "reason": "asked by the driver"})).await.expect(200);
    let frame = driver.session.take("status").await;
    assert_eq!((&frame["status"], &frame["onDuty"]), (&json!("OFFLINE"), &json!(false)), "{frame}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_postgresql_cannot_hold_is_a_faulty_field() {
    let world = World::start().await;
    for key in [r#"["2026-01-01T00:00:00Z","\u0000"]"#, r#"["+12026-01-01T00:00:00Z","a"]"#] {
        let path = format!("/api/v1/shops?cursor={}", URL_SAFE_NO_PAD.encode(key));
        let reply = world.admin().get(&path).await;
        assert_eq!((reply.status, reply.invalid_field_names()), (422, vec!["cursor".to_owned()]), "{key}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_never_has_two_events_on_their_way_also_when_an_earlier_one_is_replayed() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT).await;
    let answer = world.post_order(&Order::new("twice")).await.expect(201);
    let id = answer["deliveryId"].as_str().expect("an id").to_owned();
    let assigned = driver.session.take("assignment").await;
    let step = |status: &str| {
        json!({"type": "delivery.update", "deliveryId": id, "assignmentId": assigned["delivery"]["assignmentId"],
               "status": status})
    };
    assert_eq!(driver.session.send_request(step("PICKED_UP")).await["type"], "ok");
    world.shop().wait_for_event(&id, "DELIVERY_PICKED_UP_V1").await;
    eventually("both are delivered", SOON, || async {
        (world.count("SELECT count(*) FROM outbox WHERE state = 'delivered'").await == 2).then_some(())
    })
    .await;
    // The later one is on its way from another node, and the earlier one is replayed.
    sqlx::query(
        "UPDATE outbox SET state = 'pending', next_try_at = clock_timestamp(),
                lease_owner = CASE WHEN type = 'DELIVERY_PICKED_UP_V1' THEN 'another-node' END,
                lease_until = CASE WHEN type = 'DELIVERY_PICKED_UP_V1' THEN clock_timestamp() + interval '4 s' END",
    )
    .execute(&world.pool)
    .await
    .expect("the outbox");
    let posts = || world.shop().posts_of(&id).len();
    holds("nothing is posted beside it", Duration::from_secs(2), || async { posts() == 2 }).await;
    eventually("both are posted after it", SOON, || async { (posts() == 4).then_some(()) }).await;
    let order: Vec<Value> = world.shop().posts_of(&id)[2..].iter().map(|post| post.event["event"].clone()).collect();
    assert_eq!(order, ["DELIVERY_ASSIGNED_V1", "DELIVERY_PICKED_UP_V1"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_may_lie_wherever_the_users_search_path_leads() {
    let world = World::with().nodes(0).start().await;
    sqlx::query("CREATE SCHEMA tracker").execute(&world.pool).await.expect("a schema");
    let url = format!("{}?options=-csearch_path%3Dtracker", world.database_url);
    let settings = world.env_with(&[("DATABASE_URL", url.as_str())]);
    let migrated = node::run(&["migrate"], &settings).await;
    assert_eq!(migrated.status.code(), Some(0), "{}", String::from_utf8_lossy(&migrated.stderr));
    assert_eq!(
        world.count("SELECT count(*) FROM pg_tables WHERE schemaname = 'tracker' AND tablename = 'drivers'").await,
        1
    );
    let mut node = world.start_node_with(&[("DATABASE_URL", url.as_str())]).await;
    assert!(node.is_running());
    drop(node);
    world.finish().await;
}
