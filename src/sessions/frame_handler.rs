//! Handles the frames of drivers, from the socket and from HTTP alike.

use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use serde_json::{Value, json};

use super::directory::SessionDirectory;
use super::interval::interval_of;
use crate::config::HeartbeatConfig;
use crate::dispatch::session::require_current;
use crate::dispatch::{DispatchError, duty, progress};
use crate::domain::driver::DriverRefusal;
use crate::domain::event::Actor;
use crate::domain::heartbeat::Heartbeat;
use crate::domain::ids::DriverId;
use crate::domain::plausibility::{FixRefusal, JumpFilter};
use crate::domain::position::Fix;
use crate::effects::UseCases;
use crate::ingest::{JumpMemory, PresenceQueue, Slot, TrackQueue};
use crate::protocol::inbound::parse_batch_fix;
use crate::protocol::{Frame, FrameBody, FrameError, Subject, outbound};
use crate::store::credentials::DriverIdentity;
use crate::store::drivers::DriverChanged;
use crate::store::{commands, drivers, positions, sessions};

/// The outcome of a frame.
pub struct FrameOutcome {
    /// The answer to the driver.
    pub answer: Value,
    /// The driver's new state, when the frame changed it.
    pub changed: Option<DriverChanged>,
}

/// Handles drivers' frames; cheap to clone.
#[derive(Clone)]
pub struct FrameHandler {
    services: Arc<Services>,
}

/// The services that the handler uses.
struct Services {
    use_cases: UseCases,
    directory: Arc<SessionDirectory>,
    heartbeats: PresenceQueue,
    tracks: TrackQueue,
    jumps: JumpMemory,
    heartbeat: HeartbeatConfig,
}

impl FrameHandler {
    /// Heartbeats go to `heartbeats`, and fixes of deliveries go to `tracks`.
    pub fn new(
        use_cases: UseCases,
        directory: Arc<SessionDirectory>,
        heartbeats: PresenceQueue,
        tracks: TrackQueue,
        heartbeat: HeartbeatConfig,
    ) -> Self {
        let jumps = JumpMemory::default();
        Self { services: Arc::new(Services { use_cases, directory, heartbeats, tracks, jumps, heartbeat }) }
    }

    /// The use cases that frames run.
    pub fn use_cases(&self) -> &UseCases {
        &self.services.use_cases
    }

    /// `HEARTBEAT_…` and `FIX_…`.
    pub fn heartbeat_config(&self) -> &HeartbeatConfig {
        &self.services.heartbeat
    }

    /// The queue of heartbeats for storage.
    pub fn heartbeats(&self) -> &PresenceQueue {
        &self.services.heartbeats
    }

    /// The queue of delivery fixes for PostgreSQL.
    pub fn tracks(&self) -> &TrackQueue {
        &self.services.tracks
    }

    /// Handles a frame and returns its answer. An error becomes an answer too.
    pub async fn answer(&self, who: &DriverIdentity, session: Option<i64>, frame: Frame) -> Value {
        let (reference, subject) = (frame.reference.clone(), frame.subject());
        match self.handle(who, session, frame).await {
            Ok(carried) => carried.answer,
            Err(error) => refuse(reference, subject, &error),
        }
    }

    /// Handles a frame that came over HTTP or, with `session`, over the driver's socket of that epoch.
    pub async fn handle(
        &self,
        who: &DriverIdentity,
        session: Option<i64>,
        frame: Frame,
    ) -> Result<FrameOutcome, DispatchError> {
        let driver = who.driver_id;
        let reference = frame.reference.as_deref();
        let answer = match frame.body {
            FrameBody::Heartbeat { seq, fix } => {
                let tally = self.take_over_http(driver, fix.into_iter().collect()).await?;
                match tally.refused.first() {
                    None => outbound::ok(reference, json!({})),
                    Some((_, refusal)) => refused_fix(reference, Some(seq), refusal),
                }
            }
            FrameBody::Batch { fixes } => {
                let tally = self.take_over_http(driver, fixes).await?;
                outbound::ok(reference, tally.to_json())
            }
            FrameBody::Status { on_duty } => return self.set_duty(driver, session, reference, on_duty).await,
            FrameBody::OfferAnswer => return Err(DispatchError::NotFound),
            FrameBody::DeliveryUpdate { delivery_id, assignment_id, step, details, ignored } => {
                let status = self
                    .services
                    .use_cases
                    .transact_and_apply(move |unit| {
                        Box::pin(async move {
                            if let Some(epoch) = session {
                                require_current(unit, driver, epoch).await?;
                            }
                            progress::update_by_driver(unit, driver, delivery_id, assignment_id, step, &details).await
                        })
                    })
                    .await?;
                let mut fields = json!({"status": status});
                if !ignored.is_empty() {
                    fields["ignored"] = json!(ignored);
                }
                outbound::ok(reference, fields)
            }
            FrameBody::Ack { message_id } => {
                self.services
                    .use_cases
                    .transact_and_apply(move |unit| {
                        Box::pin(async move {
                            if let Some(epoch) = session {
                                require_current(unit, driver, epoch).await?;
                            }
                            Ok(commands::ack(unit.conn, driver, message_id).await?)
                        })
                    })
                    .await?;
                outbound::ok(reference, json!({}))
            }
        };
        Ok(FrameOutcome { answer, changed: None })
    }

    async fn set_duty(
        &self,
        driver: DriverId,
        session: Option<i64>,
        reference: Option<&str>,
        on_duty: bool,
    ) -> Result<FrameOutcome, DispatchError> {
        let (changed, effects) = self
            .services
            .use_cases
            .transact(move |unit| {
                Box::pin(async move {
                    if let Some(epoch) = session {
                        require_current(unit, driver, epoch).await?;
                    }
                    duty::set_duty(unit, driver, on_duty, duty::ASKED_BY_DRIVER, &Actor::Driver(driver.0)).await
                })
            })
            .await?;
        // The session learns the new epoch before a poll reads it, so that it does not report to the driver the change
        // that the driver requested.
        if let (Some(epoch), Some(entry)) = (session, self.services.directory.get(driver))
            && entry.session_epoch == epoch
        {
            entry.learn(changed.epoch);
        }
        self.services.use_cases.apply(effects).await;
        let answer = outbound::ok(reference, json!({"status": changed.status, "onDuty": changed.on_duty}));
        Ok(FrameOutcome { answer, changed: Some(changed) })
    }

    /// Accepts the fixes of an app without a socket. This counts as a heartbeat. It opens and replaces no session.
    pub async fn locations(&self, who: &DriverIdentity, fixes: &[Value]) -> Result<Value, DispatchError> {
        let now = Utc::now();
        let rules = &self.services.heartbeat.fix_rules;
        let fixes = fixes.iter().map(|fix| parse_batch_fix(fix, now, rules)).collect();
        let mut body = self.take_over_http(who.driver_id, fixes).await?.to_json();
        let driver = who.driver_id;
        let found = self
            .services
            .use_cases
            .database()
            .transact(move |conn| Box::pin(async move { drivers::get(conn, driver).await }))
            .await
            .map_err(DispatchError::Store)?
            .ok_or(DispatchError::NotFound)?;
        let interval = interval_of(found.state.heartbeat_tier(), &self.services.heartbeat);
        body["status"] = json!(found.status);
        body["onDuty"] = json!(found.state.on_duty);
        body["heartbeatIntervalMs"] = json!(interval.heartbeat_interval_ms);
        body["ttlMs"] = json!(interval.ttl_ms);
        Ok(body)
    }

    /// Receives a heartbeat over HTTP, under the epoch of the driver's current session. The last stored fix is the base
    /// of the jump filter.
    async fn take_over_http(
        &self,
        driver: DriverId,
        fixes: Vec<Result<Fix, FixRefusal>>,
    ) -> Result<Tally, DispatchError> {
        let (known, session_epoch) = self
            .services
            .use_cases
            .database()
            .transact(move |conn| {
                Box::pin(async move {
                    let stored = positions::get(conn, &[driver]).await?;
                    let epoch = sessions::current_epoch(conn, driver).await?;
                    Ok::<_, DispatchError>((stored.first().and_then(|p| p.fix), epoch))
                })
            })
            .await?;
        let refused = &self.services.jumps;
        let max_speed_kmh = f64::from(self.services.heartbeat.fix_max_speed_kmh);
        let mut filter = JumpFilter::new(max_speed_kmh, known).with_refused(refused.take(driver));
        let mut tally = Tally::of(fixes, &mut filter);
        let heartbeat = Heartbeat {
            driver_id: driver,
            fix: filter.believed(),
            // The base fix was read from PostgreSQL, where positions arrive late.
            fix_is_newest: false,
            received_at: Utc::now(),
            received: Instant::now(),
            session_epoch,
        };
        refused.keep(driver, filter.into_refused());
        self.services.heartbeats.push(Slot { heartbeat, is_first: true, ack: None });
        self.services.tracks.push(driver, tally.take_believed());
        Ok(tally)
    }
}

/// The outcome of several fixes.
pub struct Tally {
    accepted: usize,
    /// The accepted fixes by time. The newest is the driver's position; all of them form the track.
    believed: Vec<Fix>,
    refused: Vec<(usize, FixRefusal)>,
}

impl Tally {
    /// Checks fixes in the order of their times, in whatever order they arrived. Refusals are reported by their index
    /// in the request.
    pub fn of(fixes: Vec<Result<Fix, FixRefusal>>, filter: &mut JumpFilter) -> Self {
        let (mut believable, mut refused) = (Vec::new(), Vec::new());
        for (index, fix) in fixes.into_iter().enumerate() {
            match fix {
                Ok(fix) => believable.push((index, fix)),
                Err(refusal) => refused.push((index, refusal)),
            }
        }
        believable.sort_by_key(|(_, fix)| fix.time);
        let mut believed = Vec::with_capacity(believable.len());
        for (index, fix) in believable {
            match filter.judge(fix) {
                Ok(()) => believed.push(fix),
                Err(refusal) => refused.push((index, refusal)),
            }
        }
        refused.sort_by_key(|(index, _)| *index);
        Self { accepted: believed.len(), believed, refused }
    }

    /// The accepted fixes, for the track.
    pub fn take_believed(&mut self) -> Vec<Fix> {
        std::mem::take(&mut self.believed)
    }

    /// The answer to the driver.
    pub fn to_json(&self) -> Value {
        let refused: Vec<Value> = self
            .refused
            .iter()
            .map(|(index, refusal)| {
                count_refused_fix(refusal.code);
                let mut one = json!({"index": index, "code": refusal.code});
                if outbound::needs_server_time(refusal.code) {
                    one["serverTime"] = outbound::moment(Utc::now());
                }
                one
            })
            .collect();
        json!({"accepted": self.accepted, "refused": refused})
    }
}

/// The error frame of a refused fix.
pub fn refused_fix(reference: Option<&str>, seq: Option<i64>, refusal: &FixRefusal) -> Value {
    count_refused_fix(refusal.code);
    let error = FrameError {
        reference: reference.map(str::to_owned),
        seq,
        subject: None,
        code: refusal.code,
        message: refusal.message.clone(),
    };
    outbound::error(&error, Utc::now())
}

fn count_refused_fix(code: &'static str) {
    metrics::counter!("driver_tracker_fixes_refused_total", "code" => code).increment(1);
}

/// The error frame of a refusal. `reference` and `subject` identify the refused frame.
pub fn refuse(reference: Option<String>, subject: Option<Subject>, error: &DispatchError) -> Value {
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
    outbound::error(&FrameError { reference, seq: None, subject, code, message }, Utc::now())
}
