//! Assigns waiting orders to drivers: one coordinator a region and node, and where it gets its candidates from.
//!
//! A coordinator's memory is an optimisation: which orders wait is read from PostgreSQL, and who gets one is decided by
//! row locks, since the coordinators of several nodes work on the same region.

mod candidate_source;
mod coordinator;
mod round;
mod search;

pub use candidate_source::CandidateSource;
pub use coordinator::CoordinatorRegistry;

use std::time::Duration;

use crate::effects::{AssignmentWaiters, UseCases};

/// What coordinators work with; cheap to clone.
#[derive(Clone)]
pub struct AssignmentServices {
    /// Claims, and reads of waiting orders.
    pub use_cases: UseCases,
    /// Who is near a pickup.
    pub candidates: CandidateSource,
    /// Webhook requests that wait for an outcome.
    pub waiters: AssignmentWaiters,
    /// `PENDING_SWEEP_MS`: the first pause before an order is searched for again.
    pub pending_sweep: Duration,
}
