//! What every part of a running node needs and nothing owns: the phase of the process, its name and addresses, actors that
//! are restarted after a panic, and one helper for locks.
//!
//! Must not: know PostgreSQL, Redis, or any part of the service.

mod lifecycle;
mod node_info;
mod supervised;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use lifecycle::{Lifecycle, Phase};
pub use node_info::NodeInfo;
pub use supervised::{RestartIfDead, Supervised, forward_wake_ups};

/// Locks a mutex, also after a panic of another holder. The guard is never held across an await.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
