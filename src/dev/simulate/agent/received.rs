//! Handles the frames that an [`Agent`] receives.

use std::time::Duration;

use super::super::wire::{Delivery, Incoming, Stage};
use super::{ANSWER_WITHIN, Agent, Job, MAX_JOBS, MIN_HEARTBEAT_MS, RequestedDuty, Step};

impl Agent {
    pub(super) fn on_frame(&mut self, now: Duration, frame: Incoming) {
        match frame {
            Incoming::Welcome { driver, deliveries, heartbeat_interval_ms, ttl_ms } => {
                self.in_session = true;
                self.capacity = driver.capacity.unwrap_or(1).max(1);
                self.on_duty = driver.on_duty;
                self.heartbeat_every = Duration::from_millis(heartbeat_interval_ms.max(MIN_HEARTBEAT_MS));
                self.next_heartbeat = now;
                self.requested_duty = RequestedDuty::Confirmed(driver.on_duty);
                self.ledger.connected(self.index, Duration::from_millis(ttl_ms));
                self.reconcile(now, deliveries);
            }
            Incoming::Ack { seq } => {
                let before = self.unacked.len();
                self.unacked.retain(|sent| *sent > seq);
                let acked = (before - self.unacked.len()) as u64;
                self.ledger.heartbeats_acked(self.index, now, seq, acked);
            }
            Incoming::Ok { r#ref, on_duty } => self.on_ok(now, r#ref.as_deref(), on_duty),
            Incoming::Error { r#ref, seq, code, retryable, retry_after_ms } => {
                let retry_at = retryable.then(|| now + Duration::from_millis(retry_after_ms.unwrap_or(1000).max(100)));
                self.on_error(now, r#ref.as_deref(), seq, &code, retry_at);
            }
            Incoming::Assignment { message_id, delivery } => {
                self.acknowledge(&message_id);
                self.accept(now, delivery);
            }
            Incoming::AssignmentCancelled { message_id, delivery_id, assignment_id } => {
                self.acknowledge(&message_id);
                let held = |job: &Job| {
                    job.delivery.id == delivery_id
                        && job.delivery.assignment_id.as_ref().is_none_or(|held| *held == assignment_id)
                };
                self.drop_jobs(now, held);
            }
            Incoming::Delivery { message_id, delivery } => {
                self.acknowledge(&message_id);
                self.on_delivery(now, delivery);
            }
            Incoming::Status { on_duty } => self.on_duty = on_duty,
            Incoming::Config { heartbeat_interval_ms, ttl_ms } => {
                self.ledger.ttl_changed(self.index, Duration::from_millis(ttl_ms));
                self.heartbeat_every = Duration::from_millis(heartbeat_interval_ms.max(MIN_HEARTBEAT_MS));
                self.next_heartbeat = self.next_heartbeat.min(now + self.heartbeat_every);
            }
            Incoming::Reconnect { after_ms } => self.reconnect_after = Some(Duration::from_millis(after_ms)),
            Incoming::Unknown => {}
        }
    }

    fn on_ok(&mut self, now: Duration, reference: Option<&str>, on_duty: Option<bool>) {
        let Some(reference) = reference else { return };
        if let RequestedDuty::Sent { reference: sent, on, .. } = &self.requested_duty
            && sent == reference
        {
            self.on_duty = on_duty.unwrap_or(*on);
            self.requested_duty = RequestedDuty::Confirmed(*on);
            return;
        }
        let Some(at) = self.jobs.iter().position(|job| job.awaits(reference)) else { return };
        let Step::Reported { stage, .. } = self.jobs[at].step else { return };
        if stage == Stage::Delivered {
            self.finish(now, at);
        } else {
            self.jobs[at].delivery.status = stage;
            self.jobs[at].step = Step::Unplanned;
        }
    }

    fn on_error(
        &mut self,
        now: Duration,
        reference: Option<&str>,
        seq: Option<u64>,
        code: &str,
        retry_at: Option<Duration>,
    ) {
        if let Some(seq) = seq
            && code.starts_with("fix_")
        {
            return self.ledger.fix_refused(self.index, seq, code);
        }
        self.ledger.error(&format!("frame: {code}"));
        let Some(reference) = reference else { return };
        if matches!(&self.requested_duty, RequestedDuty::Sent { reference: sent, .. } if sent == reference) {
            self.requested_duty = RequestedDuty::Unsent(retry_at.unwrap_or(now + ANSWER_WITHIN));
        } else if let Some(job) = self.jobs.iter_mut().find(|job| job.awaits(reference)) {
            match retry_at {
                Some(at) => job.step = Step::Due(at),
                None => self.drop_jobs(now, |job| job.awaits(reference)),
            }
        }
    }

    fn accept(&mut self, now: Duration, delivery: Delivery) {
        let held = |job: &Job| job.delivery.id == delivery.id && job.delivery.assignment_id == delivery.assignment_id;
        if self.jobs.iter().any(held) || self.jobs.len() >= MAX_JOBS || delivery.status == Stage::NotOurs {
            return;
        }
        let seller_order_id = delivery.seller_order_id.clone();
        self.jobs.retain(|job| job.delivery.id != delivery.id);
        self.jobs.push_back(Job { delivery, step: Step::Unplanned });
        self.ledger.assigned(self.index, now, &seller_order_id, self.availability());
    }

    fn on_delivery(&mut self, now: Duration, delivery: Delivery) {
        let Some(at) = self.jobs.iter().position(|job| job.delivery.id == delivery.id) else { return };
        match delivery.status {
            Stage::Delivered => self.finish(now, at),
            Stage::NotOurs => self.drop_jobs(now, |job| job.delivery.id == delivery.id),
            _ => {
                let job = &mut self.jobs[at];
                let assignment_id = delivery.assignment_id.clone().or(job.delivery.assignment_id.take());
                *job = Job { delivery: Delivery { assignment_id, ..delivery }, step: Step::Unplanned };
            }
        }
    }

    /// Reconciles the jobs with `welcome` after a reconnect: it holds every open delivery of the driver.
    fn reconcile(&mut self, now: Duration, deliveries: Vec<Delivery>) {
        let gone = |job: &Job| !deliveries.iter().any(|delivery| delivery.id == job.delivery.id);
        while let Some(at) = self.jobs.iter().position(gone) {
            if self.jobs[at].ends() {
                self.finish(now, at);
            } else {
                self.lose_job(now, at);
            }
        }
        for delivery in deliveries {
            let known = self
                .jobs
                .iter_mut()
                .find(|job| job.delivery.id == delivery.id && job.delivery.assignment_id == delivery.assignment_id);
            match known {
                Some(job) if job.delivery.status != delivery.status || matches!(job.step, Step::Reported { .. }) => {
                    *job = Job { delivery, step: Step::Unplanned };
                }
                Some(_) => {}
                None => self.accept(now, delivery),
            }
        }
    }

    fn finish(&mut self, now: Duration, at: usize) {
        if let Some(job) = self.jobs.remove(at) {
            self.ledger.delivered(now, &job.delivery.seller_order_id);
        }
        self.roam_if_idle();
    }

    fn lose_job(&mut self, now: Duration, at: usize) {
        if let Some(job) = self.jobs.remove(at) {
            self.ledger.unassigned(now, &job.delivery.seller_order_id);
        }
        self.roam_if_idle();
    }

    fn drop_jobs(&mut self, now: Duration, which: impl Fn(&Job) -> bool) {
        while let Some(at) = self.jobs.iter().position(&which) {
            self.lose_job(now, at);
        }
    }

    fn roam_if_idle(&mut self) {
        if self.jobs.is_empty() {
            self.mover.release();
        }
    }
}
