//! Why Redis and PostgreSQL were not brought together, and what counts as a recent change.

use crate::presence::PresenceError;
use crate::store::StoreError;

/// What counts as recent for a node that has just acquired the lease, in seconds: far more than a transaction may take.
pub(super) const RECENT_S: f64 = 60.0;
/// How far one repetition of recent changes reaches behind the one before it, in seconds: more than a transaction may take.
pub(super) const OVERLAP_S: f64 = 12.0;

/// A failed reconciliation; the next run tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error(transparent)]
    Presence(#[from] PresenceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("another node rebuilds Redis")]
    Elsewhere,
    #[error("Redis was emptied during its rebuild")]
    Disturbed,
}
