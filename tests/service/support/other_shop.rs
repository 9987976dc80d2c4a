//! A shop beside the configured one, created through the API.

use serde_json::{Value, json};

use super::http::{self, Api, Reply};
use super::node;
use super::orders::{cancelled_path, ready_path, signed};
use super::{Node, Order, Shop, World};

/// A shop with its secrets, which the API returns once.
pub struct OtherShop {
    pub name: String,
    /// The secret that signs the shop's orders.
    pub orders_secret: String,
    /// The secret that verifies the shop's events.
    pub events_secret: String,
    /// The server that receives the shop's events.
    pub receiver: Shop,
}

/// Returns the secret of a direction from a response that shows it.
pub fn secret_of(made: &Value, direction: &str) -> String {
    let secrets = made["secrets"].as_array().expect("the response has the shop's secrets");
    let found = secrets
        .iter()
        .find(|secret| secret["direction"] == direction)
        .expect("the shop has a secret of this direction");
    found["secret"].as_str().expect("the secret is shown").to_owned()
}

impl OtherShop {
    /// Creates the shop on the first node, with additional fields. Its events go to a receiver of its own.
    pub async fn make(world: &World, name: &str, more: Value) -> OtherShop {
        let mut body = more;
        body["name"] = json!(name);
        let made = world.admin().post("/api/v1/shops", &body).await.expect(201);
        let (orders_secret, events_secret) = (secret_of(&made, "orders"), secret_of(&made, "events"));
        for secret in [&orders_secret, &events_secret] {
            world.register_secret(secret.trim_start_matches("whsec_"));
        }
        let receiver = Shop::open(std::slice::from_ref(&events_secret)).await;
        let path = format!("/api/v1/shops/{name}");
        world.admin().patch(&path, &json!({"eventsUrl": receiver.url})).await.expect(200);
        OtherShop { name: name.to_owned(), orders_secret, events_secret, receiver }
    }

    /// Posts an order, signed with the shop's secret.
    pub async fn post_order(&self, node: &Node, order: &Order) -> Reply {
        self.post_order_signed(node, order, &self.orders_secret).await
    }

    /// Posts an order, signed with another secret.
    pub async fn post_order_signed(&self, node: &Node, order: &Order, secret: &str) -> Reply {
        http::send(signed(node, &ready_path(&self.name), order.0.to_string().as_bytes(), secret)).await
    }

    /// Posts a cancellation, signed with the shop's secret.
    pub async fn post_cancellation(&self, node: &Node, id: &str) -> Reply {
        let body = json!({"sellerOrderId": id, "channelId": "2"}).to_string();
        http::send(signed(node, &cancelled_path(&self.name), body.as_bytes(), &self.orders_secret)).await
    }

    /// Posts an order and cancels it at once, which makes one event without a driver. Returns the delivery's id.
    pub async fn cancelled_order(&self, node: &Node, id: &str) -> String {
        let accepted = self.post_order(node, &Order::new(id)).await.expect(202);
        self.post_cancellation(node, id).await.expect(200);
        accepted["deliveryId"].as_str().expect("the response has an id").to_owned()
    }

    /// Returns a client of the API with a key of the shop. The program creates the key.
    pub async fn api(&self, world: &World) -> Api {
        let arguments = ["api-key", "create", "--name", "of-a-shop", "--scope", "shop", "--shop", &self.name];
        let made = node::run(&arguments, &world.env_with(&[])).await;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let key = String::from_utf8(made.stdout).expect("the key is UTF-8").trim().to_owned();
        world.register_secret(&key);
        world.node().api().keyed(Some(&key))
    }
}
