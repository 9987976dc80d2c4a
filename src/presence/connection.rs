//! One connection to Redis.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;

/// A connection, and which run of Redis is at its other end.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) connection: MultiplexedConnection,
    /// Changes with every restart of Redis, so that what a restart lost is never taken for the whole.
    pub(super) run_id: Arc<str>,
}
