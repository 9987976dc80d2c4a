//! `HeldLeases`: the events that this node posts just now, whose leases are renewed until their posts end.
//!
//! One statement renews them all, so that many shops that do not answer cost PostgreSQL no more than one. It is done beside
//! the relay, which waits for PostgreSQL itself while it looks for work.

use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use uuid::Uuid;

use crate::store::{Database, outbox};

/// How long a lease lasts, in seconds, from when it is taken or renewed.
pub(super) const LEASE_S: f64 = 10.0;
/// Between renewals; two may fail before a lease runs out.
const RENEW_EVERY: Duration = Duration::from_secs(3);

/// See the module. By event, which try.
#[derive(Debug, Default)]
pub struct HeldLeases {
    events: DashMap<Uuid, i32>,
}

/// A lease that is renewed until this is dropped.
#[must_use = "dropped, the lease is not renewed any more"]
pub struct Held {
    leases: Arc<HeldLeases>,
    event: Uuid,
    tries: i32,
}

impl HeldLeases {
    /// Renews the lease of this event and try from now on.
    pub fn hold(self: &Arc<Self>, event: Uuid, tries: i32) -> Held {
        self.events.insert(event, tries);
        Held { leases: self.clone(), event, tries }
    }

    /// Starts to renew, until nobody holds `leases` any more.
    pub fn keep(leases: &Arc<Self>, database: Database, owner: String) {
        let leases = Arc::downgrade(leases);
        actix::spawn(async move {
            loop {
                tokio::time::sleep(RENEW_EVERY).await;
                let Some(held) = Weak::upgrade(&leases).map(|leases| leases.all()) else { return };
                renew(&database, held, owner.clone()).await;
            }
        });
    }

    fn all(&self) -> Vec<(Uuid, i32)> {
        self.events.iter().map(|entry| (*entry.key(), *entry.value())).collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A later try of the same event may have taken its place.
        self.leases.events.remove_if(&self.event, |_, tries| *tries == self.tries);
    }
}

async fn renew(database: &Database, held: Vec<(Uuid, i32)>, owner: String) {
    if held.is_empty() {
        return;
    }
    let renewed = database
        .transact_relaxed(move |conn| Box::pin(async move { outbox::renew(conn, held, &owner, LEASE_S).await }))
        .await;
    if let Err(error) = renewed {
        tracing::debug!(error = %error, "leases of the outbox were not renewed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_until_its_own_post_ends() {
        let (leases, event) = (Arc::new(HeldLeases::default()), Uuid::now_v7());
        let first = leases.hold(event, 1);
        let second = leases.hold(event, 2);
        drop(first);
        assert_eq!(leases.all(), [(event, 2)], "the end of an older post says nothing of a newer one");
        drop(second);
        assert!(leases.all().is_empty());
    }
}
