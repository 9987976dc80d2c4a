//! Heartbeats and fixes on their way from sessions to Redis and PostgreSQL.
//!
//! The queues here are plain handles: they exist before the writers that work them off. Each is bounded, so that overload
//! costs positions and never memory.

mod jump_memory;
mod presence_writer;
mod track_writer;

pub use jump_memory::JumpMemory;
pub use presence_writer::{AckReceiver, PresenceQueue, PresenceWriter, PresenceWriterServices, Slot};
pub use track_writer::{TrackQueue, TrackWriter};
