//! Tests that an error about a delivery names the delivery, over the socket and over HTTP.

use serde_json::{Value, json};
use tokio::task::block_in_place;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::support::*;

fn update(delivery: &str, assignment: &str, more: Value) -> Value {
    let mut frame = json!({
        "type": "delivery.update", "deliveryId": delivery, "assignmentId": assignment, "status": "DELIVERED",
    });
    more.as_object().unwrap().iter().for_each(|(name, value)| frame[name] = value.clone());
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_update_names_its_delivery_over_socket_and_http() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT).await;
    let answer = world.post_order(&Order::new("done")).await.expect(201);
    let text = |name: &str| answer[name].as_str().expect("the response has an id").to_owned();
    let (done, done_by) = (text("deliveryId"), text("assignmentId"));
    driver.wait_for_assignment(&done).await;
    driver.deliver(&done, &done_by).await;
    let answer = world.post_order(&Order::new("present")).await.expect(201);
    let text = |name: &str| answer[name].as_str().expect("the response has an id").to_owned();
    let (present, present_by) = (text("deliveryId"), text("assignmentId"));
    driver.wait_for_assignment(&present).await;

    let nobodys = uuid::Uuid::now_v7().to_string();
    let named = |id: &str| json!(id);
    let cases = [
        (update(&present, &present_by, json!({})), "invalid_transition", named(&present)),
        (update(&done, &done_by, json!({"status": "REJECTED"})), "assignment_closed", named(&done)),
        (update(&nobodys, &done_by, json!({})), "not_found", named(&nobodys)),
        (update(&present, &nobodys, json!({})), "not_found", named(&present)),
        (update(&present, "no id", json!({})), "invalid_frame", named(&present)),
        (update(&present, &present_by, json!({"status": "EATEN"})), "invalid_frame", named(&present)),
        (update(&present, &present_by, json!({"status": "FAILED"})), "invalid_frame", named(&present)),
        (update(&present, &present_by, json!({"lat": 1.0})), "invalid_frame", named(&present)),
        (update("no id", &present_by, json!({})), "invalid_frame", Value::Null),
        (json!({"type": "dance", "deliveryId": present}), "unknown_type", Value::Null),
    ];
    let app = world.node().api().keyed(Some(&driver.token));
    for (frame, code, subject) in cases {
        let by_socket = driver.session.send_request(frame.clone()).await;
        let by_http = app.post("/api/v1/driver/messages", &json!({"frames": [frame]})).await.expect(200);
        for answer in [&by_socket, &by_http["answers"][0]] {
            assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{frame} → {answer}");
            assert_eq!(answer["deliveryId"], subject, "{frame} → {answer}");
        }
    }
    // An unreadable `ref` does not suppress the rest of the error.
    let frame = update(&present, &present_by, json!({"ref": "r".repeat(65)}));
    driver.session.send(&frame);
    let answer = driver.session.take("error").await;
    assert_eq!((&answer["code"], &answer["deliveryId"]), (&json!("invalid_frame"), &json!(present)), "{answer}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_is_limited_or_unavailable_names_its_delivery() {
    let world = World::with().own_postgres().set("FRAMES_PER_SECOND", 5).start().await;
    let driver = world.connected_at(world.node(), RESTAURANT).await;
    let id = uuid::Uuid::now_v7().to_string();
    let is_limited = |frame: &Value| frame["code"] == "rate_limited";
    for n in 0..15 {
        driver.session.send(&update(&id, &id, json!({"ref": format!("fast-{n}")})));
    }
    let limited = driver.session.take_where("the error for a frame over the limit", SOON, is_limited).await;
    assert_eq!(limited["deliveryId"], id, "{limited}");
    assert!(limited["ref"].is_string(), "{limited}");

    // A fragmented message is over the limit when one of its fragments is. The error names the delivery too.
    let driver = world.connected_at(world.node(), RESTAURANT).await;
    let text = update(&id, &id, json!({"ref": "in parts"})).to_string().into_bytes();
    let parts = text.chunks(text.len().div_ceil(16)).collect::<Vec<_>>();
    for (n, part) in parts.iter().enumerate() {
        let kind = if n == 0 { Data::Text } else { Data::Continue };
        driver.session.send_raw(Message::Frame(Frame::message(
            part.to_vec(),
            OpCode::Data(kind),
            n + 1 == parts.len(),
        )));
    }
    let limited = driver.session.take_response("in parts").await;
    assert_eq!((&limited["code"], &limited["deliveryId"]), (&json!("rate_limited"), &json!(id)), "{limited}");

    let driver = world.connected_at(world.node(), RESTAURANT).await;
    let app = world.node().api().keyed(Some(&driver.token));
    let frames = vec![update(&id, &id, json!({})); 15];
    let responses =
        app.post("/api/v1/driver/messages", &json!({"frames": frames})).await.expect(200)["answers"].clone();
    let responses = responses.as_array().expect("the body has answers");
    assert!(
        responses.iter().any(is_limited) && responses.iter().all(|response| response["deliveryId"] == id),
        "{responses:?}"
    );

    let driver = world.connected_at(world.node(), RESTAURANT).await;
    let postgres = world.own_postgres.clone().expect("the world has its own PostgreSQL");
    block_in_place(|| postgres.stop());
    let response = driver.session.send_request(update(&id, &id, json!({}))).await;
    assert_eq!((&response["code"], &response["deliveryId"]), (&json!("unavailable"), &json!(id)), "{response}");
    block_in_place(|| postgres.start_again()).expect("PostgreSQL restarts");
    world.node().wait_for_health("ok").await;
    world.finish().await;
}
