//! The command line of `driver-tracker simulate`: reads the flags, runs the simulation and prints its progress.
//!
//! Invariant: secrets come from the environment or from the state file of `dev`, never from flags. Other users can read the
//! flags of a process.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use serde::Deserialize;
use tokio::sync::watch;

use super::{
    DriverSource, FitOrders, Movement, OrderSource, Progress, Recording, RecordingError, RecordingOptions, Report,
    SimulateError, SimulateOptions, Simulation, WebhookAuth, geo,
};
use crate::domain::position::Position;

/// Seconds between two progress lines when the output is not a terminal.
const LINE_EVERY_S: u64 = 10;
const DEV_STATE: &str = ".dev/state.json";
const DEFAULT_DRIVERS: usize = 50;
const DEFAULT_ORDERS_PER_MINUTE: f64 = 30.0;
/// Bengaluru, like in the examples of the docs.
const DEFAULT_CENTER: (f64, f64) = (12.9716, 77.5946);

/// Why the command line does not describe a valid run.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The value of a flag is invalid.
    #[error("--{flag}: {reason}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What a valid value looks like.
        reason: &'static str,
    },
    /// Neither the flags nor the state file of `dev` name the service and its secret.
    #[error(
        "give --url and set VENDURE_WEBHOOK_SECRET (or VENDURE_WEBHOOK_SHARED_SECRET) and DRIVER_TRACKER_API_KEY in the \
         environment, or start `driver-tracker dev` here first: {} does not exist",
        .0.display()
    )]
    NoService(PathBuf),
    /// The state file of `dev` cannot be read.
    #[error("{} cannot be read: {reason}", path.display())]
    DevState {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A recording cannot be used.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The run's options are invalid.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
}

/// The fields of `.dev/state.json` that a simulation needs.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DevState {
    http_url: Option<String>,
    admin_key: Option<String>,
    webhook_secret: Option<String>,
    webhook_shared_secret: Option<String>,
}

/// Builds the options from the flags, the environment and the state file of `dev`. Also returns notes to print before the
/// run.
pub fn options(
    matches: &ArgMatches,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(SimulateOptions, Vec<String>), CliError> {
    let text = |name| matches.get_one::<String>(name).map(String::as_str);
    let number = |name| matches.get_one::<f64>(name).copied();
    let seed = matches.get_one::<u64>("seed").copied().unwrap_or(1);
    let fit = match text("fit-orders") {
        Some("always") => FitOrders::Always,
        Some("never") => FitOrders::Never,
        _ => FitOrders::Auto,
    };
    let recording = Recording::load(&RecordingOptions {
        drivers_csv: matches.get_one::<PathBuf>("drivers-csv").cloned(),
        orders_csv: matches.get_one::<PathBuf>("orders-csv").cloned(),
        start_s: text("start").map(parse_time_of_day).transpose()?,
        fit,
        seed,
    })?;
    let is_recorded = recording.area.is_some();
    let (own_center, own_radius_km) = match &recording.area {
        Some(area) => geo::circle_in(area),
        None => (parse_center(&format!("{},{}", DEFAULT_CENTER.0, DEFAULT_CENTER.1))?, 4.0),
    };
    let center = text("center").map(parse_center).transpose()?.unwrap_or(own_center);
    let radius_km = number("radius-km").unwrap_or(own_radius_km);
    if !(radius_km > 0.0 && radius_km <= 500.0) {
        return Err(CliError::Flag { flag: "radius-km", reason: "must be above 0 and at most 500" });
    }
    let default_drivers = if recording.traces.is_empty() { DEFAULT_DRIVERS } else { recording.traces.len() };
    let count = matches.get_one::<usize>("drivers").copied().unwrap_or(default_drivers);
    let keep_free = matches.get_one::<usize>("keep-free").copied().unwrap_or(0);
    if keep_free > 0 && keep_free >= count {
        return Err(CliError::Flag { flag: "keep-free", reason: "must be less than the number of drivers" });
    }
    let per_minute = number("orders-per-minute").unwrap_or(DEFAULT_ORDERS_PER_MINUTE);
    if !(0.0..=600_000.0).contains(&per_minute) {
        return Err(CliError::Flag { flag: "orders-per-minute", reason: "must be from 0 to 600000" });
    }
    let most = matches.get_one::<u64>("orders").copied();
    let orders = if !recording.orders.is_empty() {
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        OrderSource::Recorded(recording.orders.into_iter().take(most).collect())
    } else if per_minute == 0.0 {
        OrderSource::None
    } else {
        OrderSource::Rate { per_minute, count: most, center, radius_km }
    };
    let movement = if recording.traces.is_empty() {
        Movement::Random { center, radius_km }
    } else {
        Movement::Recorded(recording.traces)
    };
    let (http_url, api_key, webhook) = service(matches, environment)?;
    let options = SimulateOptions {
        http_url,
        api_key,
        webhook,
        drivers: DriverSource::Create(count),
        movement,
        orders,
        keep_free,
        speed: number("speed").unwrap_or(1.0),
        duration: text("duration").map(parse_duration).transpose()?,
        seed,
    };
    Ok((options, if is_recorded { recording.notes } else { Vec::new() }))
}

/// Returns the service's address, the API key and the credentials of the webhook.
fn service(
    matches: &ArgMatches,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(String, Option<String>, WebhookAuth), CliError> {
    let set = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
    let given = matches.get_one::<PathBuf>("dev-state");
    let path = given.cloned().unwrap_or_else(|| PathBuf::from(DEV_STATE));
    let url = matches.get_one::<String>("url").cloned();
    // With `--url` the state file of `dev` is not used, because it describes another service, unless `--dev-state` names it.
    let dev = if url.is_none() || given.is_some() { read_dev_state(&path)? } else { DevState::default() };
    let Some(http_url) = url.or(dev.http_url) else { return Err(CliError::NoService(path)) };
    let webhook = set("VENDURE_WEBHOOK_SECRET")
        .map(WebhookAuth::Signed)
        .or_else(|| set("VENDURE_WEBHOOK_SHARED_SECRET").map(WebhookAuth::Shared))
        .or_else(|| dev.webhook_secret.map(WebhookAuth::Signed))
        .or_else(|| dev.webhook_shared_secret.map(WebhookAuth::Shared));
    let Some(webhook) = webhook else { return Err(CliError::NoService(path)) };
    Ok((http_url, set("DRIVER_TRACKER_API_KEY").or(dev.admin_key), webhook))
}

fn read_dev_state(path: &Path) -> Result<DevState, CliError> {
    let failed = |reason: String| CliError::DevState { path: path.to_owned(), reason };
    match std::fs::read(path) {
        // Only the line number of the parse error is shown. The full message could contain a secret.
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| failed(format!("unexpected JSON in line {}", error.line())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(DevState::default()),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Runs the simulation, prints progress on standard error and the final report on standard output.
pub async fn run(
    (options, notes): (SimulateOptions, Vec<String>),
    shutdown: watch::Receiver<bool>,
) -> Result<Report, SimulateError> {
    notes.iter().for_each(|note| eprintln!("{note}"));
    let terminal = std::io::stderr().is_terminal();
    let mut next_line_s = 0;
    let report = Simulation::new(options)?
        .run(shutdown, |progress: &Progress| {
            if terminal {
                eprint!("\r\x1b[2K{progress}");
                let _ = std::io::stderr().flush();
            } else if progress.elapsed.as_secs() >= next_line_s {
                next_line_s = progress.elapsed.as_secs() + LINE_EVERY_S;
                eprintln!("{progress}");
            }
        })
        .await?;
    if terminal {
        eprintln!();
    }
    println!("{report}");
    Ok(report)
}

fn parse_center(text: &str) -> Result<Position, CliError> {
    let parsed = text.split_once(',').and_then(|(lat, lon)| {
        let (lat, lon) = (lat.trim().parse().ok()?, lon.trim().parse().ok()?);
        Position::new(lat, lon).ok()
    });
    parsed.ok_or(CliError::Flag { flag: "center", reason: "must be latitude,longitude such as 12.9716,77.5946" })
}

/// Parses `HH:MM` into seconds since midnight.
fn parse_time_of_day(text: &str) -> Result<f64, CliError> {
    let parsed = text.split_once(':').and_then(|(hours, minutes)| {
        let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours < 24 && minutes < 60).then(|| f64::from(hours * 3600 + minutes * 60))
    });
    parsed.ok_or(CliError::Flag { flag: "start", reason: "must be a time of day such as 07:30" })
}

/// Parses `90s`, `10m`, `2h`, `500ms`, or seconds without a unit.
fn parse_duration(text: &str) -> Result<Duration, CliError> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit_s = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    let seconds = number.parse::<f64>().map(|number| number * unit_s).ok();
    let parsed = seconds.filter(|seconds| *seconds > 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok());
    parsed.ok_or(CliError::Flag { flag: "duration", reason: "must be a time such as 90s, 10m or 2h" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::simulate::command;

    fn parse(flags: &[&str], environment: &[(&str, &str)]) -> Result<SimulateOptions, CliError> {
        let nowhere = ["simulate", "--dev-state", "/nonexistent/state.json"];
        let matches = command().try_get_matches_from(nowhere.iter().chain(flags)).unwrap();
        let find = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        options(&matches, find).map(|(options, _)| options)
    }

    const SECRET: (&str, &str) = ("VENDURE_WEBHOOK_SECRET", "whsec_AAAA");

    #[test]
    fn flags_become_the_options_of_a_run() {
        command().debug_assert();
        let flags = "--url http://h:1 --center -33.9,18.4 --radius-km 2 --orders 5 --duration 2m --speed 4 --drivers 3 \
                     --keep-free 2";
        let options = parse(&flags.split(' ').collect::<Vec<_>>(), &[SECRET, ("DRIVER_TRACKER_API_KEY", "k")]).unwrap();
        assert_eq!((options.http_url.as_str(), options.api_key.as_deref()), ("http://h:1", Some("k")));
        assert_eq!((options.speed, options.duration), (4.0, Some(Duration::from_secs(120))));
        assert_eq!(options.keep_free, 2);
        assert_eq!(parse(&["--url", "http://h:1"], &[SECRET]).unwrap().keep_free, 0, "the default is 0");
        assert!(matches!(options.webhook, WebhookAuth::Signed(secret) if secret == "whsec_AAAA"));
        assert!(matches!(options.drivers, DriverSource::Create(3)));
        assert!(matches!(options.movement, Movement::Random { center, radius_km: 2.0 } if center.lat() == -33.9));
        assert!(matches!(options.orders, OrderSource::Rate { per_minute: 30.0, count: Some(5), .. }));
    }

    #[test]
    fn errors_name_the_missing_or_invalid_value() {
        let error = |flags: &[&str], environment: &[(&str, &str)]| match parse(flags, environment) {
            Ok(_) => panic!("{flags:?}"),
            Err(error) => error.to_string(),
        };
        assert!(error(&[], &[]).contains("/nonexistent/state.json"));
        assert!(error(&["--url", "http://h"], &[]).contains("VENDURE_WEBHOOK_SECRET"));
        for (flag, bad) in
            [("start", "25:00"), ("duration", "soon"), ("center", "91,0"), ("radius-km", "0"), ("keep-free", "50")]
        {
            let flag = format!("--{flag}={bad}");
            let message = error(&["--url", "http://h", &flag], &[SECRET]);
            assert!(flag.starts_with(message.split(':').next().unwrap()), "{message}");
        }
    }
}
