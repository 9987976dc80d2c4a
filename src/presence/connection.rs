//! One connection to Redis.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;

/// A connection, and the run of Redis that it is connected to.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) connection: MultiplexedConnection,
    /// Changes with every restart of Redis. Data that lost entries in a restart is therefore never taken for complete.
    pub(super) run_id: Arc<str>,
}
