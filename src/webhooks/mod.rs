//! The shops' side of the service: who may post an order, what an order looks like, and how events go back.
//!
//! Owns the signatures (Standard Webhooks 1.0 and the plain shared secret), the wire shapes in and out, the schedule of
//! retries and the HTTP client that cannot be sent into the operator's own network. Decides nothing about deliveries and
//! knows neither the database nor the web framework: bytes and header texts come in, values and outcomes go out.

pub mod client;
pub mod event;
mod lookups;
pub mod network;
pub mod order;
pub mod reader;
pub mod retry;
pub mod shop_keys;
pub mod signature;
