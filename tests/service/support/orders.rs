//! Orders and cancellations as a shop posts them.

use chrono::Utc;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::http::{self, Reply};
use super::{Node, Place, RESTAURANT};

/// The JSON body of an order. Tests may change it freely.
#[derive(Clone, Debug)]
pub struct Order(pub Value);

impl Order {
    /// Returns an order with pickup at the restaurant and only the required fields.
    pub fn new(id: &str) -> Order {
        Order::at(id, RESTAURANT)
    }

    /// Returns an order with pickup at a place and only the required fields.
    pub fn at(id: &str, pickup: Place) -> Order {
        let drop = pickup.offset(-2500.0, 2500.0);
        Order(json!({"sellerOrderId": id, "channelId": "2", "pickup": pickup.json(), "drop": drop.json()}))
    }

    /// Sets a field and returns the order.
    pub fn with(mut self, field: &str, value: Value) -> Order {
        self.0[field] = value;
        self
    }

    pub fn id(&self) -> &str {
        self.0["sellerOrderId"].as_str().unwrap_or_default()
    }
}

/// Returns the three headers of Standard Webhooks, made by an independent library.
pub fn sign(secret: &str, message_id: &str, timestamp: i64, body: &[u8]) -> [(&'static str, String); 3] {
    let signature = Webhook::new(secret)
        .expect("the secret is valid")
        .sign(message_id, timestamp, body)
        .expect("the body is signed");
    [
        ("webhook-id", message_id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signature),
    ]
}

/// Returns the path that a shop posts orders to.
pub fn ready_path(shop: &str) -> String {
    format!("/webhooks/{shop}/seller-order-ready")
}

/// Returns the path that a shop posts cancellations to.
pub fn cancelled_path(shop: &str) -> String {
    format!("/webhooks/{shop}/seller-order-cancelled")
}

/// Returns a POST without credentials that the caller may extend.
pub fn unsigned(node: &Node, path: &str, body: &[u8]) -> RequestBuilder {
    node.api().request("POST", path).header("content-type", "application/json").body(body.to_vec())
}

/// Returns a POST with a valid signature.
pub fn signed(node: &Node, path: &str, body: &[u8], secret: &str) -> RequestBuilder {
    let id = format!("msg_{}", uuid::Uuid::new_v4().simple());
    let headers = sign(secret, &id, Utc::now().timestamp(), body);
    headers.into_iter().fold(unsigned(node, path, body), |request, (name, value)| request.header(name, value))
}

/// Posts a signed order of the configured shop.
pub async fn post_order(node: &Node, order: &Order, secret: &str) -> Reply {
    http::send(signed(node, &ready_path("vendure"), order.0.to_string().as_bytes(), secret)).await
}

/// Posts a signed order of the configured shop. Returns `None` when no response arrives.
pub async fn try_post_order(node: &Node, order: &Order, secret: &str) -> Option<Reply> {
    http::try_send(signed(node, &ready_path("vendure"), order.0.to_string().as_bytes(), secret)).await.ok()
}

/// Posts a signed cancellation of the configured shop.
pub async fn post_cancellation(node: &Node, id: &str, reason: Option<&str>, secret: &str) -> Reply {
    let mut body = json!({"sellerOrderId": id, "channelId": "2"});
    if let Some(reason) = reason {
        body["reason"] = json!(reason);
    }
    http::send(signed(node, &cancelled_path("vendure"), body.to_string().as_bytes(), secret)).await
}
