//! The harness of the load tests. It starts private servers, a receiving shop and the program, runs k6 as the fleet and the
//! shops, injects the fault of the scenario, checks afterwards that nothing was lost, and writes a report.
//!
//! `make load`, `make load-quick` and `make soak` call it. docs/loadtest.md explains it.
//!
//! It is written in Rust for two reasons: it needs no tool beyond those of the project, and it starts the servers by the same
//! code as `dev` and the tests.
//!
//! Invariant: no server outlives this process, however it ends.

mod checks;
mod failure;
mod k6;
mod plot;
mod processes;
mod report;
mod scenario;
mod series;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use driver_tracker::dev::fleet;
use driver_tracker::store::Database;
use tokio::signal::unix::{SignalKind, signal};

use checks::{Check, verdict};
use failure::{Failure, Result, bail};
use processes::{Group, Sample, Sampler, Watched};
use report::ScenarioResult;
use scenario::{SCENARIOS, Scenario, Timeline, inject_fault};
use series::Series;
use world::{Launch, Servers, World};

/// The folder for data and logs, and the folder for reports.
const DATA: &str = ".load";
const REPORTS: &str = "loadtest/reports";
/// The open files that a process needs besides sockets.
const OTHER_FILES: u64 = 500;
/// The time that k6 may need beyond the scenario: for its start, the last answers and its summary.
const K6_EXTRA: Duration = Duration::from_secs(120);
/// Drivers and seconds of the quick form, which only shows that everything works together.
const QUICK: (usize, u64) = (100, 10);
/// The limit for the growth of memory between the second quarter of a run and the last, as a factor plus MiB.
const MEMORY_GROWTH: f64 = 1.15;
const MEMORY_GROWTH_MIB: f64 = 16.0;

/// Returns the milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn command() -> Command {
    let flag = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let names = SCENARIOS.iter().map(|scenario| scenario.name);
    Command::new("loadtest")
        .about("Runs k6 load tests against the program, on private servers")
        .arg(Arg::new("scenario").num_args(1..).required(true).value_parser(names.collect::<Vec<_>>()))
        .arg(
            flag("drivers", "N", "Number of drivers, instead of the number of each scenario")
                .value_parser(value_parser!(u64).range(1..=50_000)),
        )
        .arg(
            flag("seconds", "N", "Seconds that each scenario runs").value_parser(value_parser!(u64).range(10..=86_400)),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Run ten seconds with few drivers and very generous time thresholds"),
        )
}

#[tokio::main]
async fn main() -> ExitCode {
    let matches = command().get_matches();
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::select! {
        done = run(&matches) => match done {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(failure) => {
                eprintln!("loadtest: {failure}");
                ExitCode::FAILURE
            }
        },
        // Every process and server stops when its handle is dropped.
        () = interrupted() => {
            eprintln!("interrupted; stopping all servers and processes");
            ExitCode::from(130)
        }
    }
}

async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Runs the named scenarios. Returns whether all of them passed.
async fn run(matches: &ArgMatches) -> Result<bool> {
    let k6 = k6::find()?;
    let launch = Launch { program: program()?, dir: std::path::absolute(DATA)? };
    let chosen: Vec<Scenario> = matches
        .get_many::<String>("scenario")
        .into_iter()
        .flatten()
        .filter_map(|name| SCENARIOS.iter().find(|scenario| scenario.name == name))
        .map(|scenario| sized(scenario.clone(), matches))
        .collect();
    require_files(chosen.iter().map(|scenario| scenario.drivers).max().unwrap_or_default())?;
    println!("starting private servers in {} …", launch.dir.display());
    let watched = Watched::default();
    let (dir, seen) = (launch.dir.clone(), watched.clone());
    let servers = Arc::new(tokio::task::spawn_blocking(move || Servers::start(&dir, &seen)).await??);
    let mut results = Vec::new();
    for scenario in chosen {
        println!("\n{}: {} drivers, {} s", scenario.name, scenario.drivers, scenario.seconds);
        let one = run_scenario(scenario, &launch, &k6, servers.clone(), &watched, matches.get_flag("quick")).await?;
        print!("{}", one.summary());
        println!("    {}", if one.passed() { "passed" } else { "FAILED" });
        results.push(one);
    }
    let written = report::write(REPORTS.as_ref(), &about_run(), &results)?;
    println!("\nreport: {}", written.display());
    Ok(results.iter().all(ScenarioResult::passed))
}

/// Returns the scenario with the requested number of drivers and seconds.
fn sized(mut scenario: Scenario, matches: &ArgMatches) -> Scenario {
    let own = scenario.drivers;
    if matches.get_flag("quick") {
        (scenario.drivers, scenario.seconds) = QUICK;
    }
    if let Some(drivers) = matches.get_one::<u64>("drivers") {
        scenario.drivers = *drivers as usize;
    }
    if let Some(seconds) = matches.get_one::<u64>("seconds") {
        scenario.seconds = *seconds;
    }
    // The rate of orders shrinks with the number of drivers.
    scenario.order_rate *= (scenario.drivers as f64 / own as f64).min(1.0);
    scenario
}

async fn run_scenario(
    scenario: Scenario,
    launch: &Launch,
    k6: &std::path::Path,
    servers: Arc<Servers>,
    watched: &Watched,
    quick: bool,
) -> Result<ScenarioResult> {
    let settings = scenario.settings();
    let mut world = World::start(scenario.name, servers, watched.clone(), launch, scenario.nodes, &settings).await?;
    let fleet_file = FleetFile(launch.dir.join("fleet.json"));
    let database = Database::new(&world.database_url, 2, true, tokio::runtime::Handle::current())?;
    fleet::prepare(&fleet_file.0, &database, scenario.drivers).await?;
    database.close(Duration::from_secs(5)).await;
    let env = [
        ("NODES", world.urls()),
        ("WEBHOOK_SECRET", world.webhook_secret.clone()),
        ("FLEET", fleet_file.0.display().to_string()),
        ("DRIVERS", scenario.drivers.to_string()),
        ("SECONDS", scenario.seconds.to_string()),
        ("ORDER_RATE", scenario.order_rate.to_string()),
        ("RUN", now_ms().to_string()),
        ("QUICK", if quick { "1" } else { "" }.to_owned()),
    ];
    let env: Vec<(String, String)> = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let script = std::path::absolute(format!("loadtest/{}.js", scenario.name))?;
    let (sampler, timeline) = (Sampler::start(watched.clone()), Timeline::default());
    let running = k6::start(k6, &script, &launch.dir, &env, watched)?;
    let limit = Duration::from_secs(scenario.seconds) + K6_EXTRA;
    let (outcome, fault) = tokio::join!(running.wait(limit), async {
        let checks = inject_fault(&scenario, &mut world, &timeline).await;
        (checks, now_ms())
    });
    let ((checks, fault_ended_at_ms), outcome) = (fault, outcome?);
    let mut checks = checks?;
    let samples = sampler.samples();
    let series = Series::read(&outcome.lines);
    if series.seconds.keys().next_back().is_some_and(|last| fault_ended_at_ms / 1000 > last + 1) {
        bail!("{}: the load ended before the fault and the recovery were complete; use more seconds", scenario.name);
    }
    for node in &mut world.nodes {
        let what = format!("node {} still runs", node.label.to_uppercase());
        checks.push(verdict(&what, node.runs(), String::new()));
    }
    checks.extend(checks::check(&world, &series.accepted, scenario.all_delivered).await?);
    if scenario.watch_memory {
        checks.push(memory_stopped_growing(&samples));
    }
    for (label, status) in world.stop_nodes().await? {
        let what = format!("node {} ends with 0 after SIGTERM", label.to_uppercase());
        checks.push(verdict(&what, status.success(), status.to_string()));
    }
    checks.sort_by_key(|one| one.held);
    Ok(ScenarioResult { scenario, outcome, checks, series, samples, marks: timeline.marks() })
}

/// The file of the drivers' tokens. It is removed after the run.
struct FleetFile(PathBuf);

impl Drop for FleetFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Compares the service's memory in the last quarter of the run with the second quarter.
fn memory_stopped_growing(samples: &[Sample]) -> Check {
    let quarter = samples.len() / 4;
    let median = |samples: &[Sample]| {
        let mut mib: Vec<f64> = samples.iter().filter_map(|one| Some(one.uses.get(&Group::Service)?.mib)).collect();
        mib.sort_by(f64::total_cmp);
        mib.get(mib.len() / 2).copied().unwrap_or_default()
    };
    let (early, late) = (median(&samples[quarter..2 * quarter]), median(&samples[3 * quarter..]));
    let held = late <= early * MEMORY_GROWTH + MEMORY_GROWTH_MIB;
    verdict("the service's memory has stopped growing", held, format!("{early:.0} MiB early, {late:.0} MiB late"))
}

/// Returns the path of the program of the same build.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.parent().and_then(|examples| examples.parent()).map(|target| target.join("driver-tracker"));
    match found {
        Some(found) if found.is_file() => Ok(found),
        _ => bail!("the program was not found beside {}; build both with scripts/load.sh", own.display()),
    }
}

/// Checks the limit of open files, because each process needs one for each socket. The calling shell raises the limit to its
/// maximum.
fn require_files(drivers: usize) -> Result<()> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let limit = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(u64::MAX);
    let needed = drivers as u64 + OTHER_FILES;
    if limit < needed {
        return Err(Failure(format!(
            "{drivers} sockets need {needed} open files in each process, and the limit is {limit}; raise it (ulimit -n {needed}), \
             or use fewer drivers (DRIVERS=…)"
        )));
    }
    Ok(())
}

/// Describes the build and the machine of this run.
fn about_run() -> Vec<(&'static str, String)> {
    let line_of = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name))?.split_once(':')?.1.trim().to_owned();
        Some(line)
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let build = if cfg!(debug_assertions) { "debug: its times mean nothing" } else { "release" };
    vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("build", build.to_owned()),
        ("cores", cores.to_string()),
        ("processor", line_of("/proc/cpuinfo", "model name").unwrap_or_default()),
        ("memory", line_of("/proc/meminfo", "MemTotal").unwrap_or_default()),
    ]
}
