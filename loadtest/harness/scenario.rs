//! The scenarios: the size of each, the settings of its nodes, and the fault that it injects.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::checks::{Check, verdict};
use crate::failure::Result;
use crate::now_ms;
use crate::plot::Mark;
use crate::processes::Group;
use crate::world::World;

/// The time limit until Redis is trusted again after its restart, and until a fleet has moved to another node.
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);
/// The shutdown grace of a node for each of its drivers. The node spreads the closes over the first half of the grace. On a
/// small machine that also runs k6, a node opens some hundreds of sessions per second.
const GRACE_MS_PER_DRIVER: usize = 12;
const MIN_GRACE_MS: usize = 20_000;
/// How many consecutive checks, half a second apart, must find the whole fleet.
const STABLE_CHECKS: usize = 6;

/// The fault that is injected while k6 runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The node gets SIGKILL, which cuts every socket, and restarts at once.
    KillNode,
    /// Redis is killed and later restarted empty.
    StopRedis,
    /// One node after the other gets SIGTERM, ends, and restarts.
    RollingRestart,
}

/// A scenario of the load tests.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// The description for the report.
    pub about: &'static str,
    pub drivers: usize,
    pub seconds: u64,
    pub order_rate: f64,
    pub nodes: usize,
    pub fault: Fault,
    /// Whether every order must be delivered at the end.
    pub all_delivered: bool,
    /// Whether memory must have stopped growing.
    pub watch_memory: bool,
    /// Settings of the nodes that override those of all scenarios.
    pub settings: &'static [(&'static str, &'static str)],
}

const PLAIN: Scenario = Scenario {
    name: "",
    about: "",
    drivers: 2000,
    seconds: 60,
    order_rate: 0.0,
    nodes: 1,
    fault: Fault::None,
    all_delivered: false,
    watch_memory: false,
    settings: &[],
};

/// All scenarios. `make load` runs the ones before `soak`, and `make soak` the others.
pub const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "heartbeat-burst",
        about: "The drivers connect one by one. Then the fleet sends ten times as many heartbeats, twice.",
        ..PLAIN
    },
    Scenario {
        name: "reconnect-storm",
        about: "Every app loses its connection at one moment and reconnects by the protocol. Later the node is killed.",
        seconds: 90,
        fault: Fault::KillNode,
        ..PLAIN
    },
    Scenario {
        name: "order-rush",
        about: "Signed orders arrive in a steady stream while the drivers move, accept assignments and report every stage.",
        drivers: 500,
        order_rate: 40.0,
        all_delivered: true,
        ..PLAIN
    },
    Scenario {
        name: "redis-outage",
        about: "Redis is killed under heartbeats and orders, and restarts empty.",
        drivers: 500,
        seconds: 90,
        order_rate: 15.0,
        fault: Fault::StopRedis,
        all_delivered: true,
        ..PLAIN
    },
    Scenario {
        name: "soak",
        about: "A steady mix of heartbeats, orders and lost connections for a long time. Memory must stop growing.",
        drivers: 2000,
        seconds: 1200,
        order_rate: 15.0,
        watch_memory: true,
        ..PLAIN
    },
    Scenario {
        name: "rolling-restart",
        about: "Two nodes. The fleet moves from the node that gets SIGTERM to the other one, and later back.",
        drivers: 10_000,
        seconds: 360,
        order_rate: 10.0,
        nodes: 2,
        fault: Fault::RollingRestart,
        // A driver who is silent for `OFFLINE_AFTER_MS` is taken off duty. The short limit reveals a failed restart.
        settings: &[("HEARTBEAT_TTL_MS", "15000"), ("OFFLINE_AFTER_MS", "20000")],
        ..PLAIN
    },
];

impl Scenario {
    /// Returns the settings of the nodes. The whole fleet connects from one address, so the limits per address and per shop are
    /// off.
    pub fn settings(&self) -> BTreeMap<&'static str, String> {
        let unlimited = ["CONNECTIONS_PER_ADDRESS", "AUTH_FAILURES_PER_MINUTE", "ORDERS_PER_SECOND"];
        let mut settings: BTreeMap<_, _> = unlimited.into_iter().map(|name| (name, "0".to_owned())).collect();
        settings.insert("SHUTDOWN_DELAY_MS", "2000".to_owned());
        settings.insert("SHUTDOWN_GRACE_MS", self.grace_ms().to_string());
        settings.extend(self.settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        settings
    }

    /// Returns the time that a node has to close its sockets during a shutdown.
    fn grace_ms(&self) -> usize {
        if self.fault == Fault::RollingRestart {
            MIN_GRACE_MS.max(self.drivers * GRACE_MS_PER_DRIVER)
        } else {
            MIN_GRACE_MS
        }
    }
}

/// The marked moments, for the plots.
#[derive(Clone, Default)]
pub struct Timeline(Arc<Mutex<Vec<Mark>>>);

impl Timeline {
    pub fn mark(&self, what: &str) {
        println!("    {what}");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((now_ms() as f64 / 1000.0, what.to_owned()));
    }

    pub fn marks(&self) -> Vec<Mark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Injects the fault of the scenario. Returns the checks of the recovery.
pub async fn inject_fault(scenario: &Scenario, world: &mut World, timeline: &Timeline) -> Result<Vec<Check>> {
    let part = |share: f64| Duration::from_secs_f64(scenario.seconds as f64 * share);
    match scenario.fault {
        Fault::None => Ok(Vec::new()),
        Fault::KillNode => {
            sleep(part(0.6)).await;
            let watched = world.watched.clone();
            world.nodes[0].kill(&watched).await?;
            timeline.mark("node killed");
            world.nodes[0].start(&watched).await?;
            timeline.mark("node is ready");
            let took = fleet_is_on(world, 0, scenario.drivers).await;
            Ok(vec![recovered("the fleet reconnects to the killed node", took)])
        }
        Fault::StopRedis => {
            sleep(part(0.3)).await;
            let servers = world.servers.clone();
            let outage = part(0.25);
            timeline.mark("Redis killed");
            let (stopped, started) = (servers.clone(), servers.clone());
            tokio::task::spawn_blocking(move || stopped.redis.kill()).await?;
            world.watched.set(Group::Redis, "redis", None);
            sleep(outage).await;
            tokio::task::spawn_blocking(move || started.redis.start_again()).await??;
            world.watched.set(Group::Redis, "redis", servers.redis.pid());
            timeline.mark("Redis restarted");
            let took = until(|| async { world.nodes[0].health().await.as_deref() == Some("ok") }).await;
            if took.is_some() {
                timeline.mark("Redis is trusted");
            }
            Ok(vec![recovered("Redis is trusted again after its restart", took)])
        }
        Fault::RollingRestart => {
            sleep(part(0.1)).await;
            let mut checks = Vec::new();
            for (from, to) in [(0, 1), (1, 0)] {
                checks.extend(restart(world, timeline, scenario.drivers, from, to).await?);
                if checks.iter().any(|check: &Check| !check.held) {
                    break;
                }
                sleep(part(0.05)).await;
            }
            Ok(checks)
        }
    }
}

/// Terminates a node that holds the whole fleet, and restarts it when it has ended.
async fn restart(world: &mut World, timeline: &Timeline, drivers: usize, from: usize, to: usize) -> Result<Vec<Check>> {
    let watched = world.watched.clone();
    let label = world.nodes[from].label.to_uppercase();
    let Some(_) = fleet_is_on(world, from, drivers).await else {
        let on = world.nodes[from].sessions().await.unwrap_or_default();
        return Ok(vec![verdict(&format!("the whole fleet is on node {label}"), false, format!("{on} drivers are"))]);
    };
    timeline.mark(&format!("SIGTERM to {label}"));
    let began = Instant::now();
    let status = world.nodes[from].terminate(&watched).await?;
    timeline.mark(&format!("{label} ended"));
    let ended = verdict(
        &format!("node {label} ends by itself with 0"),
        status.code() == Some(0),
        format!("{status} after {:.1} s", began.elapsed().as_secs_f64()),
    );
    // The node restarts only after the whole fleet has moved. Drivers that are still reconnecting would return to it.
    let took = fleet_is_on(world, to, drivers).await;
    if took.is_some() {
        timeline.mark("fleet on the other node");
    }
    world.nodes[from].start(&watched).await?;
    timeline.mark(&format!("{label} is ready again"));
    Ok(vec![ended, recovered(&format!("the whole fleet of node {label} moves to the other node"), took)])
}

/// Waits until every driver has a stable socket on this node. Returns how long it took. One count is not enough, because a
/// socket counts before its session is accepted.
async fn fleet_is_on(world: &World, index: usize, drivers: usize) -> Option<Duration> {
    let all = || async { world.nodes[index].sessions().await == Some(drivers) };
    until(|| async {
        for _ in 0..STABLE_CHECKS {
            if !all().await {
                return false;
            }
            sleep(Duration::from_millis(500)).await;
        }
        true
    })
    .await
}

async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < RECOVERY_LIMIT {
        if condition().await {
            return Some(began.elapsed());
        }
        sleep(Duration::from_millis(200)).await;
    }
    None
}

fn recovered(what: &str, took: Option<Duration>) -> Check {
    let found = match took {
        Some(took) => format!("{:.1} s", took.as_secs_f64()),
        None => format!("not within {} s", RECOVERY_LIMIT.as_secs()),
    };
    verdict(what, took.is_some(), found)
}
