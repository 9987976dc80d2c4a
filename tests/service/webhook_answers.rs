//! Tests of every response of the order webhook.

use chrono::Utc;
use serde_json::{Value, json};

use super::support::orders::{ready_path, sign, signed, unsigned};
use super::support::plan::{WEBHOOK_SECRET, WEBHOOK_SHARED_SECRET};
use super::support::*;

const OTHER_SECRET: &str = "whsec_YW5vdGhlci1zZWNyZXQtdGhhdC1pcy1ub3QtdGhlLXJpZ2h0LW9uZQ==";

fn body(id: &str) -> Vec<u8> {
    Order::new(id).0.to_string().into_bytes()
}

async fn post(world: &World, body: &[u8]) -> Reply {
    http::send(signed(world.node(), &ready_path("vendure"), body, WEBHOOK_SECRET)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_is_authenticated_only_by_its_signature_or_its_shared_secret() {
    let both = format!("{OTHER_SECRET},{WEBHOOK_SECRET}");
    let world = World::with().set("VENDURE_WEBHOOK_SECRET", both).start().await;
    let (node, path, body) = (world.node(), ready_path("vendure"), body("1"));
    let now = Utc::now().timestamp();
    let plain = || unsigned(node, &path, &body);
    let with = |secret: &str, at: i64| sign(secret, "msg_1", at, &body);
    let headers = |request: reqwest::RequestBuilder, headers: [(&'static str, String); 3]| {
        headers.into_iter().fold(request, |request, (name, value)| request.header(name, value))
    };
    const WRONG: &str = "whsec_bm9ib2R5LWtub3dzLXRoaXMtc2VjcmV0LW9mLW5vYm9keQ==";

    let mut forged = with(WEBHOOK_SECRET, now);
    forged[0].1 = "msg_2".to_owned();
    let mut without_id = with(WEBHOOK_SECRET, now).to_vec();
    without_id.remove(0);
    let without_id = without_id.into_iter().fold(plain(), |r, (name, value)| r.header(name, value));
    let refused = [
        ("nothing", plain()),
        ("a wrong shared secret", plain().header("X-Webhook-Secret", "guess")),
        ("an empty shared secret", plain().header("X-Webhook-Secret", "")),
        ("a signature by a wrong secret", headers(plain(), with(WRONG, now))),
        ("a signature of another id", headers(plain(), forged)),
        ("a stale signature", headers(plain(), with(WEBHOOK_SECRET, now - 305))),
        ("a signature from the future", headers(plain(), with(WEBHOOK_SECRET, now + 310))),
        ("a signature without its id", without_id),
        (
            "a wrong signature beside the right shared secret",
            headers(plain(), with(WRONG, now)).header("X-Webhook-Secret", WEBHOOK_SHARED_SECRET),
        ),
    ];
    for (what, request) in refused {
        let reply = http::send(request).await;
        assert_eq!(reply.status, 401, "{what}: {}", reply.text);
        reply.problem(401);
    }
    assert_eq!(world.count("SELECT count(*) FROM deliveries").await, 0);

    let mut several = with(WEBHOOK_SECRET, now - 290);
    several[2].1 = format!("v1,bm90LXRoZS1zaWduYXR1cmU= v2,whatever {}", several[2].1);
    let accepted = [
        ("the shared secret", plain().header("X-Webhook-Secret", WEBHOOK_SHARED_SECRET)),
        ("a signature", headers(plain(), with(WEBHOOK_SECRET, now))),
        ("a signature by the other secret of a rotation", headers(plain(), with(OTHER_SECRET, now))),
        ("one good signature of several, nearly stale", headers(plain(), several)),
        (
            "a good signature beside a wrong shared secret",
            headers(plain(), with(WEBHOOK_SECRET, now)).header("X-Webhook-Secret", "guess"),
        ),
    ];
    for (what, request) in accepted {
        let reply = http::send(request).await;
        assert!(matches!(reply.status, 200..=202), "{what}: {} {}", reply.status, reply.text);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_shop_gets_the_same_response_as_a_wrong_secret() {
    let world = World::start().await;
    let body = body("1");
    let wrong = http::send(signed(world.node(), &ready_path("vendure"), &body, OTHER_SECRET)).await.problem(401);
    let unknown = http::send(signed(world.node(), &ready_path("nobody"), &body, WEBHOOK_SECRET)).await.problem(401);
    assert_eq!(wrong["code"], unknown["code"]);
    assert_eq!(wrong["title"], unknown["title"]);
    assert_eq!(wrong["detail"], unknown["detail"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_path_of_the_previous_service_is_an_alias() {
    let world = World::start().await;
    let body = body("old-path");
    let old = http::send(signed(world.node(), "/events/seller-order-ready", &body, WEBHOOK_SECRET)).await.expect(202);
    assert_eq!(old["shop"], "vendure");
    let new = post(&world, &body).await.expect(200);
    assert_eq!((&new["deliveryId"], &new["duplicate"]), (&old["deliveryId"], &json!(true)));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_are_in_the_order_of_size_type_credentials_json_and_fields() {
    let world = World::start().await;
    let (node, path) = (world.node(), ready_path("vendure"));
    let huge = vec![b' '; 256 * 1024 + 1];
    let text = |body: &[u8]| node.api().request("POST", &path).header("content-type", "text/plain").body(body.to_vec());

    http::send(text(&huge)).await.problem(413);
    http::send(text(b"{")).await.problem(415);
    http::send(node.api().request("POST", &path).body(b"{}".to_vec())).await.problem(415);
    http::send(unsigned(node, &path, b"{")).await.problem(401);
    let mut exactly = body("padded");
    exactly.resize(256 * 1024, b' ');
    post(&world, &exactly).await.expect(202);
    let kinds = ["application/json; charset=utf-8", "Application/JSON"];
    for kind in kinds {
        let request = node.api().request("POST", &path).header("content-type", kind).body(body("padded"));
        http::send(request.header("X-Webhook-Secret", WEBHOOK_SHARED_SECRET)).await.expect(200);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_order_mark_before_a_body_is_signed_and_is_not_part_of_its_json() {
    let world = World::start().await;
    let marked = |body: &str| format!("\u{feff}{body}");
    let order = marked(&Order::new("marked").0.to_string());
    let made = post(&world, order.as_bytes()).await.expect(202);
    assert_eq!(post(&world, &body("marked")).await.expect(200)["deliveryId"], made["deliveryId"]);
    let unsigned_mark = sign(WEBHOOK_SECRET, "msg_1", Utc::now().timestamp(), &body("marked"));
    let request = unsigned(world.node(), &ready_path("vendure"), order.as_bytes());
    let request = unsigned_mark.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    http::send(request).await.problem(401);
    post(&world, marked(&order).as_bytes()).await.refused(400, "invalid_json");
    let cancelled = marked(r#"{"sellerOrderId": "marked", "channelId": "2"}"#);
    let path = super::support::orders::cancelled_path("vendure");
    http::send(signed(world.node(), &path, cancelled.as_bytes(), WEBHOOK_SECRET)).await.expect(200);

    let send = |api: &http::Api, method: &str, path: &str, body: String| {
        http::send(api.request(method, path).header("content-type", "application/json").body(body))
    };
    let admin = world.admin();
    let by_hand = marked(&Order::new("by-hand").with("shop", json!("vendure")).0.to_string());
    send(&admin, "POST", "/api/v1/deliveries", by_hand).await.expect(202);
    let driver = send(&admin, "POST", "/api/v1/drivers", marked(r#"{"name": "Asha", "phone": "1"}"#)).await.expect(201);
    let path = format!("/api/v1/drivers/{}", driver["id"].as_str().unwrap());
    assert_eq!(send(&admin, "PATCH", &path, marked(r#"{"name": "Meera"}"#)).await.expect(200)["name"], "Meera");
    let (_, token) = world.new_token(driver["id"].as_str().unwrap()).await;
    let app = world.node().api().keyed(Some(&token));
    send(&app, "POST", "/api/v1/driver/locations", marked(r#"{"fixes": []}"#)).await.expect(200);
    let frames = marked(r#"{"frames": [{"type": "status", "status": "OFFLINE"}]}"#);
    let responses = send(&app, "POST", "/api/v1/driver/messages", frames).await.expect(200);
    assert_eq!(responses["answers"][0]["type"], "ok");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_json_gets_400_and_json_of_another_shape_gets_422() {
    let world = World::start().await;
    for raw in [&b"{"[..], b"", b"not json", b"{\"sellerOrderId\": \"1\",}", b"\xff\xfe{}", b"{} {}"] {
        // Authenticated by the shared secret, because the signing library accepts only UTF-8.
        let request = unsigned(world.node(), &ready_path("vendure"), raw);
        let reply = http::send(request.header("X-Webhook-Secret", WEBHOOK_SHARED_SECRET)).await;
        assert_eq!(reply.status, 400, "{raw:?}: {}", reply.text);
        reply.problem(400);
    }
    for raw in [&b"[]"[..], b"7", b"\"order\"", b"null", b"{}"] {
        let reply = post(&world, raw).await;
        assert_eq!(reply.status, 422, "{raw:?}: {}", reply.text);
        reply.problem(422);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_invalid_field_is_named_in_one_response() {
    let world = World::start().await;
    let bad = json!({
        "sellerOrderId": "", "channelId": "x".repeat(129),
        "pickup": {"lat": 85.06, "lon": "77"}, "drop": {"lat": null, "lon": -180.5},
        "readyAt": "tomorrow", "metadata": {"big": "x".repeat(5000)}, "orderCode": true,
    });
    let reply = post(&world, bad.to_string().as_bytes()).await;
    let fields = reply.invalid_field_names();
    let body = reply.problem(422);
    let expected = [
        "channelId",
        "drop.lat",
        "drop.lon",
        "metadata",
        "orderCode",
        "pickup.lat",
        "pickup.lon",
        "readyAt",
        "sellerOrderId",
    ];
    for field in expected {
        assert!(fields.iter().any(|f| f == field), "the errors name {field}: {fields:?}");
    }
    for error in body["errors"].as_array().unwrap() {
        assert!(error["code"].is_string() && error["message"].is_string(), "{error}");
    }

    let one_wrong = |field: &str, value: Value| {
        let order = Order::new("1").with(field, value);
        let world = &world;
        async move { post(world, order.0.to_string().as_bytes()).await }
    };
    for (field, value) in [
        ("sellerOrderId", json!(null)),
        ("sellerOrderId", json!("a\u{7}b")),
        ("sellerOrderId", json!(1.5)),
        ("sellerOrderId", json!(true)),
        ("sellerOrderId", json!({"id": 1})),
        ("channelId", json!(null)),
        ("externalId", json!("x".repeat(129))),
    ] {
        let reply = one_wrong(field, value.clone()).await;
        assert_eq!((reply.status, reply.invalid_field_names()), (422, vec![field.to_owned()]), "{field} = {value}");
    }
    let reply = one_wrong("pickup", json!(null)).await;
    assert_eq!(reply.status, 422);
    assert_eq!(reply.invalid_field_names(), ["pickup.lat", "pickup.lon"], "{}", reply.text);
    assert_eq!(world.count("SELECT count(*) FROM deliveries").await, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_opaque_and_integers_are_accepted_as_their_text() {
    let world = World::start().await;
    let number = Order::new("").with("sellerOrderId", json!(4711)).with("channelId", json!(2));
    let first = post(&world, number.0.to_string().as_bytes()).await.expect(202);
    assert_eq!(first["sellerOrderId"], "4711");
    let text = world.post_order(&Order::new("4711")).await.expect(200);
    assert_eq!(text["deliveryId"], first["deliveryId"]);
    for id in ["x".repeat(128), "é".repeat(128), "🛵".repeat(128), "a b/c?d".to_owned()] {
        let reply = world.post_order(&Order::new(&id)).await.expect(202);
        assert_eq!(reply["sellerOrderId"], id.as_str());
    }
    // null counts as absent, and unknown fields are ignored.
    let order = Order::new("nulls").with("orderCode", json!(null)).with("items", json!(null)).with("new", json!([1]));
    world.post_order(&order).await.expect(202);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_order_gets_its_current_state_and_other_coordinates_are_a_recorded_conflict() {
    let world = World::start().await;
    let order = Order::new("again").with("metadata", json!({"v": 1}));
    let id = world.post_order(&order).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();

    let rebuilt = order.clone().with("metadata", json!({"v": 2})).with("items", json!([{"name": "x"}]));
    let same = world.post_order(&rebuilt).await.expect(200);
    assert_eq!((&same["duplicate"], &same["deliveryId"]), (&json!(true), &json!(id)));
    assert!(same.get("conflict").is_none_or(|c| c == false));

    let moved = order.clone().with("drop", RESTAURANT.offset(700.0, 0.0).json());
    for _ in 0..3 {
        let reply = world.post_order(&moved).await.expect(200);
        assert_eq!((&reply["duplicate"], &reply["conflict"]), (&json!(true), &json!(true)));
    }
    assert_eq!(world.trail(&id).await, ["CREATED", "CONFLICT"]);
    let moved_again = order.clone().with("pickup", RESTAURANT.offset(0.0, 900.0).json());
    assert_eq!(world.post_order(&moved_again).await.expect(200)["conflict"], true);
    assert_eq!(world.trail(&id).await, ["CREATED", "CONFLICT", "CONFLICT"]);

    let delivery = world.delivery(&id).await;
    assert_eq!(delivery["drop"]["lat"], order.0["drop"]["lat"], "the stored order stays");
    assert_eq!(delivery["metadata"], json!({"v": 1}), "the stored order stays");
    let warned = |line: &String| line.contains("\"WARN\"") && line.contains(&id);
    assert!(world.node().log_lines().iter().any(warned), "the log warns of the conflict");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_over_its_limit_gets_retry_after_and_loses_no_order() {
    let world = World::with().set("ORDERS_PER_SECOND", 5).start().await;
    let replies = join_all((0..40).map(|n| {
        let world = &world;
        async move { world.post_order(&Order::new(&format!("fast-{n}"))).await }
    }))
    .await;
    let (limited, accepted): (Vec<_>, Vec<_>) = replies.into_iter().partition(|r| r.status == 429);
    assert!(!limited.is_empty() && accepted.len() >= 5, "{} limited, {} accepted", limited.len(), accepted.len());
    for reply in limited {
        assert!(reply.retry_after_s() >= 1);
        reply.refused(429, "too_many_orders");
    }
    for reply in &accepted {
        assert_eq!(reply.status, 202, "{}", reply.text);
    }
    assert_eq!(world.count("SELECT count(*) FROM deliveries").await, accepted.len() as i64);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_guesses_secrets_is_limited() {
    let world = World::with().set("AUTH_FAILURES_PER_MINUTE", 10).start().await;
    let guess = || {
        let request = unsigned(world.node(), &ready_path("vendure"), &body("guess"));
        http::send(request.header("X-Webhook-Secret", "guess"))
    };
    for _ in 0..10 {
        guess().await.refused(401, "unauthorized");
    }
    // One more attempt is allowed every six seconds, so a slow machine may see a 401 between.
    let limited = eventually("the attempts are limited", SOON, async || {
        let reply = guess().await;
        assert!(matches!(reply.status, 401 | 429), "{}", reply.text);
        (reply.status == 429).then_some(reply)
    });
    let limited = limited.await;
    assert!(limited.retry_after_s() >= 1);
    limited.refused(429, "too_many_failures");
    // Valid credentials from the same address are still accepted.
    world.post_order(&Order::new("known")).await.expect(202);
    world.finish().await;
}
