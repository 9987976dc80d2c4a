//! Use cases run in a transaction, and what follows their commit: Redis, sessions, coordinators, the outbox relay.
//!
//! The wake-ups and queues here are plain handles. They exist before the actors and tasks that work them off, so that
//! nothing is dropped because its receiver has not started. Each may be lost with the process; a sweep finds the work.
//!
//! Must not: decide anything, or know the actors behind the handles.

mod applier;
mod use_cases;
mod waiters;
mod wake_ups;

pub use applier::EffectsApplier;
pub use use_cases::UseCases;
pub use waiters::AssignmentWaiters;
pub use wake_ups::{AssignmentQueue, OutboxWakeUp, RegionWork, SessionNotifications, StaleEpochs};
