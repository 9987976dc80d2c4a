//! Handles frames that need PostgreSQL one at a time, in order, in tasks that outlive the session. An app may send its
//! last frame and close at once, and the effects after a commit must be applied even when the session is gone.

use std::collections::VecDeque;

use actix::prelude::*;
use chrono::Utc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Ctx, DriverSession};
use crate::dispatch::DispatchError;
use crate::protocol::{Frame, FrameBody, FrameError, Subject, close, outbound};
use crate::sessions::frame_handler::{FrameOutcome, refuse};

/// Frames that may wait for PostgreSQL.
const MAX_QUEUED: usize = 32;

/// The queue of frames of a session.
#[derive(Default)]
pub(super) struct Work {
    queue: VecDeque<Frame>,
    /// The task that handles the current frame.
    in_flight: Option<JoinHandle<()>>,
}

impl DriverSession {
    pub(super) fn enqueue(&mut self, frame: Frame, ctx: &mut Ctx) {
        if self.work.queue.len() >= MAX_QUEUED {
            let message = "too many frames are waiting".to_owned();
            let subject = frame.subject();
            let error = FrameError { reference: frame.reference, seq: None, subject, code: "rate_limited", message };
            return self.send(ctx, &outbound::error(&error, Utc::now()));
        }
        self.work.queue.push_back(frame);
        self.work(ctx);
    }

    /// Handles the next queued frame, one at a time.
    fn work(&mut self, ctx: &mut Ctx) {
        if self.work.in_flight.is_some() {
            return;
        }
        let Some(frame) = self.work.queue.pop_front() else { return };
        let (reference, subject, silent) = (frame.reference.clone(), frame.subject(), is_silent(&frame));
        let (frames, identity, epoch) = (self.services.frames.clone(), self.identity, self.session_epoch());
        let (sender, answer) = oneshot::channel();
        let hold = self.services.directory.hold();
        self.work.in_flight = Some(actix::spawn(async move {
            // Nobody listens once the session is over.
            let _ = sender.send(frames.handle(&identity, Some(epoch), frame).await);
            drop(hold);
        }));
        ctx.spawn(answer.into_actor(self).map(move |answer, this, ctx| {
            this.work.in_flight = None;
            // Without an answer the app asks again.
            if let Ok(answer) = answer {
                this.answered(answer, reference, subject, silent, ctx);
            }
            this.work(ctx);
        }));
    }

    /// Hands the frame in flight and those that wait to a task of its own: the session is over.
    pub(super) fn finish_work(&mut self) {
        let Work { queue, in_flight } = std::mem::take(&mut self.work);
        if queue.is_empty() {
            return;
        }
        let (frames, identity, epoch) = (self.services.frames.clone(), self.identity, self.session_epoch());
        let hold = self.services.directory.hold();
        actix::spawn(async move {
            if let Some(in_flight) = in_flight {
                let _ = in_flight.await;
            }
            for frame in queue {
                if let Err(error) = frames.handle(&identity, Some(epoch), frame).await {
                    tracing::debug!(driver.id = %identity.driver_id, error = %error, "a frame before the close was refused");
                }
            }
            drop(hold);
        });
    }
    fn answered(
        &mut self,
        answer: Result<FrameOutcome, DispatchError>,
        reference: Option<String>,
        subject: Option<Subject>,
        silent: bool,
        ctx: &mut Ctx,
    ) {
        match answer {
            Ok(_) if silent => {}
            Ok(outcome) => {
                self.send(ctx, &outcome.answer);
                if let Some(changed) = outcome.changed {
                    self.follow_interval(&changed, ctx);
                }
            }
            Err(DispatchError::SessionReplaced) => self.end(ctx, close::REPLACED, "a newer session has taken over"),
            Err(error) => self.send(ctx, &refuse(reference, subject, &error)),
        }
    }
}

/// An acknowledgement is answered only when it carries a `ref`.
fn is_silent(frame: &Frame) -> bool {
    matches!(frame.body, FrameBody::Ack { .. }) && frame.reference.is_none()
}
