//! Handles the frames of a driver: heartbeats and batches at once, other frames in order.

use std::sync::LazyLock;
use std::time::Instant;

use chrono::Utc;
use metrics::Counter;

use super::{Ctx, DriverSession};
use crate::domain::driver::HeartbeatTier;
use crate::domain::heartbeat::Heartbeat;
use crate::domain::position::Fix;
use crate::ingest::Slot;
use crate::protocol::{Frame, FrameBody, FrameError, MAX_FRAME_BYTES, close, outbound, parse_frame};
use crate::sessions::frame_handler::{Tally, refused_fix};

/// The number of bad frames in a row that closes the socket.
const MAX_BAD_FRAMES: u32 = 20;

/// The counter is looked up once, because every heartbeat uses it.
static HEARTBEATS: LazyLock<Counter> = LazyLock::new(|| metrics::counter!("driver_tracker_heartbeats_total"));

impl DriverSession {
    #[tracing::instrument(level = "trace", skip_all)]
    pub(super) fn text(&mut self, text: &str, is_over_budget: bool, ctx: &mut Ctx) {
        if text.len() > MAX_FRAME_BYTES && !is_batch(text) {
            return self.end(ctx, close::TOO_BIG, "a frame is at most 16 KiB");
        }
        if is_over_budget {
            return self.refuse_over_budget(text, ctx);
        }
        match parse_frame(text, Utc::now(), &self.services.frames.heartbeat_config().fix_rules) {
            Ok(frame) => {
                self.bad_frames = 0;
                self.frame(frame, ctx);
            }
            Err(error) => self.bad_frame(&error, ctx),
        }
    }

    fn bad_frame(&mut self, error: &FrameError, ctx: &mut Ctx) {
        metrics::counter!("driver_tracker_frames_refused_total", "code" => error.code).increment(1);
        self.bad_frames += 1;
        self.send(ctx, &outbound::error(error, Utc::now()));
        if self.bad_frames >= MAX_BAD_FRAMES {
            self.end(ctx, close::POLICY, "20 bad frames in a row");
        }
    }

    fn frame(&mut self, frame: Frame, ctx: &mut Ctx) {
        let last_fix = self.filter.believed();
        match frame.body {
            FrameBody::Heartbeat { seq, fix } => {
                match fix.map(|fix| fix.and_then(|fix| self.filter.judge(fix).map(|()| fix))) {
                    Some(Err(refusal)) => self.send(ctx, &refused_fix(frame.reference.as_deref(), Some(seq), &refusal)),
                    Some(Ok(fix)) if self.is_followed() => self.track([fix]),
                    Some(Ok(_)) | None => {}
                }
                self.alive(Some(seq), last_fix);
            }
            FrameBody::Batch { fixes } => {
                let mut tally = Tally::of(fixes, &mut self.filter);
                self.alive(None, last_fix);
                // They may be of an order that is over by now.
                self.track(tally.take_believed());
                self.send(ctx, &outbound::ok(frame.reference.as_deref(), tally.to_json()));
            }
            _ => self.enqueue(frame, ctx),
        }
    }

    /// The driver is alive, where the newest believed fix says: one that came just now, or the one from before, which is
    /// not new where a newer one is known (an app may use HTTP beside its socket).
    #[tracing::instrument(level = "trace", skip_all)]
    fn alive(&mut self, seq: Option<i64>, last_fix: Option<Fix>) {
        HEARTBEATS.increment(1);
        let fix = self.filter.believed();
        let heartbeat = Heartbeat {
            driver_id: self.identity.driver_id,
            fix,
            fix_is_newest: fix != last_fix,
            received_at: Utc::now(),
            received: Instant::now(),
            session_epoch: self.session_epoch(),
        };
        let slot = Slot {
            heartbeat,
            is_first: std::mem::take(&mut self.first_heartbeat),
            ack: self.entry.as_ref().map(|entry| entry.mailbox.ack_receiver()).zip(seq),
        };
        self.services.frames.heartbeats().push(slot);
    }

    /// Whether the driver has a delivery, as far as this session knows.
    fn is_followed(&self) -> bool {
        self.interval.is_some_and(|interval| interval.heartbeat_tier() == HeartbeatTier::Busy)
    }

    /// Offers accepted fixes to the track.
    fn track(&self, fixes: impl IntoIterator<Item = Fix>) {
        self.services.frames.tracks().push(self.identity.driver_id, fixes);
    }
}

fn is_batch(text: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Kind<'t> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'t, str>,
    }
    serde_json::from_str::<Kind<'_>>(text).is_ok_and(|frame| frame.kind == "batch")
}
