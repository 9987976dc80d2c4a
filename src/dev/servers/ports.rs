//! Free ports on loopback.
//!
//! A port found free can be taken by another before it is used: a caller that starts a server on one tries again with the next.

use std::net::{Ipv4Addr, TcpListener};

use super::ServerError;

/// Below Linux's ephemeral range (32768 …), so that no outgoing connection takes a stopped server's port.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// How many ports are looked at.
const TRIES: u16 = 500;

/// A free loopback port, by chance, so that runs beside each other rarely meet.
pub fn free_port() -> Result<u16, ServerError> {
    next_free_port(rand::random_range(RANGE.start..RANGE.end - TRIES))
}

/// The first free loopback port from `from` on.
pub fn next_free_port(from: u16) -> Result<u16, ServerError> {
    (from..=from.saturating_add(TRIES)).find(|port| *port != 0 && is_free(*port)).ok_or(ServerError::NoPort { from })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
