//! Benchmarks whose figures are ratios within one run: `cargo bench --bench ratios -- [NAME…] [--write FILE]`.
//!
//! Each starts PostgreSQL and Redis of its own and measures the program that was built beside it. `--write` puts the table
//! and where it was measured into a page. Nothing here decides: a benchmark prints, tests decide.

mod fleet;
mod heartbeats;
mod memory;
mod nearest;
mod nodes;
mod orders;
mod redis_alone;
mod table;
mod throughput;
mod world;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use table::{Page, Row};

/// A measurement, by the name that selects it.
type Measurement = (&'static str, fn() -> Vec<Row>);

/// `throughput` keeps this process to one core, and so whatever it starts later: it is the last.
const MEASUREMENTS: [Measurement; 6] = [
    ("heartbeats", heartbeats::measure),
    ("orders", orders::measure),
    ("nearest", nearest::measure),
    ("memory", memory::measure),
    ("nodes", nodes::measure),
    ("throughput", throughput::measure),
];

fn main() {
    // The orders are posted by a client that wants one, although it posts to loopback.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (names, page) = match arguments.iter().position(|argument| argument == "--write") {
        Some(at) => (&arguments[..at], arguments.get(at + 1)),
        None => (&arguments[..], None),
    };
    let known: Vec<&str> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        eprintln!("no benchmark is called {unknown}; there are: {}", known.join(", "));
        std::process::exit(2);
    }
    let mut table = Page::default();
    for (name, measure) in MEASUREMENTS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            eprintln!("── {name}");
            table.extend(measure());
        }
    }
    print!("{}", table.table());
    if let Some(path) = page {
        table.write(path.as_ref());
    }
}

/// Runs `work` on one thread; the sockets of a fleet live there.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, work)
}

/// A runtime for what is not measured by the thread.
fn background() -> Runtime {
    driver_tracker::app::background_runtime().expect("a runtime")
}

/// A place in a city of 55 by 51 km.
fn city(random: &mut StdRng) -> (f64, f64) {
    (random.random_range(37.50..37.99), random.random_range(-122.60..-122.02))
}
