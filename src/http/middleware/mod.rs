//! Middleware before the handlers: credentials, cross-origin rules, request ids.

pub mod auth;
pub mod cors;
pub mod request_id;
