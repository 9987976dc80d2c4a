//! Benchmarks whose figures are ratios within one run: `cargo bench --bench ratios -- [NAME…] [--write FILE]`.
//!
//! Each benchmark starts its own PostgreSQL and Redis and measures the program of the same build. `--write` writes the table
//! and the machine into a page.
//!
//! A benchmark must not pass or fail. It only prints; tests decide.

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

/// `throughput` is the last, because it pins this process, and every process that it starts later, to one core.
const MEASUREMENTS: [Measurement; 6] = [
    ("heartbeats", heartbeats::measure),
    ("orders", orders::measure),
    ("nearest", nearest::measure),
    ("memory", memory::measure),
    ("nodes", nodes::measure),
    ("throughput", throughput::measure),
];

fn main() {
    // The HTTP client that posts orders needs a TLS provider, although it posts to loopback.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (names, page) = match arguments.iter().position(|argument| argument == "--write") {
        Some(at) => (&arguments[..at], arguments.get(at + 1)),
        None => (&arguments[..], None),
    };
    let known: Vec<&str> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        eprintln!("unknown benchmark {unknown}; the benchmarks are: {}", known.join(", "));
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

/// Runs `work` on one thread. The sockets of a fleet belong to that thread.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, work)
}

/// Returns a runtime for work that runs beside the measuring thread.
fn background() -> Runtime {
    driver_tracker::app::background_runtime().expect("a runtime")
}

/// Returns a random position in a city of 55 by 51 km.
fn city(random: &mut StdRng) -> (f64, f64) {
    (random.random_range(37.50..37.99), random.random_range(-122.60..-122.02))
}
