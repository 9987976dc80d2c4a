//! The command line: from arguments and environment to an [`Invocation`] whose parts are validated.
//!
//! Owns the commands, their flags and their help. Prints nothing and ends nothing: `main` does both. The flags of the
//! settings are made from the table in `config`, so that a new setting needs nothing here.

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

/// What the program was asked to do.
#[derive(Debug)]
pub enum Invocation {
    /// Run the service.
    Serve(Box<Config>),
    /// Bring the database's schema up to date.
    Migrate(MaintenanceConfig),
    /// Run everything on this machine: servers, service, shop and fleet.
    Dev(DevArgs),
    /// Drive a running service as a fleet and a shop would.
    Simulate(ArgMatches),
    /// Make, list or revoke API keys.
    ApiKey(ApiKeyCommand, MaintenanceConfig),
    /// List, show or replay events to shops.
    Events(EventsCommand, MaintenanceConfig),
    /// Say where Redis and PostgreSQL differ.
    Doctor(DoctorArgs, DoctorConfig),
    /// Say what the configuration amounts to.
    CheckConfig(CheckConfig),
}

/// The arguments of `dev`.
#[derive(Clone, Debug)]
pub struct DevArgs {
    /// How many simulated drivers.
    pub drivers: u32,
    /// How many drivers to make for a load test, beside the simulated ones.
    pub prepare: u32,
    /// Where to listen; `None`: 8080, else the next free port.
    pub listen: Option<SocketAddr>,
    /// Where data, keys and ports are kept.
    pub dir: PathBuf,
    /// What file, environment and flags say: `dev` sets what is missing with [`Origin::Preset`] and loads a [`Config`].
    pub sources: Sources,
}

/// The answer of `check-config`: print the report on standard output, then fail with the problems if there are any.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// Every setting, its value and where that came from; secrets left out.
    pub report: Report,
    /// What is wrong.
    pub problems: Option<ConfigErrors>,
}

/// Why there is nothing to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments are wrong, or help was asked for (then its exit code is 0).
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
}

impl CliError {
    /// What the process ends with: 2, or 0 when help or the version was asked for.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(error) => u8::try_from(error.exit_code()).unwrap_or(2),
            Self::Config(_) => 2,
        }
    }

    /// Tells the reader: help on standard output, everything else on standard error.
    pub fn print(&self) {
        match self {
            // A closed pipe leaves nobody to tell.
            Self::Usage(error) => drop(error.print()),
            Self::Config(errors) => eprintln!("driver-tracker: {errors}"),
        }
    }
}

/// Parses `arguments`, the first of which is the program's name; `environment` is [`std::env::var_os`] outside tests.
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
    // The default is not an address that was asked for: without one, `dev` looks for a free port.
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
    // The flags of the settings are global below `api-key`, so the innermost matches know them all.
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
        // A command that lacks this flag has no such id.
        if let Ok(Some(value)) = matches.try_get_one::<String>(setting.name) {
            sources.set(Origin::Flag, setting.name, value);
        }
    }
    sources
}

/// An error of usage in clap's own form.
fn usage(message: impl std::fmt::Display) -> clap::Error {
    command().error(ErrorKind::ValueValidation, message)
}
