//! The right of this node to do what one node does at a time. It keeps nodes from doing the same work twice and makes nothing
//! safe by itself: whoever stalls may go on for a moment after another has taken over.

use std::time::Duration;

use super::Node;
use crate::store::{StoreError, leases};

/// How long a lease is held without being renewed: a dead holder's passes on within this and one tick of another node.
const HELD_FOR: Duration = Duration::from_millis(2500);

/// One lease, as this node sees it.
#[derive(Clone)]
pub struct Lease {
    node: Node,
    name: &'static str,
}

impl Lease {
    /// The lease on the work `name`.
    pub fn new(node: Node, name: &'static str) -> Self {
        Self { node, name }
    }

    /// Acquires or renews it; `false` while another node holds it.
    pub async fn acquire(&self) -> Result<bool, StoreError> {
        let (name, holder) = (self.name, self.node.config().node_id.clone());
        let database = self.node.database();
        let seconds = HELD_FOR.as_secs_f64();
        // A crash of PostgreSQL that forgets the last renewal only lets another node take over.
        database
            .transact_relaxed(move |conn| Box::pin(async move { leases::acquire(conn, name, &holder, seconds).await }))
            .await
    }

    /// Releases it: another node may acquire it now, if it is held here.
    pub async fn release(&self) {
        let (name, holder) = (self.name, self.node.config().node_id.clone());
        let released = self
            .node
            .database()
            .transact_relaxed(move |conn| Box::pin(async move { leases::release(conn, name, &holder).await }));
        if let Err(error) = released.await {
            tracing::debug!(error = %error, "a lease was not released; it runs out");
        }
    }
}
