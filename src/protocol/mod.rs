//! The drivers' protocol, `driver-tracker.v1`: what apps send and what they are sent, as JSON, over the WebSocket and over
//! HTTP alike. Shapes alone: nothing here decides or does anything.

pub mod inbound;
pub mod lenient;
pub mod outbound;

pub use inbound::{Frame, FrameBody, FrameError, parse_frame};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "driver-tracker.v1";
/// The largest frame, in bytes, but for `batch`.
pub const MAX_FRAME_BYTES: usize = 16 * 1024;
/// The largest `batch` frame, in bytes.
pub const MAX_BATCH_BYTES: usize = 64 * 1024;
/// The most fixes in a `batch`.
pub const MAX_BATCH_FIXES: usize = 100;

/// Close codes of the protocol.
pub mod close {
    /// Binary frames, or 20 bad frames in a row.
    pub const POLICY: u16 = 1008;
    /// A frame over the limit.
    pub const TOO_BIG: u16 = 1009;
    /// The service restarts; come back.
    pub const RESTART: u16 = 1012;
    /// A newer session of the driver.
    pub const REPLACED: u16 = 4001;
    /// The token was revoked or the driver deactivated.
    pub const REVOKED: u16 = 4002;
    /// The client does not read what is sent.
    pub const TOO_SLOW: u16 = 4003;
    /// Nothing came for too long.
    pub const HEARTBEAT_TIMEOUT: u16 = 4004;
}
