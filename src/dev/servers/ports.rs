//! Finds free ports on loopback.
//!
//! Another program can take a port between the check and its use. A caller that starts a server must retry with the next
//! port.

use std::net::{Ipv4Addr, TcpListener};

use super::ServerError;

/// The range for random ports. It lies below Linux's ephemeral range (32768 …), so that no outgoing connection takes a
/// stopped server's port.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// How many ports are checked.
const TRIES: u16 = 500;

/// Returns a random free loopback port, so that parallel runs rarely choose the same one.
pub fn free_port() -> Result<u16, ServerError> {
    next_free_port(rand::random_range(RANGE.start..RANGE.end - TRIES))
}

/// Returns the first free loopback port from `from` on.
pub fn next_free_port(from: u16) -> Result<u16, ServerError> {
    (from..=from.saturating_add(TRIES)).find(|port| *port != 0 && is_free(*port)).ok_or(ServerError::NoPort { from })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
