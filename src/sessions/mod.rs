//! Sessions of drivers: the WebSocket actor, the handling of frames, the sessions on this node, and the delivery of
//! commands to them.
//!
//! Invariants: `driver_session.rs` is the only file that knows actix-web-actors. PostgreSQL's `driver_sessions` decides
//! which session of a driver is the newest; the directory here is a hint.
//!
//! Must not: hold SQL or Redis commands.

mod command_dispatcher;
pub mod connection_watchdog;
mod directory;
mod drain;
pub mod driver_session;
mod flow_control;

mod frame_budget;
mod frame_handler;
mod frame_header;
mod frame_reader;
mod interval;
mod mailbox;
mod opening;

pub use command_dispatcher::CommandDispatcher;
pub use directory::{Hold, SessionDirectory, SessionEntry};
pub use drain::send_away;
pub use frame_handler::FrameHandler;
pub use interval::interval_of;
pub use mailbox::ToSession;

use std::sync::Arc;

use crate::effects::SessionNotifications;

/// The services that sessions use; one instance for the node.
pub struct SessionServices {
    /// Handles frames.
    pub frames: FrameHandler,
    /// The sessions on this node.
    pub directory: Arc<SessionDirectory>,
    /// Notifications for sessions.
    pub notifications: SessionNotifications,
    /// `NODE_ID`.
    pub node_id: String,
    /// `FRAMES_PER_SECOND`.
    pub frames_per_second: u32,
}
