//! Defines the commands and their flags for clap.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Arg, Command, value_parser};

use super::{api_key, doctor, events, simulate};
use crate::config::{CONFIG_FILE_VARIABLE, Group, SETTINGS, Setting};

/// The most drivers that one process can simulate.
pub(super) const MAX_DRIVERS: i64 = 100_000;

/// The whole command line.
pub fn command() -> Command {
    Command::new("driver-tracker")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Tracks delivery drivers in real time and gives every shop order to the nearest available one.")
        .after_help(
            "Settings come from a file (--config), the environment and flags; a flag wins over the environment, which \
             wins over the file. docs/configuration.md lists them.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve())
        .subcommand(migrate())
        .subcommand(dev())
        .subcommand(simulate::command())
        .subcommand(api_key::command().args(maintenance_flags().map(|flag| flag.global(true))))
        .subcommand(events::command().args(maintenance_flags().map(|flag| flag.global(true))))
        .subcommand(doctor::command().args(store_flags()))
        .subcommand(check_config())
}

fn serve() -> Command {
    Command::new("serve")
        .about("Run the service")
        .long_about(
            "Runs the service: webhooks, drivers' sockets, the API and metrics. Ends with 2 when the configuration cannot \
             work, 1 for what another moment may mend (such as a database that is not there), 0 after SIGTERM.",
        )
        .args(all_flags(&[]))
}

fn migrate() -> Command {
    Command::new("migrate")
        .about("Bring the database's schema up to date")
        .long_about(
            "Applies the migrations that the database lacks, in order. Needs DATABASE_URL alone. Safe to repeat.",
        )
        .args(maintenance_flags())
}

fn check_config() -> Command {
    Command::new("check-config")
        .about("Print the effective configuration, where each value came from, and what is wrong with it")
        .long_about(
            "Prints every setting with its value and whether it came from a flag, the environment, the file or the \
             defaults; secrets show only whether they are set. Ends with 2, and every problem, when serve would refuse \
             to start. Connects to nothing.",
        )
        .args(all_flags(&[]))
}

fn dev() -> Command {
    Command::new("dev")
        .about("Run everything on this machine: private servers, the service, a shop and simulated drivers")
        .long_about(
            "Runs a private PostgreSQL and a private Redis (unless DATABASE_URL and REDIS_URL are given), migrates, makes a \
             shop, drivers and keys, starts the service, a receiving shop and a simulated fleet, and shows what happens. \
             Everything is kept in one directory from run to run, and stopped by Ctrl-C.",
        )
        .arg(
            Arg::new("drivers")
                .long("drivers")
                .value_name("N")
                .value_parser(value_parser!(u32).range(0..=MAX_DRIVERS))
                .default_value("50")
                .help("How many simulated drivers; 0 leaves the orders to a driver of your own, whose token is printed"),
        )
        .arg(
            Arg::new("prepare")
                .long("prepare")
                .value_name("N")
                .value_parser(value_parser!(u32).range(0..=MAX_DRIVERS))
                .default_value("0")
                .help("Also make N drivers for a load test, and write them with their tokens to fleet.json"),
        )
        .arg(
            Arg::new("listen")
                .long("listen")
                .alias("listen-addr")
                .value_name("ADDR")
                .value_parser(value_parser!(SocketAddr))
                .help("Where to listen [default: 127.0.0.1:8080, or the next free port; environment: LISTEN_ADDR]"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .default_value(".dev")
                .help("Where data, keys and ports are kept from run to run"),
        )
        .args(all_flags(&["LISTEN_ADDR"]))
}

/// `--config` and a flag for every setting except those in `without`.
fn all_flags(without: &'static [&'static str]) -> impl Iterator<Item = Arg> {
    let settings = SETTINGS.iter().filter(|setting| !without.contains(&setting.name));
    std::iter::once(config_flag()).chain(settings.map(setting_flag))
}

/// The flags of commands that use only the database.
fn maintenance_flags() -> impl Iterator<Item = Arg> {
    let settings = SETTINGS
        .iter()
        .filter(|setting| matches!(setting.group, Group::Database | Group::Logs) && setting.name != "MIGRATE_ON_START");
    std::iter::once(config_flag()).chain(settings.map(setting_flag))
}

/// The flags of commands that use PostgreSQL and Redis and start no service.
fn store_flags() -> impl Iterator<Item = Arg> {
    let settings = SETTINGS.iter().filter(|setting| {
        matches!(setting.group, Group::Database | Group::Redis | Group::Logs)
            && !matches!(setting.name, "MIGRATE_ON_START" | "REDIS_COMPARE_EVERY_MS")
    });
    std::iter::once(config_flag()).chain(settings.map(setting_flag))
}

fn config_flag() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help(format!("A TOML file of settings, keys in lower case [environment: {CONFIG_FILE_VARIABLE}]"))
}

fn setting_flag(setting: &'static Setting) -> Arg {
    // Values are plain text here and are validated together with the values of the other sources. All problems are therefore
    // reported at once, and clap never prints a secret.
    let arg = Arg::new(setting.name)
        .long(setting.flag())
        .value_name("VALUE")
        .help_heading(setting.group.title())
        .help(format!("{} [default: {}; environment: {}]", setting.help, setting.default_text(), setting.name));
    if matches!(setting.default, Some("true" | "false")) {
        return arg.num_args(0..=1).require_equals(true).default_missing_value("true");
    }
    arg
}
