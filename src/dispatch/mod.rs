//! The use cases: what happens to orders and drivers, each in one transaction that the caller opens and commits.
//!
//! Everything here decides from locked rows and writes the whole of a change: state, audit, outbox, command. What must
//! happen after the commit (Redis, sockets, wake-ups) is returned as [`Effects`]; losing it costs latency, never truth.

pub mod claim;
pub mod duty;
mod error;
pub mod intake;
pub mod lifecycle;
pub mod progress;
pub mod roster;
pub mod search;
pub mod session;
mod unit;

pub use error::DispatchError;
pub use unit::{DispatchSettings, Effects, Unit};
