//! Typed and validated configuration: from file < environment < flag to one value that can work.
//!
//! Owns the table of settings, their sources, their types and the rules between them. A [`Config`] that exists is right
//! as a whole; one that is wrong is refused with every problem at once. Secrets never reach `Debug`, an error or a log.
//! Does no IO but reading the file; knows no room but `domain`.

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

/// Reads where a shop's events go; the error is the rest of a sentence.
pub fn parse_events_url(text: &str) -> Result<url::Url, String> {
    parse::web_url(text, "https://shop.example.com/delivery-events")
}

/// Whether a text is a signing secret of Standard Webhooks; the error is the rest of a sentence, without the text.
pub fn parse_signing_secret(text: &str) -> Result<Secret<String>, String> {
    parse::signing_secret(text)
}

#[cfg(test)]
mod tests;
