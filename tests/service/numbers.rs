//! Tests of numbers in requests: each is returned as the same double, and a number out of range invalidates its
//! field.

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::support::http::Api;
use super::support::orders::{ready_path, signed};
use super::support::plan::WEBHOOK_SECRET;
use super::support::*;

/// An order as a shop sent it.
const FLOATS: &str = include_str!("cases/metadata-floats.json");

/// More numbers, each with its text and the double that it denotes.
const MORE: [(&str, f64); 10] = [
    ("-0.0", -0.0),
    ("-0", -0.0),
    ("0", 0.0),
    ("100.0", 100.0),
    ("1e22", 1e22),
    ("1E+300", 1e300),
    ("-1.7976931348623157e308", f64::MIN),
    ("2.2250738585072014e-308", f64::MIN_POSITIVE),
    ("18446744073709551615", 18_446_744_073_709_551_615.0),
    ("123456789012345680000", 123_456_789_012_345_680_000.0),
];

/// Returns numbers that no double can represent.
fn out_of_range_numbers() -> [String; 4] {
    ["1e400".to_owned(), "-1e400".to_owned(), "9".repeat(400), format!("{}.5", "9".repeat(400))]
}

/// Returns metadata with the numbers of the file and more.
fn metadata() -> String {
    let listed = MORE.map(|(text, _)| text).join(", ");
    format!(
        r#"{{"n": 13.331328405054185, "small": 5e-324, "sum": 0.30000000000000004, "large": 9007199254740993,
            "huge": 1.7976931348623157e308, "more": [{listed}]}}"#
    )
}

#[track_caller]
fn assert_metadata(shown: &Value, where_from: &str) {
    let is = |value: &Value, number: f64| {
        assert_eq!(value.as_f64().map(f64::to_bits), Some(number.to_bits()), "{where_from}: {value} for {number}");
    };
    is(&shown["n"], 13.331328405054185);
    is(&shown["small"], 5e-324);
    is(&shown["sum"], 0.30000000000000004);
    is(&shown["huge"], f64::MAX);
    assert_eq!(shown["large"].as_u64(), Some(9_007_199_254_740_993), "{where_from}");
    for (at, (_, number)) in MORE.iter().enumerate() {
        is(&shown["more"][at], *number);
    }
}

async fn post(api: &Api, path: &str, key: Option<&str>, body: &str) -> Reply {
    let request = api.request("POST", path).header(CONTENT_TYPE, "application/json").body(body.to_owned());
    http::send(key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key))).await
}

#[test]
fn the_program_enables_exact_floats_itself() {
    // A dependency of the tests enables the feature too, so no other test would notice if the program did not.
    let manifest: toml::Table = toml::from_str(include_str!("../../Cargo.toml")).unwrap();
    let features = manifest["dependencies"]["serde_json"]["features"].as_array().unwrap();
    assert!(features.iter().any(|feature| feature.as_str() == Some("float_roundtrip")), "{features:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_number_of_an_order_is_returned_as_the_same_double_on_every_interface() {
    let world = World::start().await;
    let mut driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let body = FLOATS.split_once("\"metadata\": ").map(|(before, _)| before).unwrap();
    let body = format!("{body}\"metadata\": {}, \"items\": [{{\"quantity\": 0.1}}]}}", metadata());
    let send = || http::send(signed(world.node(), &ready_path("vendure"), body.as_bytes(), WEBHOOK_SECRET));
    let id = send().await.expect(201)["deliveryId"].as_str().unwrap().to_owned();

    let frame = driver.wait_for_assignment(&id).await;
    let shown = world.delivery(&id).await;
    let event = world.shop().wait_for_event(&id, "DELIVERY_ASSIGNED_V1").await;
    let raw_event: Value = serde_json::from_slice(&event.raw).unwrap();
    let welcome = driver.reconnect(world.node()).await;
    let held = &welcome["deliveries"][0];
    for (what, seen) in [("frame", &frame["delivery"]), ("REST", &shown), ("event", &raw_event), ("welcome", held)] {
        assert_metadata(&seen["metadata"], what);
    }
    for (what, seen) in [("frame", &frame["delivery"]), ("REST", &shown), ("welcome", held)] {
        assert_eq!(seen["pickup"]["lat"].as_f64(), "12.971600000000001".parse().ok(), "{what}");
        assert_eq!(seen["pickup"]["lon"].as_f64(), "77.59460000000001".parse().ok(), "{what}");
        assert_eq!(seen["items"][0]["quantity"].as_f64(), Some(0.1), "{what}");
    }
    let again = send().await.expect(200);
    assert!(again.get("conflict").is_none(), "{again}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_is_recognized_with_any_spelling_of_its_numbers() {
    let world = World::start().await;
    let admin = world.admin();
    let driver =
        format!(r#"{{"name": "Asha", "phone": "+91 1", "externalId": 9007199254740993, "metadata": {}}}"#, metadata());
    // The same request from another client: another order of names, no white space, other spellings of the same
    // numbers.
    let respelled = driver
        .replace("e308", "E+308")
        .replace("100.0", "1e2")
        .replace(", ", ",")
        .replace(r#"{"name": "Asha","phone": "+91 1","#, r#"{"phone":"\u002b91 1","name":"Asha","#);
    assert_ne!(driver, respelled);
    let first = post(&admin, "/api/v1/drivers", Some("floats"), &driver).await;
    for body in [&driver, &respelled, &driver] {
        let again = post(&admin, "/api/v1/drivers", Some("floats"), body).await;
        assert_eq!((again.status, &again.text), (201, &first.text));
    }
    let made = first.expect(201);
    assert_metadata(&made["metadata"], "the answer");
    assert_eq!(made["externalId"], "9007199254740993");
    let id = made["id"].as_str().unwrap();
    assert_metadata(&world.driver(id).await["metadata"], "the driver");
    let patch = admin.request("PATCH", &format!("/api/v1/drivers/{id}")).header(CONTENT_TYPE, "application/json");
    let patched = http::send(patch.body(format!(r#"{{"metadata": {}}}"#, metadata()))).await.expect(200);
    assert_metadata(&patched["metadata"], "the changed driver");
    let other = driver.replace("0.30000000000000004", "0.3");
    post(&admin, "/api/v1/drivers", Some("floats"), &other).await.refused(422, "idempotency_key_reused");
    let other = driver.replace("9007199254740993, \"metadata\"", "9007199254740992, \"metadata\"");
    post(&admin, "/api/v1/drivers", Some("floats"), &other).await.refused(422, "idempotency_key_reused");

    let order = FLOATS.trim_end().replacen('{', r#"{"shop": "vendure", "#, 1);
    let first = post(&admin, "/api/v1/deliveries", Some("order"), &order).await;
    let again = post(&admin, "/api/v1/deliveries", Some("order"), &order.replace("e308", "E+308")).await;
    assert_eq!((first.status, &first.text), (again.status, &again.text));
    assert_eq!(first.expect(202)["duplicate"], false);
    assert_eq!(world.count("SELECT count(*) FROM drivers").await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_cannot_be_stored_invalidates_its_field() {
    let world = World::start().await;
    let admin = world.admin();
    let (id, token) = world.new_driver().await;
    let app = world.node().api().keyed(Some(&token));
    for number in out_of_range_numbers() {
        let order = FLOATS.replace("1.7976931348623157e308", &number);
        let reply = http::send(signed(world.node(), &ready_path("vendure"), order.as_bytes(), WEBHOOK_SECRET)).await;
        assert_eq!((reply.status, reply.invalid_field_names()), (422, vec!["metadata".to_owned()]), "{number}");
        let order = order.replacen('{', r#"{"shop": "vendure", "#, 1);
        let reply = post(&admin, "/api/v1/deliveries", None, &order).await;
        assert_eq!((reply.status, reply.invalid_field_names()), (422, vec!["metadata".to_owned()]), "{number}");

        let driver =
            format!(r#"{{"name": "A", "phone": "1", "capacity": {number}, "metadata": {{"a": [{{"b": {number}}}]}}}}"#);
        let reply = post(&admin, "/api/v1/drivers", Some("k"), &driver).await;
        let named = vec!["capacity".to_owned(), "metadata".to_owned()];
        assert_eq!((reply.status, reply.invalid_field_names()), (422, named), "{number}");
        let patch = admin.request("PATCH", &format!("/api/v1/drivers/{id}")).header(CONTENT_TYPE, "application/json");
        let reply = http::send(patch.body(format!(r#"{{"metadata": {{"b": {number}}}}}"#))).await;
        assert_eq!((reply.status, reply.invalid_field_names()), (422, vec!["metadata".to_owned()]), "{number}");

        // One invalid fix does not make an app send the other fixes again.
        let now = chrono::Utc::now().to_rfc3339();
        let good = format!(r#"{{"fixTime": "{now}", "lat": 12.9, "lon": 77.5}}"#);
        let fixes = format!(r#"{{"fixes": [{}, {good}]}}"#, good.replace("77.5", &number));
        let response = post(&app, "/api/v1/driver/locations", None, &fixes).await.expect(200);
        assert_eq!((&response["accepted"], &response["refused"][0]["index"]), (&json!(1), &json!(0)), "{response}");
        let frames = format!(
            r#"{{"frames": [{{"type": "heartbeat", "ref": "a", "seq": {number}}}, {{"type": "status", "ref": "b", "status": "OFFLINE"}}]}}"#
        );
        let responses = post(&app, "/api/v1/driver/messages", None, &frames).await.expect(200)["answers"].clone();
        assert_eq!(
            (&responses[0]["code"], &responses[0]["ref"]),
            (&json!("invalid_frame"), &json!("a")),
            "{responses}"
        );
        assert!(responses[0]["message"].as_str().unwrap().starts_with("seq"), "{responses}");
        assert_eq!(responses[1]["type"], "ok", "{responses}");
    }
    let driver = world.connected_at(world.node(), RESTAURANT).await;
    driver.session.send_text(r#"{"type": "heartbeat", "seq": 1, "ref": "s", "lat": 1e400, "lon": 1}"#);
    let response = driver.session.take_response("s").await;
    assert_eq!(response["code"], "invalid_frame", "{response}");
    assert!(response["message"].as_str().unwrap().starts_with("lat"), "{response}");
    assert_eq!(world.count("SELECT count(*) FROM deliveries").await, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn integers_are_accepted_for_texts_and_quantities_may_be_fractions() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let mut order = Order::new("numbers").with("orderCode", json!(20260127));
    order.0["drop"]["phone"] = json!(919_812_345_678_i64);
    order.0["pickup"]["phone"] = json!(1800);
    order.0["items"] = json!([{"sku": 1001, "name": "Ribbon", "quantity": 0.5}, {"quantity": 3}]);
    let id = world.post_order(&order).await.expect(201)["deliveryId"].as_str().unwrap().to_owned();
    let frame = driver.wait_for_assignment(&id).await;
    for shown in [&frame["delivery"], &world.delivery(&id).await] {
        assert_eq!(shown["orderCode"], "20260127");
        assert_eq!((&shown["pickup"]["phone"], &shown["drop"]["phone"]), (&json!("1800"), &json!("919812345678")));
        assert_eq!(shown["items"], json!([{"sku": "1001", "name": "Ribbon", "quantity": 0.5}, {"quantity": 3}]));
    }
    let mut as_texts = order.clone();
    as_texts.0["drop"]["phone"] = json!("919812345678");
    as_texts.0["pickup"]["phone"] = json!("1800");
    let again = world.post_order(&as_texts).await.expect(200);
    assert!(again.get("conflict").is_none(), "{again}");

    for (pointer, value, text) in [
        ("/drop/phone", "919812345678.0", "919812345678"),
        ("/pickup/phone", "9.1981e11", "919810000000"),
        ("/orderCode", "20260127.50", "20260127.50"),
    ] {
        let mut other = order.clone().with("sellerOrderId", json!(format!("as {value}")));
        *other.0.pointer_mut(pointer).unwrap() = json!("HERE");
        let raw = other.0.to_string().replace("\"HERE\"", value);
        let reply = http::send(signed(world.node(), &ready_path("vendure"), raw.as_bytes(), WEBHOOK_SECRET)).await;
        let id = reply.expect(202)["deliveryId"].as_str().unwrap().to_owned();
        assert_eq!(world.delivery(&id).await.pointer(pointer), Some(&json!(text)), "{pointer} = {value}");
    }
    for (pointer, value, field) in [
        ("/drop/phone", "true", "drop.phone"),
        ("/orderCode", "[1]", "orderCode"),
        ("/items/0/quantity", "0", "items[0].quantity"),
        ("/items/0/quantity", "-0.5", "items[0].quantity"),
        ("/items/0/quantity", "1e400", "items[0].quantity"),
        ("/items/0/quantity", "\"1\"", "items[0].quantity"),
    ] {
        let mut bad = order.clone().with("sellerOrderId", json!("bad"));
        *bad.0.pointer_mut(pointer).unwrap() = json!("HERE");
        let raw = bad.0.to_string().replace("\"HERE\"", value);
        let reply = http::send(signed(world.node(), &ready_path("vendure"), raw.as_bytes(), WEBHOOK_SECRET)).await;
        assert_eq!((reply.status, reply.invalid_field_names()), (422, vec![field.to_owned()]), "{pointer} = {value}");
    }
    world.finish().await;
}

/// A document whose text is a document, and so on: `serde_json` reads each text from depth 0 again.
fn nested_texts(levels: usize) -> String {
    (0..levels).fold("1".to_owned(), |inner, _| {
        let object = json!({"$serde_json::private::RawValue": inner});
        format!("{}{object}{}", "[".repeat(60), "]".repeat(60))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_json_parser_reserves_is_a_fault_of_its_field() {
    let world = World::start().await;
    let admin = world.admin();
    let deep = nested_texts(13);
    for value in
        [r#"{"$serde_json::private::RawValue": "no JSON"}"#, r#"{"$serde_json::private::RawValue": "1"}"#, &deep]
    {
        let order = FLOATS.split_once("\"metadata\": ").map(|(before, _)| before).unwrap();
        let order = format!("{order}\"metadata\": {{\"a\": {value}}}}}");
        let reply = http::send(signed(world.node(), &ready_path("vendure"), order.as_bytes(), WEBHOOK_SECRET)).await;
        assert_eq!((reply.status, reply.invalid_field_names()), (422, vec!["metadata".to_owned()]));
        let driver = format!(r#"{{"name": "A", "phone": "1", "metadata": {{"a": {value}}}}}"#);
        let reply = post(&admin, "/api/v1/drivers", None, &driver).await;
        assert_eq!((reply.status, reply.invalid_field_names()), (422, vec!["metadata".to_owned()]));
    }
    let driver = world.connected_at(world.node(), RESTAURANT).await;
    driver.session.send_text(&format!(r#"{{"type": "batch", "ref": "d", "fixes": [], "pad": {deep}}}"#));
    let answer = driver.session.take_response("d").await;
    assert_eq!(answer["type"], "ok", "a field that nobody reads: {answer}");
    world.finish().await;
}
