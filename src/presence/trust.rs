//! Records whether Redis is trusted: whether it answers, and whether its data is complete.
//!
//! Invariants: searches and the reconciliation record what they see. While Redis is not trusted, candidates come from
//! PostgreSQL, and positions are written there at once.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Presence;

/// Whether Redis was trusted when it was last used.
#[derive(Debug)]
pub(super) struct Trust {
    is_trusted: AtomicBool,
}

impl Default for Trust {
    fn default() -> Self {
        Self { is_trusted: AtomicBool::new(true) }
    }
}

impl Presence {
    /// Whether the last use of Redis returned trusted data.
    pub fn is_trusted(&self) -> bool {
        self.inner.trust.is_trusted.load(Ordering::Relaxed)
    }

    /// Records that Redis answered with trusted data. Logs only a change.
    pub fn note_trusted(&self) {
        if !self.inner.trust.is_trusted.swap(true, Ordering::Relaxed) {
            tracing::info!("Redis is trusted again: candidates come from Redis");
        }
    }

    /// Records that Redis failed or is cold. Logs only a change.
    pub fn note_distrusted(&self, why: &dyn Display) {
        if self.inner.trust.is_trusted.swap(false, Ordering::Relaxed) {
            tracing::warn!(%why, "Redis is not trusted: candidates come from PostgreSQL");
        }
    }
}
