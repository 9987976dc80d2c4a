//! When an event that was not taken is posted again. Pure: the caller brings the clock and the randomness.

use std::time::Duration;

/// The share by which a delay may grow or shrink, so that what failed together does not come back together.
const JITTER: f64 = 0.2;

/// The delays before each try of an event; the first entry is the delay of the first try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetrySchedule {
    delays: Vec<Duration>,
}

impl RetrySchedule {
    /// From delays that the configuration has checked.
    pub fn new(delays: Vec<Duration>) -> Self {
        Self { delays }
    }

    /// The delay before try `number` (1 is the first try), without jitter. `None` after the last: the event is dead.
    pub fn delay_before_try(&self, number: u32) -> Option<Duration> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.delays.get(index).copied()
    }

    /// The same with jitter, and never sooner than the receiver asked for by `Retry-After`. `random` lies in [0, 1).
    pub fn next_delay(&self, number: u32, retry_after: Option<Duration>, random: f64) -> Option<Duration> {
        let delay = jittered(self.delay_before_try(number)?, random);
        Some(delay.max(retry_after.unwrap_or_default()))
    }
}

/// `delay` between 80 and 120 percent, by a `random` in [0, 1).
pub fn jittered(delay: Duration, random: f64) -> Duration {
    let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.5 };
    delay.mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(delays: &[u64]) -> RetrySchedule {
        RetrySchedule::new(delays.iter().map(|s| Duration::from_secs(*s)).collect())
    }

    #[test]
    fn the_first_entry_delays_the_first_try_and_nothing_follows_the_last() {
        let schedule = seconds(&[0, 5, 300]);
        assert_eq!(schedule.delay_before_try(0), None);
        assert_eq!(schedule.delay_before_try(1), Some(Duration::ZERO));
        assert_eq!(schedule.delay_before_try(3), Some(Duration::from_secs(300)));
        assert_eq!(schedule.delay_before_try(4), None);
    }

    #[test]
    fn retry_after_only_delays() {
        let schedule = seconds(&[10]);
        assert_eq!(schedule.next_delay(1, Some(Duration::from_secs(60)), 0.0), Some(Duration::from_secs(60)));
        assert_eq!(schedule.next_delay(1, Some(Duration::from_secs(1)), 0.5), Some(Duration::from_secs(10)));
        assert_eq!(schedule.next_delay(2, Some(Duration::from_secs(1)), 0.5), None);
    }

    proptest! {
        #[test]
        fn jitter_stays_within_a_fifth(ms in 0u64..2_592_000_000, random in 0.0f64..1.0) {
            let jittered = jittered(Duration::from_millis(ms), random).as_secs_f64() * 1000.0;
            let ms = ms as f64;
            prop_assert!(jittered >= ms * 0.8 - 0.01 && jittered <= ms * 1.2 + 0.01);
        }
    }
}
