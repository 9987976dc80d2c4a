//! Tests of drivers whose app cannot hold a socket: the same token and the same rules over HTTP.

use chrono::{SecondsFormat, TimeDelta, Utc};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::support::http::Api;
use super::support::*;

fn fix(seconds_ago: i64, place: Place) -> Value {
    let at = (Utc::now() - TimeDelta::seconds(seconds_ago)).to_rfc3339_opts(SecondsFormat::Millis, true);
    json!({"fixTime": at, "lat": place.lat, "lon": place.lon})
}

/// Sends one frame over HTTP and returns its response.
async fn send_frame(app: &Api, frame: Value) -> Value {
    let response = app.post("/api/v1/driver/messages", &json!({"frames": [frame]})).await.expect(200);
    let responses = response["answers"].as_array().expect("the body has answers");
    assert_eq!(responses.len(), 1);
    responses[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_without_a_socket_completes_a_delivery() {
    let world = World::start().await;
    let (id, token) = world.new_driver().await;
    let app = world.node().api().keyed(Some(&token));
    let here = RESTAURANT.offset(120.0, 0.0);
    let fixes = json!({"fixes": [fix(1, here), {"fixTime": "noon", "lat": 1, "lon": 1}, fix(5, here)]});
    let response = app.post("/api/v1/driver/locations", &fixes).await.expect(200);
    assert_eq!(
        (&response["accepted"], &response["status"], &response["onDuty"]),
        (&json!(2), &json!("OFFLINE"), &json!(false))
    );
    assert_eq!(response["refused"][0]["index"], 1);
    assert_eq!(
        (&response["heartbeatIntervalMs"], &response["ttlMs"]),
        (&json!(2000), &json!(6000)),
        "the interval is the one for drivers off duty"
    );

    let on_duty = send_frame(&app, json!({"type": "status", "status": "AVAILABLE", "ref": "s"})).await;
    assert_eq!(
        (&on_duty["type"], &on_duty["ref"], &on_duty["status"]),
        (&json!("ok"), &json!("s"), &json!("AVAILABLE"))
    );
    eventually("the driver is in drivers:geo", SOON, || async {
        app.post("/api/v1/driver/locations", &json!({"fixes": [fix(0, here)]})).await.expect(200);
        world.redis.geo_members().await?.contains(&id).then_some(())
    })
    .await;
    let answer = world.post_order(&Order::new("by-http")).await;
    assert!(matches!(answer.status, 201 | 202), "{}", answer.text);
    let delivery = answer.body["deliveryId"].as_str().unwrap().to_owned();
    let assigned = world.wait_for_delivery(&delivery, "ASSIGNED").await;

    let state = app.get("/api/v1/driver/state").await.expect(200);
    assert_eq!((&state["driver"]["id"], &state["driver"]["status"]), (&json!(id), &json!("BUSY")));
    assert_eq!(state["deliveries"][0]["id"], delivery.as_str());
    assert_eq!(state["offers"], json!([]));
    let update = |status: &str| {
        json!({"type": "delivery.update", "deliveryId": delivery, "assignmentId": assigned["assignmentId"],
               "status": status})
    };
    let frames = json!({"frames": [update("PICKED_UP"), {"type": "dance", "ref": "d"}, update("DELIVERED")]});
    let responses = app.post("/api/v1/driver/messages", &frames).await.expect(200)["answers"].clone();
    assert_eq!((&responses[0]["type"], &responses[2]["type"]), (&json!("ok"), &json!("ok")), "{responses}");
    assert_eq!((&responses[1]["code"], &responses[1]["ref"]), (&json!("unknown_type"), &json!("d")));
    assert_eq!(world.delivery(&delivery).await["status"], "DELIVERED");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_json_body_is_processed_and_opens_or_replaces_no_session() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT).await;
    let app = world.node().api().keyed(Some(&driver.token));
    for body in [json!({"fixes": []}), json!({"fixes": [1, null, "x", {}]}), json!({})] {
        app.post("/api/v1/driver/locations", &body).await.expect(200);
    }
    let raw = app.request("POST", "/api/v1/driver/locations").header(CONTENT_TYPE, "application/json").body("{");
    http::send(raw).await.problem(400);
    let empty = world.node().api();
    for path in ["/api/v1/driver/locations", "/api/v1/driver/messages"] {
        empty.post(path, &json!({})).await.problem(401);
    }
    empty.get("/api/v1/driver/state").await.problem(401);
    world.admin().get("/api/v1/driver/state").await.problem(401);
    assert_eq!(driver.session.ended(), None);
    let response = world.post_order(&Order::new("still-there")).await.expect(201);
    driver.wait_for_assignment(response["deliveryId"].as_str().unwrap()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_http_request_of_a_driver_counts_as_a_frame() {
    let world = World::with().set("FRAMES_PER_SECOND", 2).start().await;
    for (method, path, good) in [("GET", "state", 200), ("POST", "ws-ticket", 201), ("POST", "locations", 200)] {
        let (_, token) = world.new_driver().await;
        let app = world.node().api().keyed(Some(&token));
        let path = format!("/api/v1/driver/{path}");
        let ask = async || match method {
            "GET" => app.get(&path).await,
            _ => app.post(&path, &json!({})).await,
        };
        // The requests within the limit succeed.
        for _ in 0..2 {
            ask().await.expect(good);
        }
        let limited = eventually("a request is limited", SOON, async || {
            let reply = ask().await;
            assert!(reply.status == good || reply.status == 429, "{path}: {}", reply.text);
            (reply.status == 429).then_some(reply)
        });
        let limited = limited.await;
        assert!(limited.retry_after_s() >= 1, "{path}");
        limited.refused(429, "rate_limited");
        // Another driver is not limited.
        let (_, other) = world.new_driver().await;
        world.node().api().keyed(Some(&other)).get("/api/v1/driver/state").await.expect(200);
    }
    world.finish().await;
}

/// Posts a body as text, because no JSON library writes these values.
async fn post_text(app: &Api, path: &str, body: String) -> Value {
    let request = app.request("POST", path).header(CONTENT_TYPE, "application/json").body(body);
    http::send(request).await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_out_of_range_invalidates_its_field_and_never_the_whole_body() {
    let world = World::start().await;
    let driver = world.connected_at(world.node(), RESTAURANT).await;
    let app = world.node().api().keyed(Some(&driver.token));
    let good = fix(1, RESTAURANT).to_string();
    let time = &good[good.find("20").unwrap()..][..24];
    let deep = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
    let fixes = format!(
        r#"[{good}, {{"fixTime": "{time}", "lat": 1e400, "lon": 1}}, {{"fixTime": "\ud83d", "lat": 1, "lon": 1}}, {deep},
            {{"fixTime": "{time}", "lat": {lat}, "lon": {lon}, "\ud83d": [1e999]}}]"#,
        lat = RESTAURANT.lat,
        lon = RESTAURANT.lon
    );
    let response = post_text(&app, "/api/v1/driver/locations", format!(r#"{{"fixes": {fixes}, "x": {deep}}}"#)).await;
    let refused = |response: &Value| -> Vec<(i64, String)> {
        let one = |one: &Value| (one["index"].as_i64().unwrap(), one["code"].as_str().unwrap().to_owned());
        response["refused"].as_array().unwrap().iter().map(one).collect()
    };
    let expected = [1, 2, 3].map(|index| (index, "invalid_frame".to_owned()));
    assert_eq!((response["accepted"].as_i64(), refused(&response)), (Some(2), expected.to_vec()), "{response}");

    driver.session.send_text(&format!(r#"{{"type": "batch", "ref": "b", "fixes": {fixes}}}"#));
    let response = driver.session.take_response("b").await;
    assert_eq!((response["accepted"].as_i64(), refused(&response)), (Some(2), expected.to_vec()), "{response}");

    let unknown_id = uuid::Uuid::now_v7();
    let update = |more: &str| {
        format!(
            r#"{{"type": "delivery.update", "deliveryId": "{unknown_id}", "assignmentId": "{unknown_id}", "status": "FAILED", {more}}}"#
        )
    };
    let frames = [
        update(r#""ref": "a", "failure": {"code": "PICKUP_FAILED", "reason": "\ud83d"}"#),
        update(r#""ref": "b", "lat": 1e400, "lon": 1, "failure": {"code": "PICKUP_FAILED"}"#),
        update(&format!(r#""ref": "c", "failure": {{"code": "PICKUP_FAILED"}}, "x": {deep}"#)),
        format!(r#"{{"type": "heartbeat", "ref": "d", "seq": 7, "fixTime": "{time}", "lat": -1e400, "lon": 1}}"#),
        r#"{"type": "status", "ref": "e", "status": {"a": 1e400}}"#.to_owned(),
    ];
    let expected = [("a", "reason "), ("b", "lat "), ("c", ""), ("d", "lat "), ("e", "status ")];
    let check = |answer: &Value, (reference, field): (&str, &str)| {
        let code = if field.is_empty() { "not_found" } else { "invalid_frame" };
        assert_eq!((&answer["ref"], &answer["code"]), (&json!(reference), &json!(code)), "{answer}");
        assert!(answer["message"].as_str().unwrap().starts_with(field), "{answer}");
        assert_eq!(answer["seq"].as_i64(), (reference == "d").then_some(7), "{answer}");
    };
    let body = format!(r#"{{"frames": [{}]}}"#, frames.join(", "));
    let responses = post_text(&app, "/api/v1/driver/messages", body).await;
    for (answer, expected) in responses["answers"].as_array().unwrap().iter().zip(expected) {
        check(answer, expected);
    }
    for (frame, expected) in frames.iter().zip(expected) {
        driver.session.send_text(frame);
        check(&driver.session.take_response(expected.0).await, expected);
    }
    let broken = app.request("POST", "/api/v1/driver/locations").header(CONTENT_TYPE, "application/json");
    http::send(broken.body(r#"{"fixes": [1e400}"#)).await.refused(400, "invalid_json");
    world.finish().await;
}
