//! A circuit breaker: after a failure no caller waits for Redis until one probe has shown that Redis answers again.
//!
//! Invariants:
//! - The states are: closed → open for a fixed time → half open (one probe) → closed or open.
//! - A permit that is dropped without a result releases the probe. A cancelled caller can therefore never leave the breaker
//!   half open for ever.
//!
//! Must not: call Redis.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The circuit breaker of one link to Redis.
#[derive(Debug)]
pub(super) struct Breaker {
    open_for: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// Counts changes of state. The result of a permit from an earlier state is ignored.
    turn: u64,
    last_failure: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// A permit to make one call. Its result is recorded by [`Permit::succeed`], [`Permit::fail`] or
/// [`Permit::lose`].
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    turn: u64,
}

impl Breaker {
    pub(super) fn new(open_for: Duration) -> Self {
        let inner = Inner { state: State::Closed, turn: 0, last_failure: String::new() };
        Self { open_for, inner: Mutex::new(inner) }
    }

    /// Returns a permit to call, or the error of the last failure while the breaker is open.
    pub(super) fn admit(&self, now: Instant) -> Result<Permit<'_>, String> {
        let mut inner = self.lock();
        match inner.state {
            State::Closed => {}
            State::Open { until } if now >= until => inner.enter(State::HalfOpen),
            State::Open { .. } | State::HalfOpen => return Err(inner.last_failure.clone()),
        }
        Ok(Permit { breaker: self, turn: inner.turn })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn enter(&mut self, state: State) {
        self.state = state;
        self.turn += 1;
        let level = match state {
            State::Closed => 0.0,
            State::HalfOpen => 1.0,
            State::Open { .. } => 2.0,
        };
        metrics::gauge!("driver_tracker_redis_breaker_state").set(level);
    }
}

impl Permit<'_> {
    /// Records that Redis answered.
    pub(super) fn succeed(self) {
        let mut inner = self.breaker.lock();
        if inner.turn == self.turn && inner.state == State::HalfOpen {
            inner.enter(State::Closed);
            tracing::info!("Redis answers again");
        }
    }

    /// Records that Redis did not answer, or that another server answered in its place.
    pub(super) fn fail(self, now: Instant, why: String) {
        let mut inner = self.breaker.lock();
        if inner.turn != self.turn {
            return;
        }
        match inner.state {
            State::Closed => tracing::warn!(error = %why, "Redis is out; working from PostgreSQL"),
            _ => tracing::debug!(error = %why, "Redis is still out"),
        }
        inner.last_failure = why;
        inner.enter(State::Open { until: now + self.breaker.open_for });
    }

    /// Records that a connection was lost. It may only have been idle, so this is a failure only for the probe.
    pub(super) fn lose(self, now: Instant, why: String) {
        let probing = self.breaker.lock().state == State::HalfOpen;
        if probing {
            self.fail(now, why);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut inner = self.breaker.lock();
        if inner.turn == self.turn && inner.state == State::HalfOpen {
            inner.enter(State::Open { until: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_millis(500);

    fn opened(at: Instant) -> Breaker {
        let breaker = Breaker::new(OPEN_FOR);
        breaker.admit(at).unwrap().fail(at, "refused".to_owned());
        breaker
    }

    #[test]
    fn opens_at_a_failure_probes_once_and_closes() {
        let start = Instant::now();
        let breaker = opened(start);
        assert_eq!(breaker.admit(start).unwrap_err(), "refused");
        let later = start + OPEN_FOR;
        let probe = breaker.admit(later).unwrap();
        assert!(breaker.admit(later).is_err(), "one probe at a time");
        probe.succeed();
        assert!(breaker.admit(later).is_ok());
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let start = Instant::now();
        let breaker = opened(start);
        breaker.admit(start + OPEN_FOR).unwrap().fail(start + OPEN_FOR, "hangs".to_owned());
        assert_eq!(breaker.admit(start + OPEN_FOR).unwrap_err(), "hangs");
        assert!(breaker.admit(start + 2 * OPEN_FOR).is_ok());
    }

    #[test]
    fn a_probe_that_went_away_is_given_to_the_next() {
        let start = Instant::now();
        let breaker = opened(start);
        drop(breaker.admit(start + OPEN_FOR).unwrap());
        assert!(breaker.admit(Instant::now() + OPEN_FOR).is_ok());
    }

    #[test]
    fn late_news_of_an_earlier_turn_counts_for_nothing() {
        let start = Instant::now();
        let breaker = Breaker::new(OPEN_FOR);
        let (slow, slower) = (breaker.admit(start).unwrap(), breaker.admit(start).unwrap());
        breaker.admit(start).unwrap().fail(start, "refused".to_owned());
        slow.succeed();
        assert!(breaker.admit(start).is_err());
        breaker.admit(start + OPEN_FOR).unwrap().succeed();
        slower.fail(start, "old".to_owned());
        assert!(breaker.admit(start).is_ok());
    }
}
