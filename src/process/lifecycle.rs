//! The phase of the process: starting, serving, leaving, draining.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The phases of a node, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Not ready yet.
    Starting,
    /// Ready.
    Serving,
    /// No longer ready, still accepts requests and sockets: load balancers react late.
    Leaving,
    /// Accepts nothing new.
    Draining,
    /// Starts no more background work.
    Stopping,
}

/// The phase that the node is in; clones share it.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    phase: Arc<AtomicU8>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: Arc::new(AtomicU8::new(Phase::Starting as u8)) }
    }
}

impl Lifecycle {
    /// Moves on to a later phase; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    /// Whether load balancers should send requests to this node.
    pub fn is_ready(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Serving as u8
    }

    /// Whether new orders and sockets are refused because the node shuts down.
    pub fn is_draining(&self) -> bool {
        self.phase.load(Ordering::SeqCst) >= Phase::Draining as u8
    }

    /// Whether background work must not start any more.
    pub fn is_stopping(&self) -> bool {
        self.phase.load(Ordering::SeqCst) >= Phase::Stopping as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_never_left_backwards() {
        let lifecycle = Lifecycle::default();
        assert!(!lifecycle.is_ready() && !lifecycle.is_draining());
        lifecycle.enter(Phase::Serving);
        assert!(lifecycle.is_ready());
        lifecycle.enter(Phase::Draining);
        lifecycle.enter(Phase::Serving);
        assert!(!lifecycle.is_ready() && lifecycle.clone().is_draining());
    }
}
