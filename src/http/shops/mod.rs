//! The paths of shops: webhooks, and the intake of orders.

pub mod order_intake;
pub mod webhook;
