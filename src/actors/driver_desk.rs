//! What a driver's frame does, whether it came over the socket or over HTTP.

use std::time::Instant;

use chrono::Utc;
use serde_json::{Value, json};

use super::Node;
use super::presence_writer::Slot;
use crate::dispatch::session::require_current;
use crate::dispatch::{DispatchError, duty, progress};
use crate::domain::driver::DriverRefusal;
use crate::domain::event::Actor;
use crate::domain::ids::DriverId;
use crate::domain::position::Fix;
use crate::protocol::inbound::{FixRefusal, FixReport, parse_batch_fix};
use crate::protocol::{Frame, FrameBody, FrameError, outbound};
use crate::store::credentials::DriverIdentity;
use crate::store::drivers::DriverChanged;
use crate::store::{commands, drivers, positions, sessions};

/// Carries out drivers' frames.
#[derive(Clone)]
pub struct DriverDesk {
    node: Node,
}

/// An answer, and the driver's state where the frame changed or read it.
pub struct DeskAnswer {
    /// The frame to send.
    pub frame: Value,
    /// The state that the driver now knows.
    pub learned: Option<DriverChanged>,
}

impl From<Value> for DeskAnswer {
    fn from(frame: Value) -> Self {
        Self { frame, learned: None }
    }
}

impl DriverDesk {
    /// Works for `node`.
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    /// Carries out a frame and gives its answer; what goes wrong is an answer too.
    pub async fn answer(&self, who: &DriverIdentity, session: Option<i64>, frame: Frame) -> Value {
        let reference = frame.reference.clone();
        match self.carry_out(who, session, frame).await {
            Ok(answer) => answer.frame,
            Err(error) => refuse(reference, &error),
        }
    }

    /// Carries out a frame that came over HTTP or, with `session`, over the driver's socket of that epoch.
    pub async fn carry_out(
        &self,
        who: &DriverIdentity,
        session: Option<i64>,
        frame: Frame,
    ) -> Result<DeskAnswer, DispatchError> {
        let driver = who.driver_id;
        let reference = frame.reference.as_deref();
        match frame.body {
            FrameBody::Heartbeat { fix, .. } => {
                let (fix, refusal) = split(fix);
                self.take_over_http(driver, fix).await?;
                Ok(match refusal {
                    None => outbound::ok(reference, json!({})).into(),
                    Some(refusal) => refused_fix(reference, None, &refusal).into(),
                })
            }
            FrameBody::Batch { fixes } => {
                let (newest, tally) = tally(fixes);
                self.take_over_http(driver, newest).await?;
                Ok(outbound::ok(reference, tally).into())
            }
            FrameBody::Status { on_duty } => self.set_duty(driver, session, reference, on_duty).await,
            FrameBody::OfferAnswer => Err(DispatchError::NotFound),
            FrameBody::DeliveryUpdate { delivery_id, assignment_id, step, particulars } => {
                let status = self
                    .node
                    .perform(move |unit| {
                        Box::pin(async move {
                            if let Some(epoch) = session {
                                require_current(unit, driver, epoch).await?;
                            }
                            progress::update_by_driver(unit, driver, delivery_id, assignment_id, step, &particulars)
                                .await
                        })
                    })
                    .await?;
                Ok(outbound::ok(reference, json!({"status": status})).into())
            }
            FrameBody::Ack { message_id } => {
                self.node
                    .database()
                    .transact(move |conn| Box::pin(async move { commands::ack(conn, driver, message_id).await }))
                    .await
                    .map_err(DispatchError::Store)?;
                Ok(outbound::ok(reference, json!({})).into())
            }
        }
    }

    async fn set_duty(
        &self,
        driver: DriverId,
        session: Option<i64>,
        reference: Option<&str>,
        on_duty: bool,
    ) -> Result<DeskAnswer, DispatchError> {
        let (changed, effects) = self
            .node
            .perform_quietly(move |unit| {
                Box::pin(async move {
                    if let Some(epoch) = session {
                        require_current(unit, driver, epoch).await?;
                    }
                    duty::set_duty(unit, driver, on_duty, duty::ASKED_BY_DRIVER, &Actor::Driver(driver.0)).await
                })
            })
            .await?;
        // The session learns before anybody looks at it, so that it is not told what it asked for.
        if let (Some(epoch), Some(entry)) = (session, self.node.sessions().get(driver))
            && entry.session_epoch == epoch
        {
            entry.learn(changed.epoch);
        }
        self.node.follow(effects).await;
        let fields = json!({"status": changed.status, "onDuty": changed.on_duty});
        Ok(DeskAnswer { frame: outbound::ok(reference, fields), learned: Some(changed) })
    }

    /// Takes the fixes of an app without a socket. Renews liveness; opens and replaces no session.
    pub async fn locations(&self, who: &DriverIdentity, fixes: &[Value]) -> Result<Value, DispatchError> {
        let now = Utc::now();
        let (newest, mut body) = tally(fixes.iter().map(|fix| parse_batch_fix(fix, now)).collect());
        self.take_over_http(who.driver_id, newest).await?;
        let driver = who.driver_id;
        let found = self
            .node
            .database()
            .transact(move |conn| Box::pin(async move { drivers::get(conn, driver).await }))
            .await
            .map_err(DispatchError::Store)?
            .ok_or(DispatchError::NotFound)?;
        let pace = self.node.pace();
        body["status"] = json!(found.status);
        body["onDuty"] = json!(found.state.on_duty);
        body["heartbeatIntervalMs"] = json!(pace.heartbeat_interval_ms);
        body["ttlMs"] = json!(pace.ttl_ms);
        Ok(body)
    }

    /// A sign of life over HTTP, under the epoch of the driver's present session, with the last known place if none came.
    async fn take_over_http(&self, driver: DriverId, fix: Option<Fix>) -> Result<(), DispatchError> {
        let (known, session_epoch) = self
            .node
            .database()
            .transact(move |conn| {
                Box::pin(async move {
                    let stored = positions::get(conn, &[driver]).await?;
                    let epoch = sessions::current_epoch(conn, driver).await?;
                    Ok::<_, DispatchError>((stored.first().and_then(|p| p.fix), epoch))
                })
            })
            .await?;
        let slot = Slot {
            fix: newer(known, fix),
            received_at: Utc::now(),
            received: Instant::now(),
            session_epoch,
            first: true,
            ack: None,
        };
        if let Some(actors) = self.node.actors() {
            actors.writer.offer(driver, slot);
        }
        Ok(())
    }
}

/// A fix that is believed, and the refusal of one that is not.
pub fn split(fix: Option<Result<FixReport, FixRefusal>>) -> (Option<Fix>, Option<FixRefusal>) {
    match fix {
        None => (None, None),
        Some(Ok(report)) => (Some(report.fix), None),
        Some(Err(refusal)) => (None, Some(refusal)),
    }
}

/// The newer of two fixes, by the device's time.
pub fn newer(known: Option<Fix>, fresh: Option<Fix>) -> Option<Fix> {
    match (known, fresh) {
        (Some(known), Some(fresh)) if known.time > fresh.time => Some(known),
        (known, fresh) => fresh.or(known),
    }
}

/// The newest believed fix of a batch, and what the driver is told of all of them.
pub fn tally(fixes: Vec<Result<FixReport, FixRefusal>>) -> (Option<Fix>, Value) {
    let (mut newest, mut accepted, mut refused) = (None, 0, Vec::new());
    for (index, fix) in fixes.into_iter().enumerate() {
        match fix {
            Ok(report) => {
                accepted += 1;
                newest = newer(newest, Some(report.fix));
            }
            Err(refusal) => {
                count_refused_fix(refusal.code);
                refused.push(json!({"index": index, "code": refusal.code}));
            }
        }
    }
    (newest, json!({"accepted": accepted, "refused": refused}))
}

/// The error frame of a fix that is not believed.
pub fn refused_fix(reference: Option<&str>, seq: Option<i64>, refusal: &FixRefusal) -> Value {
    count_refused_fix(refusal.code);
    let error = FrameError {
        reference: reference.map(str::to_owned),
        seq,
        code: refusal.code,
        message: refusal.message.clone(),
    };
    outbound::error(&error, Utc::now())
}

fn count_refused_fix(code: &'static str) {
    metrics::counter!("driver_tracker_fixes_refused_total", "code" => code).increment(1);
}

/// The error frame of a refusal.
pub fn refuse(reference: Option<String>, error: &DispatchError) -> Value {
    let (code, message) = match error {
        DispatchError::NotFound => ("not_found", "there is no such thing of this driver's".to_owned()),
        DispatchError::InvalidTransition(refusal) => {
            ("invalid_transition", format!("the delivery is {}", refusal.holds))
        }
        DispatchError::AlreadyTerminal(status) => ("invalid_transition", format!("the delivery is {status}")),
        DispatchError::AssignmentClosed => ("assignment_closed", "this assignment is no longer active".to_owned()),
        DispatchError::SessionReplaced => ("assignment_closed", "a newer session has taken over".to_owned()),
        DispatchError::Driver(DriverRefusal::Inactive) => {
            ("invalid_transition", "the driver is deactivated".to_owned())
        }
        other => {
            if !other.is_unavailable() {
                tracing::error!(error = %other, "a driver's frame could not be carried out");
            }
            ("unavailable", "not possible just now; try again".to_owned())
        }
    };
    outbound::error(&FrameError { reference, seq: None, code, message }, Utc::now())
}
