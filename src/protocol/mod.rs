//! The protocol of drivers, `driver-tracker.v1`: the frames that apps send and receive, as JSON, over the WebSocket and
//! over HTTP.
//!
//! Must not: decide or do anything. This module holds only shapes.

pub mod inbound;
pub mod outbound;

pub use inbound::{Frame, FrameBody, FrameError, Subject, parse_frame};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "driver-tracker.v1";
/// The largest frame, in bytes, except `batch`.
pub const MAX_FRAME_BYTES: usize = 16 * 1024;
/// The largest `batch` frame, in bytes.
pub const MAX_BATCH_BYTES: usize = 64 * 1024;
/// The most fixes in a `batch`.
pub const MAX_BATCH_FIXES: usize = 100;

/// Close codes of the protocol.
pub mod close {
    /// Binary frames, or 20 bad frames in a row.
    pub const POLICY: u16 = 1008;
    /// Bytes that are not frames of a WebSocket client.
    pub const PROTOCOL: u16 = 1002;
    /// A frame over the limit.
    pub const TOO_BIG: u16 = 1009;
    /// The service restarts, and the app reconnects.
    pub const RESTART: u16 = 1012;
    /// A newer session of the driver replaced this one.
    pub const REPLACED: u16 = 4001;
    /// The token was revoked or the driver deactivated.
    pub const REVOKED: u16 = 4002;
    /// The client does not read what is sent.
    pub const TOO_SLOW: u16 = 4003;
    /// No frame arrived for too long.
    pub const HEARTBEAT_TIMEOUT: u16 = 4004;
}
