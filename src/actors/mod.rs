//! What runs: one actor a session, one coordinator a region, one writer of presence, one relay of events, and the keepers
//! that find whatever a lost message left behind.
//!
//! An actor's memory is an optimisation: with every one of them wiped the system is still right. A message carries a wake-up
//! and an identity, never the truth. Mailboxes are bounded; a full one means that the same work is already due.

pub mod assignment_coordinator;
pub mod command_courier;
mod comparison;
pub mod connection_watchdog;
pub mod driver_desk;
pub mod driver_session;
pub mod finder;
mod frame_budget;
mod frame_header;
mod frame_reader;
mod held_leases;
mod lease;
pub mod node;
pub mod outbox_relay;
mod outgoing;
pub mod presence_writer;
mod rebuild;
pub mod reconciler;
mod refused_fixes;
pub mod revive;
pub mod session_directory;
pub mod session_mailbox;
mod session_opening;
mod session_pace;
pub mod shop_directory;
pub mod silence_judge;
pub mod track_days;
pub mod track_writer;
pub mod waiting_sweep;
pub mod wake;

pub use node::Node;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock, whoever panicked with it in hand. Never held across an await.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
