//! Defines the flags of `driver-tracker simulate`. The simulator parses their values.

use std::path::PathBuf;

use clap::{Arg, Command, value_parser};

/// The subcommand.
pub fn command() -> Command {
    let flag = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let number = |name, value, help| flag(name, value, help).value_parser(value_parser!(f64));
    let path = |name, help| flag(name, "FILE", help).value_parser(value_parser!(PathBuf));
    Command::new("simulate")
        .about("Runs drivers as real WebSocket clients and posts orders through the signed webhook")
        .after_help(
            "The API key is read from DRIVER_TRACKER_API_KEY, the webhook's secret from VENDURE_WEBHOOK_SECRET or \
             VENDURE_WEBHOOK_SHARED_SECRET; what is not given is taken from the running `driver-tracker dev`.",
        )
        .arg(flag("url", "URL", "The service, such as http://127.0.0.1:8080 [default: the one that dev runs]"))
        .arg(path("dev-state", "What dev says about itself [default: .dev/state.json]"))
        .arg(flag("drivers", "N", "How many drivers [default: 50, or one a trace]").value_parser(value_parser!(usize)))
        .arg(number("orders-per-minute", "RATE", "Random orders a minute; 0 for none [default: 30]"))
        .arg(flag("orders", "N", "No more than so many orders").value_parser(value_parser!(u64)))
        .arg(
            flag(
                "keep-free",
                "N",
                "Post an order only while so many drivers stay free for orders of others [default: 0]",
            )
            .value_parser(value_parser!(usize)),
        )
        .arg(
            flag("center", "LAT,LON", "The middle of it [default: 12.9716,77.5946, or that of the recording]")
                .allow_hyphen_values(true),
        )
        .arg(number("radius-km", "KM", "How far from the middle [default: 4, or that of the recording]"))
        .arg(number("speed", "X", "Time-lapse: seconds of the drivers in one second [default: 1]"))
        .arg(flag("duration", "TIME", "Wall time after which it ends, such as 90s, 10m or 2h"))
        .arg(flag("seed", "N", "The same seed gives the same ways [default: 1]").value_parser(value_parser!(u64)))
        .arg(path("drivers-csv", "Recorded movement: driver,t_s,lat,lon, plain or gzip"))
        .arg(path("orders-csv", "Recorded demand: t_s,lat,lon, plain or gzip"))
        .arg(flag("start", "HH:MM", "Time of day at which the recording begins [default: when both files have begun]"))
        .arg(
            flag("fit-orders", "WHEN", "Move demand to where the drivers are [default: auto, when they lie apart]")
                .value_parser(["auto", "always", "never"]),
        )
}
