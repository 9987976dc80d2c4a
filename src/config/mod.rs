//! Loads and validates the configuration from the file, the environment and the flags.
//!
//! This module owns the table of settings, their sources, their types and the rules between them.
//!
//! Invariants:
//! - A flag overrides the environment, which overrides the file.
//! - A [`Config`] that exists is valid as a whole. An invalid configuration is refused with every problem at once.
//! - Secrets never appear in `Debug`, in an error or in a log.
//!
//! Must not: do any IO except reading the file, or import a module except `domain`.

mod build;
mod errors;
mod file;
mod parse;
mod report;
mod secret;
mod settings;
mod sources;
mod types;

pub use errors::ConfigErrors;
pub use parse::duration as parse_duration;
pub use report::Report;
pub use secret::{Secret, SecretUrl};
pub use settings::{Group, SETTINGS, Setting, Shown};
pub use sources::{CONFIG_FILE_VARIABLE, Origin, Sources};
pub use types::{
    AssignmentConfig, Config, DatabaseConfig, DoctorConfig, EventsConfig, HeartbeatConfig, LimitsConfig, LogConfig,
    LogFormat, MaintenanceConfig, RedisCluster, RedisConfig, ShutdownConfig, WebhookConfig,
};

/// Parses the URL that a shop's events are posted to. The error is the rest of a sentence.
pub fn parse_events_url(text: &str) -> Result<url::Url, String> {
    parse::web_url(text, "https://shop.example.com/delivery-events")
}

/// Parses a signing secret of Standard Webhooks. The error is the rest of a sentence, without the text.
pub fn parse_signing_secret(text: &str) -> Result<Secret<String>, String> {
    parse::signing_secret(text)
}

#[cfg(test)]
mod tests;
