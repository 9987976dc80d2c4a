//! Paths of shops: webhooks, and how an order is taken in.

pub mod order_intake;
pub mod webhook;
