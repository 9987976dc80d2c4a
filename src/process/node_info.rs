//! The name and the addresses of this node.

use std::net::SocketAddr;

/// What `/health`, leases and sessions say of this node.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// `NODE_ID`: unique among the nodes that share a database.
    pub node_id: String,
    /// Where the API listens.
    pub http_addr: SocketAddr,
    /// Where the metrics are.
    pub metrics_addr: SocketAddr,
}
