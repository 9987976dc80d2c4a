//! The errors of presence calls. They separate "Redis failed" from "Redis is cold", and both from an empty answer.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a call has no usable result.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// `REDIS_URL` does not name a Redis server.
    #[error("REDIS_URL cannot be used: {0}")]
    InvalidUrl(#[source] RedisError),
    /// Redis did not answer. The command may have taken effect.
    #[error("Redis is unavailable: {0}")]
    Unavailable(#[source] Outage),
    /// Redis answers, but its data has not been rebuilt from PostgreSQL. An empty answer would mean nothing.
    #[error("Redis is cold: it has not been rebuilt from PostgreSQL yet")]
    Cold,
}

/// How a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Outage {
    /// The call was not made, because Redis failed shortly before.
    #[error("not tried again yet, after: {0}")]
    BreakerOpen(String),
    /// Redis did not answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The connection could not be made.
    #[error("cannot connect: {0}")]
    Connect(#[source] RedisError),
    /// The connection broke, or Redis refused the command.
    #[error("{0}")]
    Redis(#[source] RedisError),
    /// The answer has a shape that Redis never sends.
    #[error("unexpected answer to {0}")]
    Unexpected(&'static str),
    /// The task that connects ended early: its runtime ended or it panicked.
    #[error("the task that connects has ended")]
    Ended,
}

/// What an outage means for the connection and the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// Redis refused one command. The connection still works.
    Refusal,
    /// The connection is lost. The next call opens a new one.
    Lost,
    /// Redis is unavailable. The breaker opens.
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
                // The server was demoted or is starting. A new connection may reach the right server.
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
