//! Orders as a shop posts them.

use chrono::Utc;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::http::{self, Reply};
use super::{Node, Place, RESTAURANT};

/// The body of an order, to be changed at will.
#[derive(Clone, Debug)]
pub struct Order(pub Value);

impl Order {
    /// An order at the restaurant, with the fields that are required and no more.
    pub fn new(id: &str) -> Order {
        Order::at(id, RESTAURANT)
    }

    /// An order that is fetched somewhere.
    pub fn at(id: &str, pickup: Place) -> Order {
        let drop = pickup.offset(-2500.0, 2500.0);
        Order(json!({"sellerOrderId": id, "channelId": "2", "pickup": pickup.json(), "drop": drop.json()}))
    }

    /// The same order with a field more, or another value of one.
    pub fn with(mut self, field: &str, value: Value) -> Order {
        self.0[field] = value;
        self
    }

    pub fn id(&self) -> &str {
        self.0["sellerOrderId"].as_str().unwrap_or_default()
    }
}

/// The three headers of Standard Webhooks, made by a library that is not ours.
pub fn sign(secret: &str, message_id: &str, timestamp: i64, body: &[u8]) -> [(&'static str, String); 3] {
    let signature = Webhook::new(secret).expect("a secret").sign(message_id, timestamp, body).expect("a signature");
    [
        ("webhook-id", message_id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signature),
    ]
}

/// The path of orders of a shop.
pub fn ready_path(shop: &str) -> String {
    format!("/webhooks/{shop}/seller-order-ready")
}

/// The path of cancellations of a shop.
pub fn cancelled_path(shop: &str) -> String {
    format!("/webhooks/{shop}/seller-order-cancelled")
}

/// A post without credentials, to be added to.
pub fn unsigned(node: &Node, path: &str, body: &[u8]) -> RequestBuilder {
    node.api().request("POST", path).header("content-type", "application/json").body(body.to_vec())
}

/// A post that is signed as it must be.
pub fn signed(node: &Node, path: &str, body: &[u8], secret: &str) -> RequestBuilder {
    let id = format!("msg_{}", uuid::Uuid::new_v4().simple());
    let headers = sign(secret, &id, Utc::now().timestamp(), body);
    headers.into_iter().fold(unsigned(node, path, body), |request, (name, value)| request.header(name, value))
}

/// Posts an order, signed.
pub async fn post_order(node: &Node, order: &Order, secret: &str) -> Reply {
    http::send(signed(node, &ready_path("vendure"), order.0.to_string().as_bytes(), secret)).await
}

/// Posts an order that may be answered by nobody.
pub async fn try_post_order(node: &Node, order: &Order, secret: &str) -> Option<Reply> {
    http::try_send(signed(node, &ready_path("vendure"), order.0.to_string().as_bytes(), secret)).await.ok()
}

/// Posts a cancellation, signed.
pub async fn post_cancellation(node: &Node, id: &str, reason: Option<&str>, secret: &str) -> Reply {
    let mut body = json!({"sellerOrderId": id, "channelId": "2"});
    if let Some(reason) = reason {
        body["reason"] = json!(reason);
    }
    http::send(signed(node, &cancelled_path("vendure"), body.to_string().as_bytes(), secret)).await
}
