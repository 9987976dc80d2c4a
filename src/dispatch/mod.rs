//! The use cases: every change of an order or a driver is one function here.
//!
//! - A use case runs in one transaction. The caller opens and commits it.
//! - A use case decides from locked rows. It writes the whole change: state, audit trail, outbox, command.
//! - A use case returns what must happen after the commit (Redis, sockets, wake-ups) as [`Effects`]. Lost effects cost
//!   latency; the data stays correct.
//!
//! A use case must not commit, and must not touch Redis or a socket.

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
