//! Tests of links to proofs: long links are accepted, and an invalid link never blocks the step.

use serde_json::{Value, json};

use super::support::*;

/// Returns a link of `chars` characters, as an object store signs it.
fn link(chars: usize) -> String {
    let start = "https://proofs.s3.example.com/2026/01/27/4711.jpg?X-Amz-Security-Token=";
    format!("{start}{}", "T".repeat(chars - start.len()))
}

fn invalid_links() -> Vec<Value> {
    vec![
        json!(link(8193)),
        json!("ftp://x.example/1"),
        json!("javascript:alert(1)"),
        json!("not a link"),
        json!(""),
        json!("https://x.example/\u{0}"),
        json!("https://x.example/a\nb"),
        json!(5),
        json!(true),
        json!({"url": "https://x.example/1"}),
        json!(["https://x.example/1"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_link_is_accepted_over_the_socket_and_over_http() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let app = world.node().api().keyed(Some(&driver.token));
    let answer = world.post_order(&Order::new("signed")).await.expect(201);
    let (id, assignment) = (answer["deliveryId"].as_str().unwrap(), answer["assignmentId"].as_str().unwrap());
    let response = driver.update(id, assignment, "PICKED_UP", json!({"proofUrl": link(2374)})).await;
    assert_eq!((&response["type"], response.get("ignored")), (&json!("ok"), None), "{response}");
    let frame = json!({"type": "delivery.update", "deliveryId": id, "assignmentId": assignment, "status": "DELIVERED",
        "proofUrl": link(8192)});
    let response = app.post("/api/v1/driver/messages", &json!({"frames": [frame]})).await.expect(200);
    assert_eq!(
        (&response["answers"][0]["type"], response["answers"][0].get("ignored")),
        (&json!("ok"), None),
        "{response}"
    );
    let picked_up = world.shop().wait_for_event(id, "DELIVERY_PICKED_UP_V1").await.event;
    let delivered = world.shop().wait_for_event(id, "DELIVERY_DELIVERED_V1").await.event;
    assert_eq!(picked_up["pickupProofUrl"], link(2374));
    assert_eq!(delivered["deliveryProofUrl"], link(8192));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_proof_is_named_as_ignored_and_the_step_is_accepted() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let app = world.node().api().keyed(Some(&driver.token));
    for (n, proof) in invalid_links().into_iter().enumerate() {
        world.wait_for_driver(&driver.id, "AVAILABLE").await;
        let answer = world.post_order(&Order::new(&format!("proof-{n}"))).await;
        assert!(matches!(answer.status, 201 | 202), "{}", answer.text);
        let id = answer.body["deliveryId"].as_str().unwrap();
        let frame = driver.wait_for_assignment(id).await;
        let assignment = frame["delivery"]["assignmentId"].as_str().unwrap();
        let response = driver.update(id, assignment, "PICKED_UP", json!({"proofUrl": proof})).await;
        assert_eq!(
            (&response["type"], &response["status"]),
            (&json!("ok"), &json!("PICKED_UP")),
            "{proof} → {response}"
        );
        assert_eq!(response["ignored"], json!(["proofUrl"]), "{proof} → {response}");
        let update = json!({"type": "delivery.update", "deliveryId": id, "assignmentId": assignment,
            "status": "DELIVERED", "proofUrl": proof});
        // A repeat of an accepted step gets the same response.
        for _ in 0..2 {
            let response = app.post("/api/v1/driver/messages", &json!({"frames": [update]})).await.expect(200);
            let response = &response["answers"][0];
            assert_eq!(
                (&response["type"], &response["status"]),
                (&json!("ok"), &json!("DELIVERED")),
                "{proof} → {response}"
            );
            assert_eq!(response["ignored"], json!(["proofUrl"]), "{proof} → {response}");
        }
        let event = world.shop().wait_for_event(id, "DELIVERY_DELIVERED_V1").await.event;
        assert!(event.get("deliveryProofUrl").is_none(), "{event}");
    }
    // Over HTTP, a link that is larger than a frame may be.
    world.wait_for_driver(&driver.id, "AVAILABLE").await;
    let id = world.post_order(&Order::new("larger")).await.body["deliveryId"].as_str().unwrap().to_owned();
    let frame = driver.wait_for_assignment(&id).await;
    for status in ["PICKED_UP", "DELIVERED"] {
        let update = json!({"type": "delivery.update", "deliveryId": id, "status": status, "proofUrl": link(40_000),
            "assignmentId": frame["delivery"]["assignmentId"]});
        let response = app.post("/api/v1/driver/messages", &json!({"frames": [update]})).await.expect(200);
        assert_eq!(response["answers"][0]["ignored"], json!(["proofUrl"]), "{response}");
    }
    // Half of a surrogate pair, which is not valid text.
    world.wait_for_driver(&driver.id, "AVAILABLE").await;
    let id = world.post_order(&Order::new("half")).await.body["deliveryId"].as_str().unwrap().to_owned();
    let frame = driver.wait_for_assignment(&id).await;
    let assignment = &frame["delivery"]["assignmentId"];
    driver.session.send_text(&format!(
        r#"{{"type": "delivery.update", "ref": "h", "deliveryId": "{id}", "assignmentId": {assignment}, "status": "PICKED_UP", "proofUrl": "https://x.example/\ud83d"}}"#
    ));
    let response = driver.session.take_response("h").await;
    assert_eq!((&response["type"], &response["ignored"]), (&json!("ok"), &json!(["proofUrl"])), "{response}");
    world.finish().await;
}
