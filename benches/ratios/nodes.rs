//! Compares two nodes with one: measures the service's CPU time per heartbeat when a second node has as many drivers again.

use std::time::Duration;

use crate::block_on;
use crate::fleet::Fleet;
use crate::redis_alone::micros;
use crate::table::{Row, Target};
use crate::world::{Service, World};

/// Sockets of each node. A node has the same load whether there is another one or not.
const SOCKETS: usize = 4_000;
const RATE: f64 = 8_000.0;
const DURATION: Duration = Duration::from_secs(15);
const ROUNDS: usize = 3;

/// Returns the CPU time of all nodes per heartbeat, in microseconds.
fn cost(world: &World, nodes: usize) -> f64 {
    let services: Vec<Service> = (0..nodes).map(|_| world.serve(&[])).collect();
    let addresses: Vec<_> = services.iter().map(|service| service.address).collect();
    block_on(async {
        let (sockets, rate) = (SOCKETS * nodes, RATE * nodes as f64);
        let tokens = world.drivers(sockets, 1).await;
        let fleet = Fleet::connect(&addresses, &tokens).await;
        fleet.run(rate, Duration::from_secs(5)).await;
        let cpu = || services.iter().map(|service| micros(service.cpu())).sum::<f64>();
        let before = cpu();
        let report = fleet.run(rate, DURATION).await;
        (cpu() - before) / report.acked as f64
    })
}

pub fn measure() -> Vec<Row> {
    let world = World::start();
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (nodes, costs) in [1, 2].into_iter().zip(&mut costs) {
            costs.push(cost(&world, nodes));
        }
    }
    let [one, two] = costs.map(|mut costs| {
        costs.sort_by(f64::total_cmp);
        costs[ROUNDS / 2]
    });
    vec![Row {
        name: "nodes",
        what: "heartbeats a second and core, two nodes ÷ one".to_owned(),
        ratio: one / two,
        target: Some(Target::AtLeast(0.9, 1.0)),
        detail: format!(
            "{one:.1} and {two:.1} µs of service a heartbeat, {RATE} a second and node, medians of {ROUNDS} rounds each"
        ),
    }]
}
