//! Measures the CPU time of a heartbeat at 10,000 sockets, with flushes to PostgreSQL as configured.

use std::time::Duration;

use driver_tracker::dev::servers::usage;

use crate::block_on;
use crate::fleet::{Fleet, Report};
use crate::redis_alone::{self, Form, micros};
use crate::table::{Row, Target};
use crate::world::{Service, World};

const SOCKETS: usize = 10_000;
/// Heartbeats per second of each socket. The targets apply to the first rate: a burst of ten times the default.
const RATES: [f64; 3] = [2.0, 1.0, 0.2];
/// The duration of a run. It covers several flushes of each socket to PostgreSQL (`POSITION_FLUSH_MS` is 10 s).
const DURATION: Duration = Duration::from_secs(30);

/// The interval between two writes of the service to Redis at these rates.
const BATCH_EVERY: Duration = Duration::from_millis(5);

/// The CPU time of each part, in microseconds.
#[derive(Clone, Copy)]
struct Cpu {
    service: f64,
    redis: f64,
    postgres: f64,
}

impl Cpu {
    fn now(world: &World, service: &Service) -> Self {
        Self {
            service: micros(service.cpu()),
            redis: micros(usage::cpu(world.redis_pid()).unwrap_or_default()),
            postgres: micros(usage::cpu_of_tree(world.postgres_pid()).unwrap_or_default()),
        }
    }

    /// Returns the CPU time per heartbeat since `before`.
    fn per_heartbeat(self, before: Self, heartbeats: u64) -> Self {
        let each = |now: f64, before: f64| (now - before) / heartbeats as f64;
        Self {
            service: each(self.service, before.service),
            redis: each(self.redis, before.redis),
            postgres: each(self.postgres, before.postgres),
        }
    }

    fn sum(self) -> f64 {
        self.service + self.redis + self.postgres
    }
}

pub fn measure() -> Vec<Row> {
    let world = World::start();
    let service = world.serve(&[]);
    let runs: Vec<(f64, Cpu, Report)> = block_on(async {
        let tokens = world.drivers(SOCKETS, 1).await;
        let fleet = Fleet::connect(&[service.address], &tokens).await;
        let mut runs = Vec::new();
        for rate in RATES {
            fleet.run(rate * SOCKETS as f64, Duration::from_secs(12)).await;
            let before = Cpu::now(&world, &service);
            let report = fleet.run(rate * SOCKETS as f64, DURATION).await;
            runs.push((rate, Cpu::now(&world, &service).per_heartbeat(before, report.sent), report));
        }
        runs
    });
    drop(service);
    let redis_alone = redis_alone::set_and_geoadd(&world);
    let rows = runs.into_iter().flat_map(|(rate, cpu, report)| {
        let batch = (rate * SOCKETS as f64 * BATCH_EVERY.as_secs_f64()).round() as usize;
        let alike = |form| block_on(redis_alone::in_batches(&world, form, batch, BATCH_EVERY));
        let redis =
            Reference { alone: redis_alone, batch, commands: alike(Form::Commands), script: alike(Form::Script) };
        rows_of(rate, cpu, &report, &redis)
    });
    rows.collect()
}

/// The CPU time of Redis for one heartbeat without the service, in microseconds.
struct Reference {
    /// At full speed.
    alone: f64,
    /// The number of heartbeats in a pipeline, as in the service.
    batch: usize,
    commands: f64,
    script: f64,
}

fn rows_of(rate: f64, cpu: Cpu, report: &Report, redis: &Reference) -> [Row; 3] {
    let is_burst = rate == RATES[0];
    let Reference { alone, batch, commands, script } = redis;
    let whole = format!(
        "service {:.1} + Redis {:.1} + PostgreSQL {:.1} µs; redis-benchmark SET + GEOADD {alone:.2} µs; p50 {:.1} ms, \
         p99 {:.1} ms, {} of {} acknowledged, {} failed",
        cpu.service,
        cpu.redis,
        cpu.postgres,
        report.p50.as_secs_f64() * 1e3,
        report.p99.as_secs_f64() * 1e3,
        report.acked,
        report.sent,
        report.failed
    );
    let row = |what: &str, ratio: f64, target: Option<Target>, detail: String| Row {
        name: "heartbeats",
        what: format!("{what}, {rate} a second each"),
        ratio,
        target: target.filter(|_| is_burst),
        detail,
    };
    let pipelines = format!("{batch} in a pipeline every 5 ms");
    [
        row(
            &format!("CPU a heartbeat ÷ Redis' own, {SOCKETS} sockets"),
            cpu.sum() / alone,
            Some(Target::AtMost(7.0, 5.0)),
            whole,
        ),
        row(
            "CPU a heartbeat ÷ Redis' own in pipelines as the service's",
            cpu.sum() / commands,
            None,
            format!("SET + GEOADD {commands:.2} µs, {pipelines}"),
        ),
        row(
            "Redis' CPU a heartbeat ÷ one EVALSHA a heartbeat in such pipelines",
            cpu.redis / script,
            Some(Target::AtMost(0.5, 0.4)),
            format!("{:.2} ÷ {script:.2} µs, {pipelines}", cpu.redis),
        ),
    ]
}
