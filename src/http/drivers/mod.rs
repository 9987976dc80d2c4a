//! The paths of driver apps: the WebSocket, and the same frames over HTTP.

pub mod api;
pub mod handshake;
pub mod socket;
