//! Tests of an order that is repeated with other values: the stored order stays, and the difference is reported.

use serde_json::{Value, json};

use super::support::*;

/// Returns an order with every field of pickup and drop-off.
fn complete_order() -> Order {
    let mut order = Order::new("again");
    for stop in ["pickup", "drop"] {
        for (name, value) in [
            ("address", "12 Lake Road"),
            ("contactName", "Meera"),
            ("phone", "+91 80 5550 1000"),
            ("notes", "ring twice"),
        ] {
            order.0[stop][name] = json!(value);
        }
    }
    order
}

/// Returns the data of a delivery's CONFLICT rows, oldest first.
async fn conflicts(world: &World, id: &str) -> Vec<Value> {
    let trail = world.admin().get(&format!("/api/v1/deliveries/{id}/events")).await.expect(200);
    let rows = trail["items"].as_array().unwrap().iter().rev();
    rows.filter(|row| row["type"] == "CONFLICT").map(|row| row["data"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_with_other_values_names_the_fields_and_is_recorded_once_for_each_body() {
    let world = World::start().await;
    let order = complete_order();
    let id = world.post_order(&order).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
    let same = world.post_order(&order.clone().with("orderCode", json!("other"))).await.expect(200);
    assert!(same.get("conflict").is_none() && same.get("differs").is_none(), "{same}");

    let secret = "+91 99 SECRET";
    let mut expected_rows = Vec::new();
    for field in [
        "pickup.lat",
        "pickup.lon",
        "pickup.address",
        "pickup.contactName",
        "pickup.phone",
        "pickup.notes",
        "drop.lat",
        "drop.lon",
        "drop.address",
        "drop.contactName",
        "drop.phone",
        "drop.notes",
    ] {
        let mut other = order.clone();
        let place = other.0.pointer_mut(&format!("/{}", field.replace('.', "/"))).unwrap();
        *place = place.as_f64().map_or(json!(secret), |degrees| json!(degrees + 0.001));
        for _ in 0..2 {
            let response = world.post_order(&other).await.expect(200);
            assert_eq!((&response["duplicate"], &response["conflict"]), (&json!(true), &json!(true)), "{response}");
            assert_eq!(response["differs"], json!([field]));
        }
        expected_rows.push(json!([field]));
    }
    let mut two = order.clone();
    two.0["drop"]["phone"] = json!(secret);
    two.0["pickup"]["notes"] = Value::Null;
    let admin = world.admin();
    let response = admin.post("/api/v1/deliveries", &two.clone().with("shop", json!("vendure")).0).await.expect(200);
    assert_eq!(response["differs"], json!(["pickup.notes", "drop.phone"]));
    expected_rows.push(json!(["pickup.notes", "drop.phone"]));

    let rows = conflicts(&world, &id).await;
    let named: Vec<Value> = rows.iter().map(|data| data["differs"].clone()).collect();
    assert_eq!(named, expected_rows, "there is one row for each different body");
    assert!(rows.iter().all(|data| data["bodyHash"].is_string() && !data.to_string().contains(secret)), "{rows:?}");
    let shown = world.delivery(&id).await;
    for stop in ["pickup", "drop"] {
        assert_eq!(shown[stop], order.0[stop], "the stored order stays");
    }
    let warned =
        |line: &String| line.contains("\"WARN\"") && line.contains(&id) && line.contains("pickup.notes, drop.phone");
    assert!(world.node().log_lines().iter().any(warned), "the log names the fields");
    world.assert_logs_keep_secrets(&[secret.to_owned()]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_null_and_empty_values_are_equal() {
    let world = World::start().await;
    let unset = |value: Option<Value>| {
        let mut order = Order::new("unset");
        for (stop, name) in [("drop", "phone"), ("pickup", "notes"), ("drop", "address"), ("pickup", "contactName")] {
            if let Some(value) = &value {
                order.0[stop][name] = value.clone();
            }
        }
        order
    };
    let id = world.post_order(&unset(Some(json!("")))).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
    for value in [None, Some(Value::Null), Some(json!(""))] {
        let response = world.post_order(&unset(value)).await.expect(200);
        assert!(response.get("conflict").is_none() && response.get("differs").is_none(), "{response}");
    }
    assert_eq!(world.trail(&id).await, ["CREATED"]);
    world.finish().await;
}
