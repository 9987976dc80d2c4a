//! Whether Redis is trusted: whether it answers, and with data that is known to be whole.
//!
//! Searches and the reconciliation note what they see. While Redis is not trusted, candidates come from PostgreSQL, and
//! positions are written there at once.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Presence;

/// What was last seen of Redis.
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
    /// Whether Redis answered last, with data that are trusted.
    pub fn is_trusted(&self) -> bool {
        self.inner.trust.is_trusted.load(Ordering::Relaxed)
    }

    /// Notes that Redis answered with data that are trusted. Logs the change, once.
    pub fn note_trusted(&self) {
        if !self.inner.trust.is_trusted.swap(true, Ordering::Relaxed) {
            tracing::info!("Redis is trusted again: candidates come from Redis");
        }
    }

    /// Notes that Redis failed or is cold. Logs the change, once.
    pub fn note_distrusted(&self, why: &dyn Display) {
        if self.inner.trust.is_trusted.swap(false, Ordering::Relaxed) {
            tracing::warn!(%why, "Redis is not trusted: candidates come from PostgreSQL");
        }
    }
}
