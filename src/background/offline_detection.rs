//! Takes drivers off duty who were silent for too long, and takes their orders back that were not picked up.
//!
//! Silence is judged from PostgreSQL's `last_seen_at`, never from a missing Redis key, and only by a node that ran without a
//! stall and saw PostgreSQL healthy for the whole time. An online key that is there keeps its driver on duty: another node
//! receives their heartbeats and cannot reach PostgreSQL. Many drivers who fall silent at once are taken for an outage of
//! ours: they go off duty after twice the time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::driver::{Task, TaskError};
use crate::config::HeartbeatConfig;
use crate::dispatch::duty;
use crate::domain::ids::DriverId;
use crate::effects::UseCases;
use crate::presence::{OnlineValue, Presence};
use crate::store::StoreError;
use crate::store::drivers::{self, SilentDriver};

/// More than so many, and more than a tenth of the fleet, silent at once: an outage of ours.
const OUTAGE_DRIVERS: usize = 20;
/// Drivers who are taken off duty in one pass, at the most.
const PASS: usize = 1000;

/// The task.
pub struct OfflineDetection {
    use_cases: UseCases,
    presence: Presence,
    heartbeat: HeartbeatConfig,
    /// Drivers who fell silent together with many others: an outage of ours, until they were silent for twice as long.
    suspended: HashSet<DriverId>,
    stalls: StallDetector,
}

impl OfflineDetection {
    /// Judges silence by this configuration.
    pub fn new(use_cases: UseCases, presence: Presence, heartbeat: HeartbeatConfig) -> Self {
        let stalls = StallDetector::new(every(&heartbeat) * 3);
        Self { use_cases, presence, heartbeat, suspended: HashSet::new(), stalls }
    }
}

impl Task for OfflineDetection {
    async fn run(&mut self) -> Result<(), TaskError> {
        self.stalls.note(Utc::now());
        let outcome = self.detect().await;
        self.stalls.last = Utc::now();
        Ok(outcome?)
    }
}

/// Between runs.
pub fn every(heartbeat: &HeartbeatConfig) -> Duration {
    (heartbeat.offline_after / 10).clamp(Duration::from_millis(200), Duration::from_secs(10))
}

/// Since when this process has run without a stall. A process that was stopped, or whose machine was, received nothing
/// meanwhile: the heartbeats still wait in its sockets.
#[derive(Debug)]
struct StallDetector {
    since: Instant,
    last: DateTime<Utc>,
    /// A longer time between two runs is a stall.
    at_most: Duration,
}

impl StallDetector {
    fn new(at_most: Duration) -> Self {
        Self { since: Instant::now(), last: Utc::now(), at_most }
    }

    /// By the wall clock, since the other one may stand still with the machine.
    fn note(&mut self, now: DateTime<Utc>) {
        if (now - self.last).to_std().is_ok_and(|gap| gap > self.at_most) {
            tracing::warn!(
                "this process stalled for a while; silence is not judged until every driver could send a heartbeat again"
            );
            self.since = Instant::now();
        }
        self.last = now;
    }
}

/// How long a driver may be silent.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Silent since the configured time, and the time that a word may take to reach PostgreSQL.
    noticed: Duration,
    /// Later by more than a heartbeat's interval: drivers who fell silent at the same moment have been noticed by now.
    judged: Duration,
}

impl Limits {
    fn of(heartbeat: &HeartbeatConfig) -> Self {
        let noticed = heartbeat.offline_after + heartbeat.position_flush;
        Self { noticed, judged: noticed + heartbeat.interval + heartbeat.interval / 2 }
    }

    /// After an outage of ours every last heartbeat is old. Drivers had the usual time to send one again, and what
    /// they said had time to reach PostgreSQL, before the first is judged.
    fn may_judge(&self, healthy_for: Duration) -> bool {
        healthy_for >= self.noticed
    }
}

/// Whether so many who fell silent together are an outage of ours.
fn is_outage(fell_silent: usize, on_duty: i64) -> bool {
    fell_silent > OUTAGE_DRIVERS && fell_silent as i64 * 10 > on_duty
}

/// The drivers to mark offline now, and whether this is an outage of ours. Drivers who fell silent in one are added to
/// `suspended`; drivers who sent a heartbeat are removed.
fn verdict(
    silent: &[SilentDriver],
    on_duty: i64,
    limits: Limits,
    suspended: &mut HashSet<DriverId>,
) -> (Vec<DriverId>, bool) {
    let still_silent: HashSet<DriverId> = silent.iter().map(|d| d.id).collect();
    suspended.retain(|driver| still_silent.contains(driver));
    let fell_silent = silent.iter().filter(|d| !suspended.contains(&d.id)).count();
    let outage = is_outage(fell_silent, on_duty);
    if outage {
        suspended.extend(&still_silent);
    }
    let since = |driver: &SilentDriver| Duration::from_millis(driver.silent_ms.max(0).unsigned_abs());
    let due = |driver: &&SilentDriver| {
        let limit = if suspended.contains(&driver.id) { limits.judged * 2 } else { limits.judged };
        since(driver) >= limit
    };
    (silent.iter().filter(due).map(|d| d.id).collect(), outage)
}

impl OfflineDetection {
    async fn detect(&mut self) -> Result<(), StoreError> {
        let limits = Limits::of(&self.heartbeat);
        let database = self.use_cases.database();
        if !limits.may_judge(database.healthy_for().min(self.stalls.since.elapsed())) {
            return Ok(());
        }
        let noticed_s = limits.noticed.as_secs_f64();
        let (silent, on_duty) =
            database.transact(move |conn| Box::pin(async move { drivers::silent(conn, noticed_s).await })).await?;
        let silent = self.without_online_key(silent, limits.noticed).await;
        let (mut due, outage) = verdict(&silent, on_duty, limits, &mut self.suspended);
        metrics::gauge!("driver_tracker_silence_outage").set(if self.suspended.is_empty() { 0.0 } else { 1.0 });
        if outage {
            tracing::error!(
                drivers.silent = silent.len(),
                drivers.on_duty = on_duty,
                "many drivers fell silent at once: they go off duty after twice the time"
            );
        }
        due.truncate(PASS);
        for driver in due {
            self.mark_offline(driver, noticed_s).await;
        }
        Ok(())
    }

    /// The drivers whose online key in Redis is missing or old too; all of them while Redis does not answer. A key that
    /// was made to stay counts no longer than any other.
    async fn without_online_key(&self, silent: Vec<SilentDriver>, recent: Duration) -> Vec<SilentDriver> {
        if silent.is_empty() {
            return silent;
        }
        let ids: Vec<DriverId> = silent.iter().map(|driver| driver.id).collect();
        let online = match self.presence.online(&ids).await {
            Ok(online) => online,
            Err(error) => {
                tracing::debug!(error = %error, "online keys were not read");
                return silent;
            }
        };
        let oldest = Utc::now() - recent;
        let is_silent = |online: Option<OnlineValue>| online.is_none_or(|value| value.received_at <= oldest);
        silent.into_iter().zip(online).filter(|(_, online)| is_silent(*online)).map(|(driver, _)| driver).collect()
    }

    async fn mark_offline(&self, driver: DriverId, silent_s: f64) {
        let done = self
            .use_cases
            .transact_and_apply(move |unit| Box::pin(async move { duty::mark_offline(unit, driver, silent_s).await }))
            .await;
        match done {
            Ok(true) => tracing::info!(driver.id = %driver, "a driver was silent for too long and is off duty"),
            Ok(false) => {}
            Err(error) => tracing::warn!(driver.id = %driver, error = %error, "a silent driver was not taken off duty"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    const LIMITS: Limits = Limits { noticed: Duration::from_secs(910), judged: Duration::from_secs(918) };

    fn silent(count: usize, seconds: i64) -> Vec<SilentDriver> {
        (0..count).map(|_| SilentDriver { id: DriverId::new(), silent_ms: seconds * 1000 }).collect()
    }

    #[test]
    fn a_node_that_was_away_judges_nobody_until_everybody_had_their_time() {
        assert!(!LIMITS.may_judge(Duration::from_secs(1)));
        assert!(!LIMITS.may_judge(Duration::from_secs(909)));
        assert!(LIMITS.may_judge(Duration::from_secs(910)));
    }

    #[test]
    fn a_process_that_stalled_starts_to_count_again() {
        let mut stalls = StallDetector::new(Duration::from_secs(30));
        let (began, now) = (stalls.since, stalls.last);
        stalls.note(now + TimeDelta::seconds(30));
        stalls.note(now + TimeDelta::seconds(60));
        stalls.note(now);
        assert_eq!(stalls.since, began, "a usual pause, and a clock that was put back");
        stalls.note(now + TimeDelta::seconds(31));
        assert!(stalls.since > began);
    }

    #[test]
    fn a_few_are_judged_and_not_before_their_time() {
        let mut suspended = HashSet::new();
        assert!(verdict(&silent(3, 915), 3, LIMITS, &mut suspended).0.is_empty());
        assert_eq!(verdict(&silent(3, 918), 3, LIMITS, &mut suspended).0.len(), 3);
        assert_eq!(verdict(&silent(21, 918), 1000, LIMITS, &mut suspended).0.len(), 21, "a large fleet loses some");
    }

    #[test]
    fn many_at_once_are_an_outage_and_later_ones_are_judged_all_the_same() {
        let mut suspended = HashSet::new();
        let many = silent(30, 918);
        assert_eq!(verdict(&many, 100, LIMITS, &mut suspended), (vec![], true));
        let mut later = many.clone();
        later.extend(silent(1, 918));
        let alone = later[30].id;
        assert_eq!(verdict(&later, 100, LIMITS, &mut suspended), (vec![alone], false));
        let long: Vec<_> = many.iter().map(|d| SilentDriver { silent_ms: 1_836_000, ..*d }).collect();
        assert_eq!(verdict(&long, 100, LIMITS, &mut suspended).0.len(), 30, "silent for twice as long");
        assert!(verdict(&[], 100, LIMITS, &mut suspended).0.is_empty() && suspended.is_empty());
    }
}
