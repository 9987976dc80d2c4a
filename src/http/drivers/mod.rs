//! Paths of drivers' apps: the WebSocket, and the same over HTTP.

pub mod api;
pub mod handshake;
pub mod socket;
