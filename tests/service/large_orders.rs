//! Tests of orders of the largest size, from the webhook to the driver's socket.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::support::orders::{ready_path, signed};
use super::support::plan::WEBHOOK_SECRET;
use super::support::*;

/// The largest body of an order in bytes.
const MAX_BYTES: usize = 256 * 1024;

async fn post(world: &World, body: &[u8]) -> Reply {
    http::send(signed(world.node(), &ready_path("vendure"), body, WEBHOOK_SECRET)).await
}

/// Returns an order with 500 items with long names, padded to `bytes` bytes.
fn order_of(id: &str, bytes: usize) -> Vec<u8> {
    let item = json!({"sku": "SKU-0001", "name": "क".repeat(150), "quantity": 2});
    let mut body = Order::new(id).with("items", json!(vec![item; 500])).0.to_string().into_bytes();
    assert!(body.len() > bytes - 20_000 && body.len() <= bytes, "{}", body.len());
    body.resize(bytes, b' ');
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_of_500_items_with_escaped_names_is_accepted() {
    let world = World::start().await;
    let mut body = Vec::new();
    GzDecoder::new(&include_bytes!("cases/order-hindi-500-items.json.gz")[..]).read_to_end(&mut body).unwrap();
    let place = Place { lat: 28.6139, lon: 77.209 };
    let driver = world.on_duty(place).await;
    let id = post(&world, &body).await.expect(201)["deliveryId"].as_str().unwrap().to_owned();
    let sent: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(driver.wait_for_assignment(&id).await["delivery"]["items"], sent["items"]);
    assert_eq!(world.delivery(&id).await["items"], sent["items"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_order_reaches_the_drivers_socket_and_the_next_welcome() {
    let world = World::start().await;
    let mut driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let body = order_of("largest", MAX_BYTES);
    let sent: Value = serde_json::from_slice(&body).unwrap();
    driver.session.acknowledge_commands(false);
    let response = post(&world, &body).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap().to_owned();
    let frame = driver.wait_for_assignment(&id).await;
    assert!(frame.to_string().len() > MAX_BYTES - 20_000);
    assert_eq!(frame["delivery"]["items"], sent["items"]);

    // The command was not acknowledged: the welcome contains the order, and the command follows it.
    let welcome = driver.reconnect(world.node()).await;
    assert_eq!(welcome["deliveries"][0]["items"], sent["items"]);
    let again = driver.wait_for_assignment(&id).await;
    assert_eq!(again["messageId"], frame["messageId"]);
    let app = world.node().api().keyed(Some(&driver.token));
    let state = app.get("/api/v1/driver/state").await.expect(200);
    assert_eq!(state["deliveries"][0]["items"], sent["items"]);
    driver.deliver(&id, response["assignmentId"].as_str().unwrap()).await;
    assert_eq!(driver.session.ended(), None);
    world.shop().wait_for_event(&id, "DELIVERY_DELIVERED_V1").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_size_limit_of_orders_is_in_bytes_of_the_body_on_every_interface() {
    let world = World::start().await;
    let admin = world.admin();
    let by_hand = |body: Vec<u8>| {
        let request = admin.request("POST", "/api/v1/deliveries").header("content-type", "application/json");
        http::send(request.body(body))
    };
    let with_shop = |body: &[u8]| [b"{\"shop\":\"vendure\",", &body[1..body.len() - 18]].concat();
    post(&world, &order_of("posted", MAX_BYTES)).await.expect(202);
    post(&world, &order_of("posted", MAX_BYTES + 1)).await.refused(413, "body_too_large");
    let body = with_shop(&order_of("by-hand", MAX_BYTES));
    assert!(body.len() <= MAX_BYTES && body.len() > MAX_BYTES - 40, "{}", body.len());
    by_hand(body).await.expect(202);
    by_hand(order_of("by-hand", MAX_BYTES + 1)).await.refused(413, "body_too_large");
    world.finish().await;
}
