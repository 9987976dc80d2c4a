//! The arguments of `simulate`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use url::Url;

use super::command::MAX_DRIVERS;
use super::usage;
use crate::config::{Secret, parse_duration, parse_signing_secret};
use crate::domain::position::Position;

/// The environment's name for the API key, where `--api-key` is not given.
const API_KEY_VARIABLE: &str = "DRIVER_TRACKER_API_KEY";
/// The environment's name for the signing secret: the one that the service reads.
const WEBHOOK_SECRET_VARIABLE: &str = "VENDURE_WEBHOOK_SECRET";
/// How long a run without recordings lasts, unless told.
const DEFAULT_DURATION: Duration = Duration::from_secs(60);

/// What to simulate, and against which service.
#[derive(Clone, Debug)]
pub struct SimulateArgs {
    /// The service.
    pub url: Url,
    /// A key with the scope `admin`: it makes the drivers and their tokens.
    pub api_key: Secret<String>,
    /// Signs the orders (`whsec_…`); absent only when no orders are posted.
    pub webhook_secret: Option<Secret<String>>,
    /// How many drivers; `None`: 50, or every driver of the recording.
    pub drivers: Option<u32>,
    /// How many orders at most; `None`: as many as fall into the duration.
    pub orders: Option<u32>,
    /// How many orders a minute, without a recording.
    pub orders_per_minute: f64,
    /// How long it lasts; `None`: as long as the recording.
    pub duration: Option<Duration>,
    /// Around where, without a recording.
    pub center: Position,
    /// How far around it.
    pub radius_km: f64,
    /// Recorded movement, plain or gzip.
    pub drivers_csv: Option<PathBuf>,
    /// Recorded demand, plain or gzip.
    pub orders_csv: Option<PathBuf>,
    /// How many recorded seconds pass in one.
    pub speed: f64,
    /// Makes two runs alike; `None`: any.
    pub seed: Option<u64>,
}

fn option(name: &'static str, value_name: &'static str, help: impl Into<String>) -> Arg {
    Arg::new(name).long(name).value_name(value_name).help(help.into())
}

pub(super) fn command() -> Command {
    Command::new("simulate")
        .about("Drive a running service as a fleet of drivers and a shop would")
        .long_about(
            "Connects simulated drivers to a running service as real WebSocket clients and posts signed orders to its \
             webhook, then reports: orders, assigned, times from webhook to socket, nearest or not, errors. With \
             --drivers-csv and --orders-csv it replays recorded movement (driver,t_s,lat,lon,…) and demand (t_s,lat,lon).",
        )
        .arg(option("url", "URL", "The service").value_parser(parse_url).default_value("http://127.0.0.1:8080"))
        .arg(option("api-key", "KEY", format!("A key with the scope admin [environment: {API_KEY_VARIABLE}]")))
        .arg(option("webhook-secret", "SECRET", format!("Signs the orders, whsec_… [environment: {WEBHOOK_SECRET_VARIABLE}]")))
        .args(sizes())
        .args(area())
        .args(recording())
        .arg(option("seed", "N", "Makes two runs alike [default: any]").value_parser(value_parser!(u64)))
}

fn sizes() -> [Arg; 4] {
    [
        option("drivers", "N", "How many drivers [default: 50, or all of the recording]")
            .value_parser(value_parser!(u32).range(1..=MAX_DRIVERS)),
        option("orders", "N", "How many orders at most [default: as many as fall into the duration]")
            .value_parser(value_parser!(u32).range(0..=10_000_000)),
        option("orders-per-minute", "RATE", "How many orders a minute, without a recording")
            .value_parser(|text: &str| decimal(text, 0.0, 1_000_000.0))
            .default_value("30"),
        option("duration", "TIME", "How long: a number and ms, s, m or h [default: 60s, or the whole recording]")
            .value_parser(parse_duration),
    ]
}

fn area() -> [Arg; 2] {
    [
        option("center", "LAT,LON", "Around where, without a recording")
            .allow_hyphen_values(true)
            .value_parser(parse_center)
            .default_value("12.9716,77.5946"),
        option("radius-km", "KM", "How far around it")
            .value_parser(|text: &str| decimal(text, 0.1, 200.0))
            .default_value("5"),
    ]
}

fn recording() -> [Arg; 3] {
    [
        option("drivers-csv", "FILE", "Recorded movement, plain or gzip").value_parser(value_parser!(PathBuf)),
        option("orders-csv", "FILE", "Recorded demand, plain or gzip").value_parser(value_parser!(PathBuf)),
        option("speed", "X", "How many recorded seconds pass in one")
            .value_parser(|text: &str| decimal(text, 0.01, 10_000.0))
            .default_value("1"),
    ]
}

impl SimulateArgs {
    pub(super) fn from_matches(
        matches: &ArgMatches,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let orders = matches.get_one::<u32>("orders").copied();
        let secret = given(matches, "webhook-secret", &environment, WEBHOOK_SECRET_VARIABLE);
        let api_key = given(matches, "api-key", &environment, API_KEY_VARIABLE)
            .ok_or_else(|| usage(format!("--api-key is missing (or {API_KEY_VARIABLE} in the environment)")))?;
        let drivers_csv = matches.get_one::<PathBuf>("drivers-csv").cloned();
        let orders_csv = matches.get_one::<PathBuf>("orders-csv").cloned();
        let recorded = drivers_csv.is_some() || orders_csv.is_some();
        let duration = matches.get_one::<Duration>("duration").copied();
        Ok(Self {
            url: required(matches, "url")?,
            api_key: Secret::new(api_key),
            webhook_secret: webhook_secret(secret, orders)?,
            drivers: matches.get_one::<u32>("drivers").copied(),
            orders,
            orders_per_minute: required(matches, "orders-per-minute")?,
            duration: duration.or((!recorded).then_some(DEFAULT_DURATION)),
            center: required(matches, "center")?,
            radius_km: required(matches, "radius-km")?,
            drivers_csv,
            orders_csv,
            speed: required(matches, "speed")?,
            seed: matches.get_one::<u64>("seed").copied(),
        })
    }
}

fn required<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Result<T, clap::Error> {
    matches.get_one::<T>(name).cloned().ok_or_else(|| usage(format!("--{name} is missing")))
}

/// A flag, or else a variable of the environment.
fn given(
    matches: &ArgMatches,
    flag: &str,
    environment: impl Fn(&str) -> Option<OsString>,
    variable: &str,
) -> Option<String> {
    let flag = matches.get_one::<String>(flag).cloned();
    let value = flag.or_else(|| environment(variable).and_then(|value| value.into_string().ok()))?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The first secret of the list: any of those that the service takes will do.
fn webhook_secret(list: Option<String>, orders: Option<u32>) -> Result<Option<Secret<String>>, clap::Error> {
    let Some(list) = list else {
        if orders == Some(0) {
            return Ok(None);
        }
        return Err(usage(format!(
            "--webhook-secret is missing (or {WEBHOOK_SECRET_VARIABLE} in the environment); only --orders 0 does without it"
        )));
    };
    let first = list.split(',').next().unwrap_or_default().trim();
    parse_signing_secret(first).map(Some).map_err(|must| usage(format!("--webhook-secret {must}")))
}

fn parse_url(text: &str) -> Result<Url, String> {
    let must = || "must be a URL such as http://127.0.0.1:8080".to_owned();
    let url = Url::parse(text).map_err(|_| must())?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url).ok_or_else(must)
}

fn parse_center(text: &str) -> Result<Position, String> {
    let must = || "must be latitude,longitude, such as 12.9716,77.5946".to_owned();
    let (lat, lon) = text.split_once(',').ok_or_else(must)?;
    let lat: f64 = lat.trim().parse().map_err(|_| must())?;
    let lon: f64 = lon.trim().parse().map_err(|_| must())?;
    Position::new(lat, lon).map_err(|error| error.to_string())
}

fn decimal(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let must = || format!("must be a number from {least} to {most}");
    let number: f64 = text.parse().map_err(|_| must())?;
    (least..=most).contains(&number).then_some(number).ok_or_else(must)
}
