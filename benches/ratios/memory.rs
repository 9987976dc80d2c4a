//! Measures the memory of a connected, idle driver.

use std::time::Duration;

use driver_tracker::dev::servers::usage::resident_bytes;

use crate::block_on;
use crate::fleet::Fleet;
use crate::table::{Row, Target};
use crate::world::World;

const SOCKETS: usize = 10_000;

pub fn measure() -> Vec<Row> {
    let world = World::start();
    let service = world.serve(&[]);
    let (before, after) = block_on(async {
        let tokens = world.drivers(SOCKETS, 1).await;
        let before = resident_bytes(service.pid()).expect("the service runs");
        let fleet = Fleet::connect(&[service.address], &tokens).await;
        // This sends one heartbeat of each driver. The sleep covers the first writes to PostgreSQL.
        fleet.run(2000.0, Duration::from_secs(5)).await;
        tokio::time::sleep(Duration::from_secs(25)).await;
        (before, resident_bytes(service.pid()).expect("the service runs"))
    });
    let kb = (after - before) as f64 / SOCKETS as f64 / 1000.0;
    vec![Row {
        name: "memory",
        what: format!("KB of memory a connected idle driver, {SOCKETS} connected"),
        ratio: kb,
        target: Some(Target::AtMost(20.0, 14.0)),
        detail: format!("whole service {:.0} MB with them, {:.0} MB before", after as f64 / 1e6, before as f64 / 1e6),
    }]
}
