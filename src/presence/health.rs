//! Reports for `/health` whether Redis answers and is warm.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{Outage, Presence, PresenceError};

/// The timeout of [`Presence::health`].
const HEALTH_TIMEOUT: Duration = Duration::from_millis(500);

/// Whether Redis answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedisState {
    /// Redis answers.
    Up,
    /// Redis does not answer.
    Down,
}

/// What `/health` reports about Redis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RedisHealth {
    /// Whether Redis answers.
    pub state: RedisState,
    /// Whether its data can be trusted.
    pub warm: bool,
    /// How long the answer took, in ms. `None` without an answer.
    pub latency_ms: Option<f64>,
}

impl Presence {
    /// Asks Redis, for 500 ms at most, whether it is a node of a Redis Cluster; `false` when it does not answer.
    pub async fn is_cluster(&self) -> bool {
        let _ = timeout(HEALTH_TIMEOUT, self.inner.check_warm("health")).await;
        self.inner.link.is_cluster()
    }

    /// Asks Redis, for 500 ms at most.
    pub async fn health(&self) -> RedisHealth {
        let started = Instant::now();
        let answer = timeout(HEALTH_TIMEOUT, self.inner.check_warm("health"))
            .await
            .unwrap_or_else(|_| Err(Outage::TimedOut(HEALTH_TIMEOUT).into()));
        let latency_ms = Some(started.elapsed().as_secs_f64() * 1_000.0);
        match answer {
            Ok(()) => RedisHealth { state: RedisState::Up, warm: true, latency_ms },
            Err(PresenceError::Cold) => RedisHealth { state: RedisState::Up, warm: false, latency_ms },
            Err(error) => {
                tracing::debug!(error = %error, "Redis did not answer a health probe");
                RedisHealth { state: RedisState::Down, warm: false, latency_ms: None }
            }
        }
    }
}
