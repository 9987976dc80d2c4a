//! "Failed" and "not to be believed", kept apart from each other and from an empty answer.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why there is no answer that may be acted upon.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// The settings name no Redis server.
    #[error("REDIS_URL cannot be used: {0}")]
    InvalidUrl(#[source] RedisError),
    /// Redis did not answer; what was asked may have been done all the same.
    #[error("Redis is unavailable: {0}")]
    Unavailable(#[source] Outage),
    /// Redis answers, but its data has not been rebuilt from PostgreSQL: an empty answer would mean nothing.
    #[error("Redis is cold: it has not been rebuilt from PostgreSQL yet")]
    Cold,
}

/// How a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Outage {
    /// Not tried, since Redis just failed.
    #[error("not tried again yet, after: {0}")]
    BreakerOpen(String),
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] RedisError),
    /// The connection broke, or Redis refused.
    #[error("{0}")]
    Redis(#[source] RedisError),
    /// An answer of a shape that no Redis gives.
    #[error("unexpected answer to {0}")]
    Unexpected(&'static str),
    /// The task that connects is gone, with its runtime or by a panic.
    #[error("the task that connects has ended")]
    Ended,
}

/// What an outage says about the connection and the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// One command was refused; the connection is fine.
    Refusal,
    /// The connection is gone; the next call makes another.
    Lost,
    /// Redis is out.
    Out,
}

impl Outage {
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::BreakerOpen(_) | Self::Unexpected(_) => Severity::Refusal,
            Self::TimedOut(_) | Self::Connect(_) | Self::Ended => Severity::Out,
            Self::Redis(error) if error.is_timeout() => Severity::Out,
            Self::Redis(error) if error.is_io_error() || error.is_unrecoverable_error() => Severity::Lost,
            Self::Redis(error) => match error.kind() {
                // A demoted or starting server: another connection may reach the right one.
                ErrorKind::Server(
                    ServerErrorKind::ReadOnly
                    | ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown,
                ) => Severity::Out,
                _ => Severity::Refusal,
            },
        }
    }

    /// The value of the metric's label `outcome`.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::BreakerOpen(_) => "breaker_open",
            Self::TimedOut(_) => "timeout",
            Self::Redis(error) if error.is_timeout() => "timeout",
            Self::Connect(_) | Self::Redis(_) | Self::Unexpected(_) | Self::Ended => "error",
        }
    }
}

impl From<RedisError> for Outage {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<Outage> for PresenceError {
    fn from(outage: Outage) -> Self {
        Self::Unavailable(outage)
    }
}

impl From<RedisError> for PresenceError {
    fn from(error: RedisError) -> Self {
        Self::Unavailable(Outage::Redis(error))
    }
}
