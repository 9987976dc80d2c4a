//! Webhook requests that wait for the outcome of their order.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::oneshot;

use crate::domain::ids::DeliveryId;

/// By delivery, the request that waits; clones share it. A hint only: the row says what became of the order.
#[derive(Clone, Default)]
pub struct AssignmentWaiters {
    waiting: Arc<DashMap<DeliveryId, oneshot::Sender<()>>>,
}

impl AssignmentWaiters {
    /// Resolves when the delivery is assigned, ends, or no driver was found. Register before the order can be assigned.
    pub fn register(&self, delivery: DeliveryId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(delivery, sender);
        receiver
    }

    /// Lets the request that waits for this delivery read its row, and removes its waiter.
    pub fn resolve(&self, delivery: DeliveryId) {
        if let Some((_, sender)) = self.waiting.remove(&delivery) {
            let _ = sender.send(());
        }
    }
}
