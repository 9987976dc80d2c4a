//! The most heartbeats a second at p99 ≤ 100 ms: one core for the service, the other for Redis and the fleet.

use std::net::SocketAddr;
use std::time::Duration;

use crate::fleet::{Fleet, Report};
use crate::table::{Row, Target};
use crate::world::World;
use crate::{block_on, peers, process};

/// So many that no driver sends twice before the first heartbeat is acknowledged.
const SOCKETS: usize = 5_000;
const LIMIT: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_secs(5);
const FIRST: f64 = 8_000.0;
const LAST: f64 = 400_000.0;
const ROUNDS: usize = 2;

/// The core of the service, and that of everything else.
const CORES: (usize, usize) = (0, 1);

fn holds(report: &Report) -> bool {
    report.failed == 0 && report.acked == report.sent && report.p99 <= LIMIT
}

/// Grows the rate by a fifth until it no longer holds, then by a tenth from the best one on.
async fn most(fleet: &Fleet) -> (f64, Report) {
    fleet.run(FIRST / 2.0, STEP).await;
    let mut best = None;
    let (mut rate, mut growth) = (FIRST, 1.2);
    while rate < LAST {
        let report = fleet.run(rate, STEP).await;
        eprintln!(
            "{rate:.0}/s: p50 {:?} p99 {:?}, {} of {} acked, {} failed",
            report.p50, report.p99, report.acked, report.sent, report.failed
        );
        if holds(&report) {
            best = Some((rate, report));
            rate *= growth;
        } else if growth > 1.1 && best.is_some() {
            growth = 1.1;
            rate = best.as_ref().map_or(rate, |(best, _)| best * growth);
            // What has queued up must not weigh on the next try.
            tokio::time::sleep(Duration::from_secs(2)).await;
        } else {
            break;
        }
    }
    best.expect("the lowest rate to hold")
}

fn search(world: &World, pid: u32, address: SocketAddr) -> (f64, Report) {
    process::pin(pid, CORES.0);
    block_on(async {
        let tokens = world.drivers(SOCKETS, 1).await;
        let fleet = Fleet::connect(&[address], &tokens).await;
        most(&fleet).await
    })
}

pub fn measure() -> Vec<Row> {
    let world = World::start();
    process::pin(std::process::id(), CORES.1);
    process::pin(world.redis_pid(), CORES.1);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let service = world.serve(&[]);
        ours.push(search(&world, service.pid(), service.address));
        drop(service);
        let peer = peers::node(&world);
        theirs.push(search(&world, peer.pid(), peer.address));
    }
    let mean = |runs: &[(f64, Report)]| runs.iter().map(|(rate, _)| rate).sum::<f64>() / runs.len() as f64;
    let (our_rate, their_rate) = (mean(&ours), mean(&theirs));
    vec![Row {
        name: "throughput",
        what: "heartbeats a second at p99 ≤ 100 ms ÷ Node with ws and ioredis, batched by hand".to_owned(),
        ratio: our_rate / their_rate,
        target: Some(Target::AtLeast(2.5, 3.5)),
        detail: format!(
            "{our_rate:.0} ÷ {their_rate:.0} a second, one core for the service, {SOCKETS} sockets, means of {ROUNDS} rounds"
        ),
    }]
}
