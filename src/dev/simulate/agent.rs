//! The protocol logic of one simulated driver, without the socket: frames and time go in, frames come out.
//!
//! Invariants:
//! - Every command is acknowledged, repeats included.
//! - A stage of a delivery is complete only when the service answered `ok`.
//! - After a reconnect `welcome` is authoritative.
//!
//! This module must not do IO.

mod received;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use super::judge::Availability;
use super::ledger::Ledger;
use super::movement::{Duty, Mover};
use super::wire::{Delivery, Incoming, Stage};

/// A request without an answer for this time is sent again.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long a leaving driver waits for the confirmation that it is off duty.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// The maximum number of unacknowledged heartbeats that are tracked.
const MAX_UNACKED: usize = 256;
/// The maximum number of open deliveries. It is above any useful capacity.
const MAX_JOBS: usize = 64;
const MIN_HEARTBEAT_MS: u64 = 50;

/// The progress of a job towards its next stage.
enum Step {
    /// The next stage is not planned yet.
    Unplanned,
    /// The next stage is reached at this time.
    Due(Duration),
    /// The stage is reported and not answered yet.
    Reported { reference: String, stage: Stage, at: Duration },
}

struct Job {
    delivery: Delivery,
    step: Step,
}

impl Job {
    fn awaits(&self, reference: &str) -> bool {
        matches!(&self.step, Step::Reported { reference: sent, .. } if sent == reference)
    }

    fn ends(&self) -> bool {
        matches!(self.step, Step::Reported { stage: Stage::Delivered, .. })
    }
}

/// The requested duty of the driver, as last sent to the service.
#[derive(Clone, PartialEq)]
enum RequestedDuty {
    /// The request is due at this time.
    Unsent(Duration),
    Sent {
        reference: String,
        on: bool,
        at: Duration,
    },
    Confirmed(bool),
}

/// See the module.
pub(super) struct Agent {
    index: usize,
    mover: Mover,
    ledger: Arc<Ledger>,
    in_session: bool,
    seq: u64,
    references: u64,
    heartbeat_every: Duration,
    next_heartbeat: Duration,
    unacked: VecDeque<u64>,
    capacity: usize,
    on_duty: bool,
    requested_duty: RequestedDuty,
    jobs: VecDeque<Job>,
    leaving_since: Option<Duration>,
    /// The wait that a `reconnect` frame requested.
    reconnect_after: Option<Duration>,
    outgoing: Vec<String>,
}

impl Agent {
    pub(super) fn new(index: usize, mover: Mover, ledger: Arc<Ledger>) -> Self {
        Self {
            index,
            mover,
            ledger,
            in_session: false,
            seq: 0,
            references: 0,
            heartbeat_every: Duration::from_secs(5),
            next_heartbeat: Duration::ZERO,
            unacked: VecDeque::new(),
            capacity: 1,
            on_duty: false,
            requested_duty: RequestedDuty::Unsent(Duration::ZERO),
            jobs: VecDeque::new(),
            leaving_since: None,
            reconnect_after: None,
            outgoing: Vec::new(),
        }
    }

    /// Returns the time at which this driver first connects.
    pub(super) fn starts_at(&self) -> Duration {
        self.mover.starts_at()
    }

    /// Returns whether `welcome` was received in this session.
    pub(super) fn in_session(&self) -> bool {
        self.in_session
    }

    /// Takes the frames to send, in order.
    pub(super) fn take_outgoing(&mut self) -> Vec<String> {
        std::mem::take(&mut self.outgoing)
    }

    /// Takes the wait that the service requested before it closed the session.
    pub(super) fn take_reconnect_after(&mut self) -> Option<Duration> {
        self.reconnect_after.take()
    }

    /// Starts leaving: the driver goes off duty and is then done.
    pub(super) fn leave(&mut self, now: Duration) {
        self.leaving_since.get_or_insert(now);
        self.on_time(now);
    }

    /// Returns whether the driver has nothing more to send.
    pub(super) fn is_done(&self, now: Duration) -> bool {
        let off = self.requested_duty == RequestedDuty::Confirmed(false);
        match self.leaving_since {
            Some(since) => off || now >= since + LEAVE_WITHIN,
            None => off && self.jobs.is_empty() && self.mover.duty(now).0 == Duty::Over,
        }
    }

    /// Resets the state of the session after the socket is lost.
    pub(super) fn session_lost(&mut self, now: Duration) {
        self.in_session = false;
        self.outgoing.clear();
        self.unacked.clear();
        self.ledger.disconnected(self.index);
        self.publish_availability(now);
    }

    /// Returns the time at which `on_time` must be called next.
    pub(super) fn deadline(&self, now: Duration) -> Duration {
        if !self.in_session {
            return Duration::MAX;
        }
        let job = self.jobs.front().map(|job| match &job.step {
            Step::Unplanned => now,
            Step::Due(at) => *at,
            Step::Reported { at, .. } => *at + ANSWER_WITHIN,
        });
        let duty = match &self.requested_duty {
            RequestedDuty::Unsent(at) => Some(*at),
            RequestedDuty::Sent { at, .. } => Some(*at + ANSWER_WITHIN),
            RequestedDuty::Confirmed(_) => self.mover.duty(now).1,
        };
        let leave = self.leaving_since.map(|since| since + LEAVE_WITHIN);
        [job, duty, leave].into_iter().flatten().fold(self.next_heartbeat, Duration::min)
    }

    /// Sends the frames and plans the stages that are due.
    pub(super) fn on_time(&mut self, now: Duration) {
        if !self.in_session {
            return;
        }
        if now >= self.next_heartbeat {
            self.heartbeat(now);
        }
        self.request_duty(now);
        self.work(now);
        self.publish_availability(now);
    }

    /// Handles a received frame.
    pub(super) fn on_text(&mut self, now: Duration, text: &str) {
        let frame = match serde_json::from_str::<Incoming>(text) {
            Ok(frame) => frame,
            Err(_) => return self.ledger.error("frame: unreadable"),
        };
        if !self.in_session && !matches!(frame, Incoming::Welcome { .. }) {
            return self.ledger.error("frame: before welcome");
        }
        self.on_frame(now, frame);
        self.on_time(now);
    }

    // --- outgoing frames ---

    fn enqueue(&mut self, frame: &Value) {
        self.outgoing.push(frame.to_string());
    }

    fn next_reference(&mut self, kind: char) -> String {
        self.references += 1;
        format!("{kind}-{}", self.references)
    }

    fn acknowledge(&mut self, message_id: &str) {
        self.enqueue(&json!({"type": "ack", "messageId": message_id}));
    }

    fn heartbeat(&mut self, now: Duration) {
        self.next_heartbeat = now + self.heartbeat_every;
        self.seq += 1;
        let place = self.mover.position(now);
        let mut frame = json!({"type": "heartbeat", "seq": self.seq, "fixTime": wall_clock()});
        if let Some(place) = place {
            frame["lat"] = json!(place.lat());
            frame["lon"] = json!(place.lon());
            frame["accuracyM"] = json!(8);
            if let Some(speed_mps) = self.mover.speed_mps() {
                frame["speedMps"] = json!((speed_mps * 10.0).round() / 10.0);
            }
        }
        self.ledger.heartbeat_sent(self.index, now, self.seq, place);
        if self.unacked.len() >= MAX_UNACKED {
            self.unacked.pop_front();
        }
        self.unacked.push_back(self.seq);
        self.enqueue(&frame);
    }

    /// Returns the duty that the driver wants. It follows the movement, but a driver with open deliveries stays on duty
    /// during a break.
    fn wants_duty(&self, now: Duration) -> bool {
        self.leaving_since.is_none() && (self.mover.duty(now).0 == Duty::On || !self.jobs.is_empty())
    }

    fn request_duty(&mut self, now: Duration) {
        let on = self.wants_duty(now);
        let due = match &self.requested_duty {
            RequestedDuty::Unsent(at) => now >= *at,
            RequestedDuty::Sent { on: requested, at, .. } => *requested != on || now >= *at + ANSWER_WITHIN,
            RequestedDuty::Confirmed(confirmed) => *confirmed != on,
        };
        if due {
            let reference = self.next_reference('s');
            let status = if on { "AVAILABLE" } else { "OFFLINE" };
            self.enqueue(&json!({"type": "status", "status": status, "ref": reference}));
            self.requested_duty = RequestedDuty::Sent { reference, on, at: now };
        }
    }

    /// Plans the next stage of the first job, or reports it when it is reached.
    fn work(&mut self, now: Duration) {
        let Some(job) = self.jobs.front_mut() else { return };
        let next = match job.delivery.status {
            Stage::Assigned => Stage::PickedUp,
            // The protocol allows skipping IN_TRANSIT. Drivers with recorded movement skip it.
            Stage::PickedUp if !self.mover.is_traced() => Stage::InTransit,
            _ => Stage::Delivered,
        };
        let repeated = match &job.step {
            Step::Unplanned => {
                let done_at = match next {
                    Stage::PickedUp => self.mover.head_for(now, job.delivery.pickup),
                    Stage::InTransit => now,
                    _ => self.mover.head_for(now, job.delivery.drop),
                };
                job.step = Step::Due(done_at);
                None
            }
            Step::Reported { reference, at, .. } if now >= *at + ANSWER_WITHIN => Some(reference.clone()),
            Step::Due(_) | Step::Reported { .. } => None,
        };
        let due = matches!(job.step, Step::Due(at) if now >= at);
        if due || repeated.is_some() {
            let reference = repeated.unwrap_or_else(|| self.next_reference('u'));
            self.report_stage(now, next, reference);
        }
    }

    fn report_stage(&mut self, now: Duration, stage: Stage, reference: String) {
        let place = self.mover.position(now);
        let Some(job) = self.jobs.front_mut() else { return };
        let mut frame = json!({
            "type": "delivery.update", "ref": reference, "deliveryId": job.delivery.id,
            "assignmentId": job.delivery.assignment_id, "status": stage.as_str(), "occurredAt": wall_clock(),
        });
        if let Some(place) = place {
            frame["lat"] = json!(place.lat());
            frame["lon"] = json!(place.lon());
        }
        job.step = Step::Reported { reference, stage, at: now };
        self.enqueue(&frame);
    }

    // --- availability ---

    fn availability(&self) -> Availability {
        let ending = self.jobs.iter().filter(|job| job.ends()).count();
        let duty_in_flight = match self.requested_duty {
            RequestedDuty::Sent { on, .. } => Some(on),
            RequestedDuty::Unsent(_) | RequestedDuty::Confirmed(_) => None,
        };
        if self.jobs.len() - ending >= self.capacity || (!self.on_duty && duty_in_flight != Some(true)) {
            Availability::Unavailable
        } else if !self.in_session || duty_in_flight.is_some() || self.jobs.len() >= self.capacity {
            Availability::Uncertain
        } else {
            Availability::Available
        }
    }

    fn publish_availability(&self, now: Duration) {
        self.ledger.set_availability(self.index, now, self.availability());
    }
}

fn wall_clock() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests;
