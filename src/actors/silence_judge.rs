//! `SilenceJudge`: takes drivers off duty who were silent for too long, and their unfetched orders with them.
//!
//! Silence is judged from PostgreSQL's `last_seen_at`, never from a missing Redis key, and only by a node that was awake and
//! saw PostgreSQL healthy all the while. A key that is there speaks for the driver: another node hears them, and cannot tell
//! PostgreSQL. Many who fall silent at once are an outage of ours: they are given twice the time.
//!
//! It takes no messages: its own timer begins what it does, one thing at a time, so that nothing piles up while it waits.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use actix::prelude::*;
use chrono::{DateTime, Utc};

use super::Node;
use crate::config::HeartbeatConfig;
use crate::dispatch::duty;
use crate::domain::ids::DriverId;
use crate::presence::OnlineValue;
use crate::store::StoreError;
use crate::store::drivers::{self, SilentDriver};

/// More than so many, and more than a tenth of the fleet, silent at once: an outage of ours.
const OUTAGE_DRIVERS: usize = 20;
/// Drivers who are taken off duty in one pass, at the most.
const PASS: usize = 1000;

/// The actor.
pub struct SilenceJudge {
    node: Node,
    /// Who fell silent together with many others: an outage of ours, until they were silent for twice as long.
    suspended: HashSet<DriverId>,
    wakefulness: Wakefulness,
}

impl SilenceJudge {
    /// Works for `node`.
    pub fn new(node: Node) -> Self {
        let wakefulness = Wakefulness::new(tick_every(&node.config().heartbeat) * 3);
        Self { node, suspended: HashSet::new(), wakefulness }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let node = self.node.clone();
        self.wakefulness.note(Utc::now());
        let awake_for = self.wakefulness.since.elapsed();
        let mut suspended = std::mem::take(&mut self.suspended);
        let judge = async move {
            if let Err(error) = judge(&node, awake_for, &mut suspended).await {
                tracing::debug!(error = %error, "silence was not judged");
            }
            suspended
        };
        ctx.wait(judge.into_actor(self).map(|suspended, this, _| {
            this.suspended = suspended;
            this.wakefulness.last = Utc::now();
        }));
    }
}

/// Between passes.
fn tick_every(heartbeat: &HeartbeatConfig) -> Duration {
    (heartbeat.offline_after / 10).clamp(Duration::from_millis(200), Duration::from_secs(10))
}

/// Since when this process has run without a break. One that was stopped, or whose machine was, has heard nobody meanwhile:
/// what they said still waits in its sockets.
#[derive(Debug)]
struct Wakefulness {
    since: Instant,
    last: DateTime<Utc>,
    /// Longer between two looks was a break.
    at_most: Duration,
}

impl Wakefulness {
    fn new(at_most: Duration) -> Self {
        Self { since: Instant::now(), last: Utc::now(), at_most }
    }

    /// By the wall clock, since the other one may stand still with the machine.
    fn note(&mut self, now: DateTime<Utc>) {
        if (now - self.last).to_std().is_ok_and(|gap| gap > self.at_most) {
            tracing::warn!(
                "this process stood still for a while; silence is not judged until everybody could speak up again"
            );
            self.since = Instant::now();
        }
        self.last = now;
    }
}

impl Actor for SilenceJudge {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(tick_every(&self.node.config().heartbeat), |this, ctx| this.tick(ctx));
    }
}

/// How long silence is borne.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Silent since the configured time, and the time that a word may take to reach PostgreSQL.
    noticed: Duration,
    /// Later by more than a heartbeat's interval: whoever fell silent at the same moment has been noticed by now.
    judged: Duration,
}

impl Patience {
    fn of(heartbeat: &HeartbeatConfig) -> Self {
        let noticed = heartbeat.offline_after + heartbeat.position_flush;
        Self { noticed, judged: noticed + heartbeat.interval + heartbeat.interval / 2 }
    }

    /// After an outage of ours everybody's last word is old. Drivers had as long as anybody has to speak up again, and what
    /// they said had time to reach PostgreSQL, before the first is judged.
    fn may_judge(&self, healthy_for: Duration) -> bool {
        healthy_for >= self.noticed
    }
}

/// Whether so many who fell silent together are an outage of ours.
fn is_outage(fell_silent: usize, on_duty: i64) -> bool {
    fell_silent > OUTAGE_DRIVERS && fell_silent as i64 * 10 > on_duty
}

/// Who is to be judged now, and whether this is an outage. `suspended` learns who fell silent in it, and forgets who spoke.
fn verdict(
    silent: &[SilentDriver],
    on_duty: i64,
    patience: Patience,
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
        let limit = if suspended.contains(&driver.id) { patience.judged * 2 } else { patience.judged };
        since(driver) >= limit
    };
    (silent.iter().filter(due).map(|d| d.id).collect(), outage)
}

async fn judge(node: &Node, awake_for: Duration, suspended: &mut HashSet<DriverId>) -> Result<(), StoreError> {
    let patience = Patience::of(&node.config().heartbeat);
    if !patience.may_judge(node.database().healthy_for().min(awake_for)) {
        return Ok(());
    }
    let noticed_s = patience.noticed.as_secs_f64();
    let (silent, on_duty) =
        node.database().transact(move |conn| Box::pin(async move { drivers::silent(conn, noticed_s).await })).await?;
    let silent = unheard(node, silent, patience.noticed).await;
    let (mut judged, outage) = verdict(&silent, on_duty, patience, suspended);
    metrics::gauge!("driver_tracker_silence_outage").set(if suspended.is_empty() { 0.0 } else { 1.0 });
    if outage {
        tracing::error!(
            drivers.silent = silent.len(),
            drivers.on_duty = on_duty,
            "many drivers fell silent at once: they are given twice the time"
        );
    }
    judged.truncate(PASS);
    for driver in judged {
        retire(node, driver, noticed_s).await;
    }
    Ok(())
}

/// Those of whom Redis has heard nothing lately either; while it does not answer, all. A key that somebody made to stay
/// speaks for its driver no longer than any other.
async fn unheard(node: &Node, silent: Vec<SilentDriver>, lately: Duration) -> Vec<SilentDriver> {
    if silent.is_empty() {
        return silent;
    }
    let ids: Vec<DriverId> = silent.iter().map(|driver| driver.id).collect();
    let online = match node.presence().online(&ids).await {
        Ok(online) => online,
        Err(error) => {
            tracing::debug!(error = %error, "Redis was not asked who is heard");
            return silent;
        }
    };
    let oldest = Utc::now() - lately;
    let is_silent = |online: Option<OnlineValue>| online.is_none_or(|value| value.received_at <= oldest);
    silent.into_iter().zip(online).filter(|(_, online)| is_silent(*online)).map(|(driver, _)| driver).collect()
}

async fn retire(node: &Node, driver: DriverId, silent_s: f64) {
    let done =
        node.perform(move |unit| Box::pin(async move { duty::retire_silent(unit, driver, silent_s).await })).await;
    match done {
        Ok(true) => tracing::info!(driver.id = %driver, "a driver was silent for too long and is off duty"),
        Ok(false) => {}
        Err(error) => tracing::warn!(driver.id = %driver, error = %error, "a silent driver was not taken off duty"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    const PATIENCE: Patience = Patience { noticed: Duration::from_secs(910), judged: Duration::from_secs(918) };

    fn silent(count: usize, seconds: i64) -> Vec<SilentDriver> {
        (0..count).map(|_| SilentDriver { id: DriverId::new(), silent_ms: seconds * 1000 }).collect()
    }

    #[test]
    fn a_node_that_was_away_judges_nobody_until_everybody_had_their_time() {
        assert!(!PATIENCE.may_judge(Duration::from_secs(1)));
        assert!(!PATIENCE.may_judge(Duration::from_secs(909)));
        assert!(PATIENCE.may_judge(Duration::from_secs(910)));
    }

    #[test]
    fn a_process_that_stood_still_begins_to_count_anew() {
        let mut wakefulness = Wakefulness::new(Duration::from_secs(30));
        let (began, now) = (wakefulness.since, wakefulness.last);
        wakefulness.note(now + TimeDelta::seconds(30));
        wakefulness.note(now + TimeDelta::seconds(60));
        wakefulness.note(now);
        assert_eq!(wakefulness.since, began, "a usual pause, and a clock that was put back");
        wakefulness.note(now + TimeDelta::seconds(31));
        assert!(wakefulness.since > began);
    }

    #[test]
    fn a_few_are_judged_and_not_before_their_time() {
        let mut suspended = HashSet::new();
        assert!(verdict(&silent(3, 915), 3, PATIENCE, &mut suspended).0.is_empty());
        assert_eq!(verdict(&silent(3, 918), 3, PATIENCE, &mut suspended).0.len(), 3);
        assert_eq!(verdict(&silent(21, 918), 1000, PATIENCE, &mut suspended).0.len(), 21, "a large fleet loses some");
    }

    #[test]
    fn many_at_once_are_an_outage_and_later_ones_are_judged_all_the_same() {
        let mut suspended = HashSet::new();
        let many = silent(30, 918);
        assert_eq!(verdict(&many, 100, PATIENCE, &mut suspended), (vec![], true));
        let mut later = many.clone();
        later.extend(silent(1, 918));
        let alone = later[30].id;
        assert_eq!(verdict(&later, 100, PATIENCE, &mut suspended), (vec![alone], false));
        let long: Vec<_> = many.iter().map(|d| SilentDriver { silent_ms: 1_836_000, ..*d }).collect();
        assert_eq!(verdict(&long, 100, PATIENCE, &mut suspended).0.len(), 30, "silent for twice as long");
        assert!(verdict(&[], 100, PATIENCE, &mut suspended).0.is_empty() && suspended.is_empty());
    }
}
