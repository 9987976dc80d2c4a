//! The breaker: after a failure nobody waits for Redis until one probe has shown that it answers again.
//!
//! Closed → open for a fixed time → half open (one probe) → closed or open. A permit whose holder went away without a
//! word gives the probe back, so that a cancelled caller can never leave the breaker shut for ever.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub(super) struct Breaker {
    open_for: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// Counts changes of state: what a permit of an earlier turn reports says nothing about this one.
    turn: u64,
    last_failure: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// The permit to make one call, to be ended by [`Permit::succeed`] or [`Permit::fail`].
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

    /// Leave to call, or what last went wrong.
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
    /// Redis answered.
    pub(super) fn succeed(self) {
        let mut inner = self.breaker.lock();
        if inner.turn == self.turn && inner.state == State::HalfOpen {
            inner.enter(State::Closed);
            tracing::info!("Redis answers again");
        }
    }

    /// Redis did not answer, or not as itself.
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

    /// A connection was lost that may only have been idle: no failure unless this was the probe.
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
