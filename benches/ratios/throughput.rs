//! Finds the highest rate of heartbeats at p99 ≤ 100 ms, with one core for the service and another for Redis and the fleet.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::block_on;
use crate::fleet::{Fleet, Report};
use crate::redis_alone::micros;
use crate::table::{Row, Target};
use crate::world::{Service, World};

/// The number of sockets. It is high enough that no driver sends again before its last heartbeat is acknowledged.
const SOCKETS: usize = 5_000;
const LIMIT: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_secs(5);
const FIRST: f64 = 8_000.0;
const LAST: f64 = 400_000.0;
const ROUNDS: usize = 2;

/// The core of the service, and the core of everything else.
const CORES: (usize, usize) = (0, 1);

fn meets_limit(report: &Report) -> bool {
    report.failed == 0 && report.acked == report.sent && report.p99 <= LIMIT
}

/// The highest rate that met the limit.
#[derive(Clone, Copy)]
struct Best {
    rate: f64,
    /// The service's CPU time per heartbeat at that rate, in microseconds.
    cpu_us: f64,
}

impl Best {
    fn mean(rounds: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| rounds.iter().map(of).sum::<f64>() / rounds.len() as f64;
        Self { rate: mean(|one| one.rate), cpu_us: mean(|one| one.cpu_us) }
    }

    /// Returns the utilization of the service's core in percent.
    fn busy_percent(self) -> f64 {
        self.rate * self.cpu_us / 1e4
    }
}

/// Raises the rate by a fifth until it misses the limit, then by a tenth from the best rate on.
async fn highest_rate(fleet: &Fleet, service: &Service) -> Best {
    fleet.run(FIRST / 2.0, STEP).await;
    let mut best: Option<Best> = None;
    let (mut rate, mut growth): (f64, f64) = (FIRST, 1.2);
    while rate < LAST {
        let before = service.cpu();
        let report = fleet.run(rate, STEP).await;
        let cpu_us = micros(service.cpu() - before) / report.sent as f64;
        eprintln!(
            "{rate:.0}/s: p50 {:?} p99 {:?}, {} of {} acked, {} failed",
            report.p50, report.p99, report.acked, report.sent, report.failed
        );
        if meets_limit(&report) {
            best = Some(Best { rate, cpu_us });
            rate *= growth;
        } else if growth > 1.1 && best.is_some() {
            growth = 1.1;
            rate = best.map_or(rate, |best| best.rate * growth);
            // The queues must drain before the next attempt.
            tokio::time::sleep(Duration::from_secs(2)).await;
        } else {
            break;
        }
    }
    best.expect("the lowest rate meets the limit")
}

fn search(world: &World, service: &Service) -> Best {
    pin(service.pid(), CORES.0);
    block_on(async {
        let tokens = world.drivers(SOCKETS, 1).await;
        let fleet = Fleet::connect(&[service.address], &tokens).await;
        highest_rate(&fleet, service).await
    })
}

pub fn measure() -> Vec<Row> {
    let world = World::start();
    pin(std::process::id(), CORES.1);
    pin(world.redis_pid(), CORES.1);
    let (mut service_rounds, mut peer_rounds) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let service = world.serve(&[]);
        service_rounds.push(search(&world, &service));
        drop(service);
        peer_rounds.push(search(&world, &peer(&world)));
    }
    let (service, peer) = (Best::mean(&service_rounds), Best::mean(&peer_rounds));
    let rates = format!("{:.0} ÷ {:.0} a second", service.rate, peer.rate);
    let busy = format!("of their cores {:.0} and {:.0} % were busy", service.busy_percent(), peer.busy_percent());
    vec![
        Row {
            name: "throughput",
            what: "heartbeats a second at p99 ≤ 100 ms ÷ Node with ws and ioredis, batched by hand".to_owned(),
            ratio: service.rate / peer.rate,
            target: Some(Target::AtLeast(2.5, 3.5)),
            detail: format!("{rates}, one core for the service, {SOCKETS} sockets, means of {ROUNDS} rounds; {busy}"),
        },
        Row {
            name: "throughput",
            what: "heartbeats a CPU second at those rates ÷ Node".to_owned(),
            ratio: peer.cpu_us / service.cpu_us,
            target: None,
            detail: format!("{:.1} and {:.1} µs a heartbeat", service.cpu_us, peer.cpu_us),
        },
    ]
}

/// Starts the peer: a Node program with `ws` and `ioredis` that implements its own batching.
fn peer(world: &World) -> Service {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/node");
    if !dir.join("node_modules").exists() {
        let installed = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&dir).status();
        assert!(installed.is_ok_and(|status| status.success()), "Node and npm are needed for the peer");
    }
    let mut command = Command::new("node");
    command.arg("server.mjs").current_dir(&dir).env("REDIS_URL", world.redis.url());
    Service::start(command, |line| line.strip_prefix("listening on ")?.parse().ok())
}

/// Pins a process, and every process that it starts later, to one core (`taskset`).
fn pin(pid: u32, core: usize) {
    let done = Command::new("taskset").args(["-a", "-c", "-p", &core.to_string(), &pid.to_string()]).output();
    assert!(done.is_ok_and(|done| done.status.success()), "taskset (util-linux) is needed to pin processes to a core");
}
