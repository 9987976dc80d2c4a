//! The transactional outbox: posts events to the shops, at least once, in order per delivery.
//!
//! Must not: decide what is announced; use cases write the events in their own transactions.

mod held_leases;
mod relay;

pub use relay::{OutboxRelay, Poster, RelayServices};
