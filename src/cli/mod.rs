//! Parses the command line and the environment into a validated [`Invocation`].
//!
//! This module owns the commands, their flags and their help texts.
//!
//! Invariants: the flags of the settings come from the table in `config`. A new setting needs no change here.
//!
//! Must not: print, or end the process. `main` does both.

mod api_key;
mod command;
mod doctor;
mod events;
pub mod simulate;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ArgMatches;
use clap::error::ErrorKind;

pub use api_key::{ApiKeyCommand, KeyScope};
pub use command::command;
pub use doctor::DoctorArgs;
pub use events::EventsCommand;

use crate::config::{
    CONFIG_FILE_VARIABLE, Config, ConfigErrors, DoctorConfig, MaintenanceConfig, Origin, Report, SETTINGS, Sources,
};

/// The command to run, with its arguments.
#[derive(Debug)]
pub enum Invocation {
    /// Run the service.
    Serve(Box<Config>),
    /// Apply the missing migrations.
    Migrate(MaintenanceConfig),
    /// Run everything on this machine: servers, service, shop and simulated drivers.
    Dev(DevArgs),
    /// Simulate drivers and a shop against a running service.
    Simulate(ArgMatches),
    /// Create, list or revoke API keys.
    ApiKey(ApiKeyCommand, MaintenanceConfig),
    /// List, show or replay events to shops.
    Events(EventsCommand, MaintenanceConfig),
    /// Report where Redis and PostgreSQL differ.
    Doctor(DoctorArgs, DoctorConfig),
    /// Report the effective configuration.
    CheckConfig(CheckConfig),
}

/// The arguments of `dev`.
#[derive(Clone, Debug)]
pub struct DevArgs {
    /// How many simulated drivers.
    pub drivers: u32,
    /// How many drivers to create for a load test, in addition to the simulated drivers.
    pub prepare: u32,
    /// The address to listen on. `None` means port 8080, or the next free port.
    pub listen: Option<SocketAddr>,
    /// The directory of data, keys and ports.
    pub dir: PathBuf,
    /// The values of file, environment and flags. `dev` sets the missing ones with [`Origin::Preset`] and loads a [`Config`].
    pub sources: Sources,
}

/// The result of `check-config`. The caller prints the report on standard output, then fails if there are problems.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// Every setting, its value and the source of the value, without secrets.
    pub report: Report,
    /// The problems of the configuration.
    pub problems: Option<ConfigErrors>,
}

/// Why no command can run.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments are invalid, or help was requested (then the exit code is 0).
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
}

impl CliError {
    /// The exit code of the process: 2, or 0 when help or the version was requested.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(error) => u8::try_from(error.exit_code()).unwrap_or(2),
            Self::Config(_) => 2,
        }
    }

    /// Prints help on standard output and everything else on standard error.
    pub fn print(&self) {
        match self {
            // The pipe may be closed. Then no one can read the message.
            Self::Usage(error) => drop(error.print()),
            Self::Config(errors) => eprintln!("driver-tracker: {errors}"),
        }
    }
}

/// Parses `arguments`. The first is the program's name. `environment` is [`std::env::var_os`] outside tests.
pub fn parse<I>(arguments: I, environment: impl Fn(&str) -> Option<OsString>) -> Result<Invocation, CliError>
where
    I: IntoIterator<Item: Into<OsString> + Clone>,
{
    let matches = command().try_get_matches_from(arguments)?;
    let (name, matches) = matches.subcommand().ok_or_else(|| usage("a command is missing: try --help"))?;
    Ok(match name {
        "serve" => Invocation::Serve(Box::new(Config::load(&sources(matches, environment))?)),
        "migrate" => Invocation::Migrate(MaintenanceConfig::load(&sources(matches, environment))?),
        "dev" => Invocation::Dev(dev(matches, environment)?),
        "simulate" => Invocation::Simulate(matches.clone()),
        "api-key" => api_key(matches, environment)?,
        "events" => events(matches, environment)?,
        "doctor" => {
            let config = DoctorConfig::load(&sources(matches, environment))?;
            Invocation::Doctor(DoctorArgs::from_matches(matches), config)
        }
        "check-config" => Invocation::CheckConfig(check_config(&sources(matches, environment))),
        other => return Err(usage(format!("{other} is not a command: try --help")).into()),
    })
}

fn dev(matches: &ArgMatches, environment: impl Fn(&str) -> Option<OsString>) -> Result<DevArgs, clap::Error> {
    let mut sources = sources(matches, environment);
    if let Some(listen) = matches.get_one::<SocketAddr>("listen") {
        sources.set(Origin::Flag, "LISTEN_ADDR", &listen.to_string());
    }
    // The default does not count as a set address. Without a set address, `dev` finds a free port.
    let listen = match sources.given("LISTEN_ADDR") {
        Some(text) => {
            Some(text.parse().map_err(|_| usage("LISTEN_ADDR must be an address and a port, such as 127.0.0.1:8080"))?)
        }
        None => None,
    };
    let drivers = matches.get_one::<u32>("drivers").copied().unwrap_or_default();
    let prepare = matches.get_one::<u32>("prepare").copied().unwrap_or_default();
    let dir = matches.get_one::<PathBuf>("dir").cloned().unwrap_or_else(|| ".dev".into());
    Ok(DevArgs { drivers, prepare, listen, dir, sources })
}

fn api_key(matches: &ArgMatches, environment: impl Fn(&str) -> Option<OsString>) -> Result<Invocation, CliError> {
    let (name, inner) = matches.subcommand().ok_or_else(|| usage("api-key needs one of create, list and revoke"))?;
    let asked = ApiKeyCommand::from_matches(name, inner)?;
    // The flags of the settings are global below `api-key`, so the innermost matches have all of them.
    Ok(Invocation::ApiKey(asked, MaintenanceConfig::load(&sources(inner, environment))?))
}

fn events(matches: &ArgMatches, environment: impl Fn(&str) -> Option<OsString>) -> Result<Invocation, CliError> {
    let (name, inner) = matches.subcommand().ok_or_else(|| usage("events needs one of list, show and replay"))?;
    let asked = EventsCommand::from_matches(name, inner)?;
    Ok(Invocation::Events(asked, MaintenanceConfig::load(&sources(inner, environment))?))
}

fn check_config(sources: &Sources) -> CheckConfig {
    CheckConfig { report: Report::new(sources), problems: Config::load(sources).err() }
}

/// The three sources: the file that `--config` or the environment names, the environment, and the flags.
fn sources(matches: &ArgMatches, environment: impl Fn(&str) -> Option<OsString>) -> Sources {
    let file = matches.get_one::<PathBuf>("config").cloned();
    let file = file.or_else(|| environment(CONFIG_FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from));
    let mut sources = Sources::new();
    if let Some(file) = file {
        sources = sources.with_file(&file);
    }
    sources = sources.with_environment(environment);
    for setting in SETTINGS {
        // A command without this flag has no such id.
        if let Ok(Some(value)) = matches.try_get_one::<String>(setting.name) {
            sources.set(Origin::Flag, setting.name, value);
        }
    }
    sources
}

/// A usage error in clap's form.
fn usage(message: impl std::fmt::Display) -> clap::Error {
    command().error(ErrorKind::ValueValidation, message)
}
