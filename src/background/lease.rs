//! The lease on work that one node does at a time. It keeps nodes from doing the same work twice and makes nothing safe by
//! itself: a node that stalls may go on for a moment after another acquired the lease.

use std::time::Duration;

use crate::store::{Database, StoreError, leases};

/// How long a lease lasts without renewal: when its holder dies, another node acquires it within this and one interval.
const HELD_FOR: Duration = Duration::from_millis(2500);

/// One lease, as this node sees it.
#[derive(Clone)]
pub struct Lease {
    database: Database,
    node_id: String,
    name: &'static str,
}

impl Lease {
    /// The lease on the work `name`, for the node `node_id`.
    pub fn new(database: Database, node_id: String, name: &'static str) -> Self {
        Self { database, node_id, name }
    }

    /// Acquires or renews it; `false` while another node holds it.
    pub async fn acquire(&self) -> Result<bool, StoreError> {
        let (name, holder) = (self.name, self.node_id.clone());
        let seconds = HELD_FOR.as_secs_f64();
        // A crash of PostgreSQL that loses the last renewal only lets another node acquire it.
        self.database
            .transact_relaxed(move |conn| Box::pin(async move { leases::acquire(conn, name, &holder, seconds).await }))
            .await
    }

    /// Releases it, if this node holds it: another node may acquire it at once.
    pub async fn release(&self) {
        let (name, holder) = (self.name, self.node_id.clone());
        let released = self
            .database
            .transact_relaxed(move |conn| Box::pin(async move { leases::release(conn, name, &holder).await }));
        if let Err(error) = released.await {
            tracing::debug!(error = %error, "a lease was not released; it expires");
        }
    }
}
