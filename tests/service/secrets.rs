//! Tests that logs never contain tokens, secrets, positions or bodies.

use serde_json::json;

use super::support::orders::{ready_path, unsigned};
use super::support::plan::WEBHOOK_SHARED_SECRET;
use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_at_any_level_contains_a_secret_a_position_or_a_body() {
    let world = World::with().set("RUST_LOG", "info,driver_tracker=trace").start().await;
    // Values that nothing else prints.
    let place = Place { lat: 12.987_654_3, lon: 77.612_345_6 };
    let driver = world.on_duty(place).await;
    let mut order =
        Order::at("logged", place.offset(50.0, 0.0)).with("metadata", json!({"note": "umbrella-xylophone"}));
    order.0["pickup"]["address"] = json!("Kaleidoscope Lane 7");
    order.0["drop"]["phone"] = json!("+91 99 8877 6655");
    let response = world.post_order(&order).await.expect(201);
    driver.wait_for_assignment(response["deliveryId"].as_str().unwrap()).await;
    let shared = unsigned(world.node(), &ready_path("vendure"), order.0.to_string().as_bytes());
    http::send(shared.header("X-Webhook-Secret", WEBHOOK_SHARED_SECRET)).await.expect(200);
    let moved = order.clone().with("drop", place.offset(500.0, 0.0).json());
    world.post_order(&moved).await.expect(200);
    driver.session.send_text(r#"{"type":"heartbeat","seq":"umbrella-xylophone","lat":12.9876543}"#);
    driver.session.take("error").await;
    let ticket = world.node().api().keyed(Some(&driver.token)).post("/api/v1/driver/ws-ticket", &json!({})).await;
    let ticket = ticket.expect(201)["ticket"].as_str().unwrap().to_owned();
    Session::open(session::upgrade(&world.node().address, &format!("/ws/driver?ticket={ticket}"), &[])).await.err();
    let guess = world.node().api().keyed(Some("guessed-token-of-somebody"));
    guess.get("/api/v1/drivers").await.problem(401);
    world.admin().post("/api/v1/drivers", &json!({"name": "", "phone": "umbrella-xylophone"})).await.problem(422);
    driver.deliver(response["deliveryId"].as_str().unwrap(), response["assignmentId"].as_str().unwrap()).await;

    assert!(world.node().log_lines().len() > 3, "the log is not empty");
    let forbidden =
        ["12.98765", "77.61234", "umbrella-xylophone", "Kaleidoscope", "8877 6655", "guessed-token", &ticket];
    world.assert_logs_keep_secrets(&forbidden.map(str::to_owned));
    world.finish().await;
}
