//! `SilenceJudge`: takes drivers off duty who were silent for too long, and their unfetched orders with them.
//!
//! Silence is judged from PostgreSQL's `last_seen_at`, never from a missing Redis key, and only by a node that saw
//! PostgreSQL healthy all the while. When many fall silent at once it is our outage: nobody is judged.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Tick` | its own interval | none | the next interval |

use std::time::Duration;

use actix::prelude::*;

use super::Node;
use crate::dispatch::duty;
use crate::domain::ids::DriverId;
use crate::store::{StoreError, drivers};

/// More than so many, and more than a tenth of the fleet, silent at once: an outage of ours.
const OUTAGE_DRIVERS: usize = 20;
/// Drivers read in one pass.
const PAGE: i64 = 1000;

#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

/// The actor.
pub struct SilenceJudge {
    node: Node,
}

impl SilenceJudge {
    /// Works for `node`.
    pub fn new(node: Node) -> Self {
        Self { node }
    }
}

impl Actor for SilenceJudge {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1);
        let offline_after = self.node.config().heartbeat.offline_after;
        let every = (offline_after / 10).clamp(Duration::from_millis(200), Duration::from_secs(10));
        ctx.run_interval(every, |_, ctx| drop(ctx.address().try_send(Tick)));
    }
}

impl Handler<Tick> for SilenceJudge {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Tick, _: &mut Self::Context) -> Self::Result {
        let node = self.node.clone();
        let judge = async move {
            if let Err(error) = judge(&node).await {
                tracing::debug!(error = %error, "silence was not judged");
            }
        };
        AtomicResponse::new(Box::pin(judge.into_actor(self)))
    }
}

/// After an outage of ours everybody's last word is old. Drivers had as long as anybody has to speak up again, and what
/// they said had time to reach PostgreSQL, before the first is judged.
fn may_judge(healthy_for: Duration, offline_after: Duration, position_flush: Duration) -> bool {
    healthy_for >= offline_after + position_flush
}

/// Whether so many silent drivers are the fleet's own doing.
fn is_outage(silent: usize, on_duty: i64) -> bool {
    silent > OUTAGE_DRIVERS && silent as i64 * 10 > on_duty
}

async fn judge(node: &Node) -> Result<(), StoreError> {
    let heartbeat = &node.config().heartbeat;
    if !may_judge(node.database().healthy_for(), heartbeat.offline_after, heartbeat.position_flush) {
        return Ok(());
    }
    // Positions reach PostgreSQL with a delay: whoever spoke within it is not silent.
    let silent_s = (heartbeat.offline_after + heartbeat.position_flush).as_secs_f64();
    let (silent, on_duty) = node
        .database()
        .transact(move |conn| Box::pin(async move { drivers::silent(conn, silent_s, PAGE).await }))
        .await?;
    let outage = is_outage(silent.len(), on_duty);
    metrics::gauge!("driver_tracker_silence_outage").set(if outage { 1.0 } else { 0.0 });
    if outage {
        tracing::error!(
            drivers.silent = silent.len(),
            drivers.on_duty = on_duty,
            "many drivers fell silent at once: judging none"
        );
        return Ok(());
    }
    for driver in silent {
        retire(node, driver, silent_s).await;
    }
    Ok(())
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

    #[test]
    fn a_node_that_was_away_judges_nobody_until_everybody_had_their_time() {
        let (offline_after, flush) = (Duration::from_secs(900), Duration::from_secs(10));
        assert!(!may_judge(Duration::from_secs(1), offline_after, flush));
        assert!(!may_judge(Duration::from_secs(905), offline_after, flush));
        assert!(may_judge(Duration::from_secs(910), offline_after, flush));
    }

    #[test]
    fn many_at_once_is_an_outage_a_few_are_not() {
        assert!(!is_outage(20, 20));
        assert!(is_outage(21, 100));
        assert!(!is_outage(21, 1000));
    }
}
