//! Tests of invalid frames and of sessions that send them.

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::support::*;

fn at(offset: TimeDelta) -> String {
    (Utc::now() + offset).to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn now() -> String {
    at(TimeDelta::zero())
}

async fn connected(world: &World) -> Driver {
    world.connected_at(world.node(), RESTAURANT).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_frame_gets_an_error_with_code_field_and_ref_and_the_session_stays_open() {
    let world = World::start().await;
    let driver = connected(&world).await;
    let session = &driver.session;
    let id = uuid::Uuid::now_v7().to_string();
    let update = |more: Value| {
        let mut frame = json!({"type": "delivery.update", "deliveryId": id, "assignmentId": id, "status": "FAILED"});
        more.as_object().unwrap().iter().for_each(|(name, value)| frame[name] = value.clone());
        frame
    };
    let fix = json!({"fixTime": now(), "lat": 1.0, "lon": 1.0});
    let failure = json!({"code": "DELIVERY_FAILED"});
    let bad: Vec<(Value, &str, &str)> = vec![
        (json!({}), "invalid_frame", "type"),
        (json!({"type": 5}), "invalid_frame", "type"),
        (json!({"type": "dance"}), "unknown_type", ""),
        (json!({"type": "heartbeat", "lat": 1.0, "lon": 1.0, "fixTime": now()}), "invalid_frame", "seq"),
        (json!({"type": "heartbeat", "seq": "one"}), "invalid_frame", "seq"),
        (json!({"type": "heartbeat", "seq": 1, "lat": 1.0, "fixTime": now()}), "invalid_frame", "lon"),
        (json!({"type": "heartbeat", "seq": 1, "lon": 1.0, "fixTime": now()}), "invalid_frame", "lat"),
        (json!({"type": "heartbeat", "seq": 1, "lat": 91, "lon": 1, "fixTime": now()}), "invalid_frame", "lat"),
        (json!({"type": "heartbeat", "seq": 1, "lat": 1, "lon": 181, "fixTime": now()}), "invalid_frame", "lon"),
        (json!({"type": "heartbeat", "seq": 1, "lat": 1, "lon": "1", "fixTime": now()}), "invalid_frame", "lon"),
        (json!({"type": "heartbeat", "seq": 1, "lat": 1, "lon": 1, "fixTime": "noon"}), "invalid_frame", "fixTime"),
        (json!({"type": "batch"}), "invalid_frame", "fixes"),
        (json!({"type": "batch", "fixes": 7}), "invalid_frame", "fixes"),
        (json!({"type": "batch", "fixes": vec![fix.clone(); 101]}), "invalid_frame", "fixes"),
        (json!({"type": "status"}), "invalid_frame", "status"),
        (json!({"type": "status", "status": "BUSY"}), "invalid_frame", "status"),
        (json!({"type": "offer.answer", "answer": "accept"}), "invalid_frame", "offerId"),
        (json!({"type": "offer.answer", "offerId": id, "answer": "maybe"}), "invalid_frame", "answer"),
        (json!({"type": "offer.answer", "offerId": id, "answer": "accept"}), "not_found", ""),
        (update(json!({"deliveryId": null, "failure": failure})), "invalid_frame", "deliveryId"),
        (update(json!({"assignmentId": null, "failure": failure})), "invalid_frame", "assignmentId"),
        (update(json!({"status": "EATEN"})), "invalid_frame", "status"),
        (update(json!({})), "invalid_frame", "failure"),
        (update(json!({"failure": {"code": "TIMEOUT"}})), "invalid_frame", "failure.code"),
        (update(json!({"failure": failure, "lat": 1.0})), "invalid_frame", "lon"),
        (update(json!({"failure": failure})), "not_found", ""),
        (json!({"type": "ack"}), "invalid_frame", "messageId"),
    ];
    for (frame, code, field) in bad {
        let response = session.send_request(frame.clone()).await;
        assert_eq!((&response["type"], &response["code"]), (&json!("error"), &json!(code)), "{frame} → {response}");
        let message = response["message"].as_str().expect("the error has a message");
        assert!(message.contains(field), "{frame}: the message names {field}: {message}");
        assert_eq!(response["retryable"], false, "{response}");
        // A valid frame after each invalid one, so that the limit of consecutive invalid frames is not reached.
        assert_eq!(driver.request_duty("OFFLINE").await["type"], "ok");
    }
    for (text, code) in [("{", "invalid_json"), ("", "invalid_json"), ("[]", "invalid_frame"), ("7", "invalid_frame")] {
        session.send_text(text);
        let response = session.take("error").await;
        assert_eq!(response["code"], code, "{text:?} → {response}");
    }
    session.send(&json!({"type": "status", "status": "OFFLINE", "ref": "r".repeat(65)}));
    assert_eq!(session.take("error").await["code"], "invalid_frame");
    let longest = "🛵".repeat(64);
    session.send(&json!({"type": "status", "status": "OFFLINE", "ref": longest, "unknown": {"field": 1}}));
    assert_eq!(session.take_response(&longest).await["type"], "ok");
    assert_eq!(session.ended(), None);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_consistent_fixes_in_a_row_override_the_speed_rule() {
    let world = World::start().await;
    let mut driver = world.on_duty(RESTAURANT).await;
    driver.stop_heartbeats();
    // A distance of a few metres is never too fast, even within a very short time.
    for metres in [20.0, -20.0, 20.0] {
        driver.move_to(RESTAURANT.offset(metres, 0.0));
        driver.heartbeat().await;
    }
    assert!(driver.session.waiting("error").is_empty());
    let far = RESTAURANT.offset(30_000.0, 0.0);
    driver.move_to(far);
    for _ in 0..3 {
        world::let_time_pass("the fixes have different times", Duration::from_millis(30)).await;
        driver.heartbeat().await;
    }
    let response = world.post_order(&Order::at("far", far)).await;
    assert!(matches!(response.status, 201 | 202), "{}", response.text);
    driver.wait_for_assignment(response.body["deliveryId"].as_str().unwrap()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_response_to_a_batch_lists_refused_fixes_and_the_newest_fix_is_the_position() {
    let world = World::start().await;
    let driver = connected(&world).await;
    let fix = |seconds_ago: i64, place: Place| json!({"fixTime": at(TimeDelta::seconds(-seconds_ago)), "lat": place.lat, "lon": place.lon});
    let fixes = json!([
        fix(20, RESTAURANT.offset(0.0, 300.0)),
        {"fixTime": now(), "lat": 0, "lon": 0},
        fix(1, RESTAURANT.offset(0.0, 100.0)),
        {"fixTime": now(), "lat": 95, "lon": 0},
        fix(10, RESTAURANT.offset(0.0, 200.0)),
        7,
    ]);
    let response = driver.session.send_request(json!({"type": "batch", "fixes": fixes})).await;
    assert_eq!((&response["type"], &response["accepted"]), (&json!("ok"), &json!(3)), "{response}");
    let refused = response["refused"].as_array().unwrap();
    let by_index: Vec<_> =
        refused.iter().map(|r| (r["index"].as_i64().unwrap(), r["code"].as_str().unwrap())).collect();
    assert_eq!(by_index, [(1, "fix_at_zero"), (3, "invalid_frame"), (5, "invalid_frame")]);
    assert_eq!(driver.request_duty("AVAILABLE").await["type"], "ok");
    world.wait_for_candidates(std::slice::from_ref(&driver)).await;
    let newest = RESTAURANT.offset(0.0, 100.0);
    let shown = eventually("the position is the newest fix of the batch", SOON, || async {
        world.driver(&driver.id).await["position"]["lon"].as_f64().filter(|lon| (lon - newest.lon).abs() < 1e-4)
    })
    .await;
    assert!(shown.is_finite());
    // A batch of a hundred fixes may be larger than other frames may be.
    let long = json!({"fixTime": now(), "lat": RESTAURANT.lat, "lon": RESTAURANT.lon, "note": "x".repeat(400)});
    let response = driver.session.send_request(json!({"type": "batch", "fixes": vec![long; 100]})).await;
    assert_eq!(response["type"], "ok", "{response}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binary_frame_or_twenty_invalid_frames_in_a_row_end_the_session() {
    let world = World::start().await;
    let driver = connected(&world).await;
    driver.session.send_raw(Message::binary(vec![1, 2, 3]));
    driver.session.wait_for_close_code(1008).await;

    let driver = connected(&world).await;
    for round in 0..3 {
        for _ in 0..19 {
            driver.session.send_text("{");
        }
        assert_eq!(driver.request_duty("OFFLINE").await["type"], "ok", "round {round}");
    }
    assert_eq!(driver.session.ended(), None);
    for _ in 0..20 {
        driver.session.send_text("{");
    }
    driver.session.wait_for_close_code(1008).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_over_the_limit_ends_the_session() {
    let world = World::start().await;
    let padded = |kind: &str, bytes: usize| {
        let empty = json!({"type": kind, "status": "OFFLINE", "fixes": [], "ref": "big", "pad": ""}).to_string().len();
        json!({"type": kind, "status": "OFFLINE", "fixes": [], "ref": "big", "pad": "x".repeat(bytes - empty)})
    };
    let driver = connected(&world).await;
    driver.session.send(&padded("status", 16 * 1024));
    assert_eq!(driver.session.take_response("big").await["type"], "ok", "a frame of exactly the limit is accepted");
    driver.session.send(&padded("batch", 64 * 1024));
    assert_eq!(driver.session.take_response("big").await["type"], "ok", "a batch of exactly its limit is accepted");
    driver.session.send(&padded("status", 16 * 1024 + 1));
    driver.session.wait_for_close_code(1009).await;

    let driver = connected(&world).await;
    driver.session.send(&padded("batch", 64 * 1024 + 1));
    driver.session.wait_for_close_code(1009).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fragmented_frame_is_reassembled() {
    let world = World::start().await;
    let driver = connected(&world).await;
    let text = json!({"type": "status", "status": "OFFLINE", "ref": "päckchen"}).to_string().into_bytes();
    // The fragments split a multi-byte character.
    let cut = text.iter().position(|byte| !byte.is_ascii()).unwrap() + 1;
    let parts = [&text[..5], &text[5..cut], &text[cut..]];
    for (n, part) in parts.iter().enumerate() {
        let kind = if n == 0 { Data::Text } else { Data::Continue };
        let frame = Frame::message(part.to_vec(), OpCode::Data(kind), n == 2);
        driver.session.send_raw(Message::Frame(frame));
    }
    assert_eq!(driver.session.take_response("päckchen").await["type"], "ok");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_over_the_frame_limit_gets_an_error_and_is_closed_when_the_flood_continues() {
    let world = World::with().set("FRAMES_PER_SECOND", 5).start().await;
    let driver = connected(&world).await;
    for n in 0..30 {
        driver.session.send(&json!({"type": "status", "status": "OFFLINE", "ref": format!("fast-{n}")}));
    }
    let limited = driver.session.take("error").await;
    assert_eq!((&limited["code"], &limited["retryable"]), (&json!("rate_limited"), &json!(true)), "{limited}");
    assert!(limited["retryAfterMs"].as_i64().is_some_and(|ms| ms > 0), "{limited}");
    assert!(limited["ref"].is_string(), "the error names the frame that was not processed: {limited}");
    let deadline = tokio::time::Instant::now() + SOON;
    while driver.session.ended().is_none() {
        assert!(tokio::time::Instant::now() < deadline, "the flood ends the session in time");
        driver.session.send(&json!({"type": "status", "status": "OFFLINE"}));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    driver.session.wait_for_close_code(1008).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_of_an_unknown_command_is_ignored() {
    let world = World::start().await;
    let driver = connected(&world).await;
    driver.session.send(&json!({"type": "ack", "messageId": uuid::Uuid::now_v7()}));
    assert_eq!(driver.request_duty("OFFLINE").await["type"], "ok");
    assert!(driver.session.waiting("error").is_empty());
    world.finish().await;
}
