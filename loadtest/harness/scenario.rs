//! The scenarios: how big each is, under which settings the nodes run, and what is done to them meanwhile.

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

/// How long after its return Redis may be without belief, and a fleet on its way.
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);
/// The grace of a node that has to send this fleet away, for each driver; the closes are spread over its first half. A node
/// opens some hundreds of sessions a second on a small machine, k6 beside it.
const GRACE_MS_A_DRIVER: usize = 12;
const LEAST_GRACE_MS: usize = 20_000;
/// So many looks, half a second apart, have to find the whole fleet.
const STABLE_LOOKS: usize = 6;

/// What is broken while k6 runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The node gets SIGKILL and is started anew at once: every socket is cut.
    KillNode,
    /// Redis goes away, and comes back empty.
    StopRedis,
    /// One node after the other gets SIGTERM, ends, and is started anew.
    RollingRestart,
}

/// A scenario of the load tests.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// What it is about, for the report.
    pub about: &'static str,
    pub drivers: usize,
    pub seconds: u64,
    pub order_rate: f64,
    pub nodes: usize,
    pub fault: Fault,
    /// Whether every order is delivered at the end.
    pub all_delivered: bool,
    /// Whether memory must have stopped growing.
    pub watch_memory: bool,
    /// Settings of the nodes, above those of all scenarios.
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

/// All scenarios. `make load` runs those before `soak`, `make soak` the others.
pub const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "heartbeat-burst",
        about: "The fleet comes up one by one, then sends ten times as many heartbeats, twice.",
        ..PLAIN
    },
    Scenario {
        name: "reconnect-storm",
        about: "Every app loses its connection at one moment and comes back by the rules; later the node is killed.",
        seconds: 90,
        fault: Fault::KillNode,
        ..PLAIN
    },
    Scenario {
        name: "order-rush",
        about: "Signed orders in a steady stream while the drivers move, take assignments and report every stage.",
        drivers: 500,
        order_rate: 40.0,
        all_delivered: true,
        ..PLAIN
    },
    Scenario {
        name: "redis-outage",
        about: "Redis is killed under heartbeats and orders, and comes back empty.",
        drivers: 500,
        seconds: 90,
        order_rate: 15.0,
        fault: Fault::StopRedis,
        all_delivered: true,
        ..PLAIN
    },
    Scenario {
        name: "soak",
        about: "A steady mix of heartbeats, orders and lost connections, for long; memory must stop growing.",
        drivers: 2000,
        seconds: 1200,
        order_rate: 15.0,
        watch_memory: true,
        ..PLAIN
    },
    Scenario {
        name: "rolling-restart",
        about: "Two nodes; the fleet moves from the one that gets SIGTERM to the other, and back when that one gets it.",
        drivers: 10_000,
        seconds: 360,
        order_rate: 10.0,
        nodes: 2,
        fault: Fault::RollingRestart,
        // A driver who is silent for this long goes off duty: within reach of a restart that goes wrong.
        settings: &[("HEARTBEAT_TTL_MS", "15000"), ("OFFLINE_AFTER_MS", "20000")],
        ..PLAIN
    },
];

impl Scenario {
    /// The settings of its nodes: one address plays the whole fleet, so what is counted by address or shop is not limited.
    pub fn settings(&self) -> BTreeMap<&'static str, String> {
        let unlimited = ["CONNECTIONS_PER_ADDRESS", "AUTH_FAILURES_PER_MINUTE", "ORDERS_PER_SECOND"];
        let mut settings: BTreeMap<_, _> = unlimited.into_iter().map(|name| (name, "0".to_owned())).collect();
        settings.insert("SHUTDOWN_DELAY_MS", "2000".to_owned());
        settings.insert("SHUTDOWN_GRACE_MS", self.grace_ms().to_string());
        settings.extend(self.settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        settings
    }

    /// How long a node has to send its sockets away.
    fn grace_ms(&self) -> usize {
        if self.fault == Fault::RollingRestart {
            LEAST_GRACE_MS.max(self.drivers * GRACE_MS_A_DRIVER)
        } else {
            LEAST_GRACE_MS
        }
    }
}

/// What happened when, for the plots.
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

/// Breaks what the scenario breaks, and says what came of it.
pub async fn break_things(scenario: &Scenario, world: &mut World, timeline: &Timeline) -> Result<Vec<Check>> {
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
            Ok(vec![back("the fleet is back on the killed node", took)])
        }
        Fault::StopRedis => {
            sleep(part(0.3)).await;
            let servers = world.servers.clone();
            let away = part(0.25);
            timeline.mark("Redis killed");
            let (stopped, started) = (servers.clone(), servers.clone());
            tokio::task::spawn_blocking(move || stopped.redis.kill()).await?;
            world.watched.set(Group::Redis, "redis", None);
            sleep(away).await;
            tokio::task::spawn_blocking(move || started.redis.start_again()).await??;
            world.watched.set(Group::Redis, "redis", servers.redis.pid());
            timeline.mark("Redis is back");
            let took = until(|| async { world.nodes[0].health().await.as_deref() == Some("ok") }).await;
            if took.is_some() {
                timeline.mark("Redis is believed");
            }
            Ok(vec![back("Redis is believed again after its return", took)])
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

/// Sends a node away that holds the whole fleet, and starts it anew when it has ended.
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
    timeline.mark(&format!("{label} has ended"));
    let ended = verdict(
        &format!("node {label} ends by itself with 0"),
        status.code() == Some(0),
        format!("{status} after {:.1} s", began.elapsed().as_secs_f64()),
    );
    // Started anew only then: who is still on the way would come back to it.
    let took = fleet_is_on(world, to, drivers).await;
    if took.is_some() {
        timeline.mark("all on the other");
    }
    world.nodes[from].start(&watched).await?;
    timeline.mark(&format!("{label} is ready again"));
    Ok(vec![ended, back(&format!("the whole fleet of node {label} is on the other node after that"), took)])
}

/// How long it takes until every driver has a socket on this node, and keeps it: a socket is counted before it is welcome.
async fn fleet_is_on(world: &World, index: usize, drivers: usize) -> Option<Duration> {
    let all = || async { world.nodes[index].sessions().await == Some(drivers) };
    until(|| async {
        for _ in 0..STABLE_LOOKS {
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

fn back(what: &str, took: Option<Duration>) -> Check {
    let found = match took {
        Some(took) => format!("{:.1} s", took.as_secs_f64()),
        None => format!("not within {} s", RECOVERY_LIMIT.as_secs()),
    };
    verdict(what, took.is_some(), found)
}
