//! Counts every received frame and enforces the budget and the size limits.

use std::time::Instant;

use actix::prelude::*;
use chrono::Utc;

use super::{Ctx, DriverSession};
use crate::protocol::inbound::name_of;
use crate::protocol::{FrameError, close, outbound};
use crate::sessions::frame_budget::Spend;
use crate::sessions::frame_reader::{Received, Refusal};

impl StreamHandler<Received> for DriverSession {
    #[tracing::instrument(level = "trace", skip_all)]
    fn handle(&mut self, received: Received, ctx: &mut Ctx) {
        if self.is_ended {
            return;
        }
        self.last_life = Instant::now();
        let spend = self.spend(&received);
        if spend == Spend::Flood {
            return self.end(ctx, close::POLICY, "too many frames");
        }
        let is_over = spend == Spend::Over;
        match received {
            Received::Text(bytes) => {
                let is_over = std::mem::take(&mut self.is_message_over) || is_over;
                match std::str::from_utf8(&bytes) {
                    Ok(text) => self.text(text, is_over, ctx),
                    Err(_) => self.end(ctx, close::POLICY, "a text frame is UTF-8"),
                }
            }
            Received::Close(reason) => {
                self.is_ended = true;
                ctx.close(reason);
                ctx.stop();
            }
            Received::Refused(refusal) => self.refuse_frame(refusal, ctx),
            Received::Part | Received::Ping(_) | Received::Pong(_) if is_over => {
                self.is_message_over |= received == Received::Part;
                self.refuse_over_budget("", ctx);
            }
            Received::Ping(bytes) => self.pong(&bytes, ctx),
            Received::Part | Received::Pong(_) => {}
        }
        self.end_if_too_slow(ctx);
    }
}

impl DriverSession {
    /// Takes a frame out of the budget. A pong that answers a ping of the service is free, because the service
    /// requested it. A frame that ends the session is free too.
    fn spend(&mut self, received: &Received) -> Spend {
        let spend = match received {
            Received::Pong(bytes) if self.outgoing.answered(bytes, self.last_life) => Spend::Fine,
            Received::Close(_) | Received::Refused(_) => Spend::Fine,
            _ => self.budget.spend(),
        };
        if spend != Spend::Fine {
            metrics::counter!("driver_tracker_rate_limited_total", "limit" => "frames").increment(1);
        }
        spend
    }

    /// Answers a frame that is over the budget and not handled. `text` identifies the frame, if it has text.
    pub(super) fn refuse_over_budget(&mut self, text: &str, ctx: &mut Ctx) {
        let message = "too many frames a second".to_owned();
        let (reference, seq, subject) = name_of(text);
        let error = FrameError { reference, seq, subject, code: "rate_limited", message };
        self.send(ctx, &outbound::error(&error, Utc::now()));
    }

    fn pong(&mut self, bytes: &[u8], ctx: &mut Ctx) {
        ctx.pong(bytes);
        if self.outgoing.sent(bytes.len(), Instant::now()) {
            self.ping(ctx);
        }
    }

    /// Ends the session for a frame that was refused by its header.
    fn refuse_frame(&mut self, refusal: Refusal, ctx: &mut Ctx) {
        match refusal {
            Refusal::TooBig => self.end(ctx, close::TOO_BIG, "a frame is at most 64 KiB"),
            Refusal::Binary => self.end(ctx, close::POLICY, "binary frames are not spoken here"),
            Refusal::Malformed => self.end(ctx, close::PROTOCOL, "this is no frame of a WebSocket client"),
        }
    }
}
