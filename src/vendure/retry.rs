//! When an event that was not taken is posted again. Pure: the caller brings the clock and the randomness.

use std::str::FromStr;
use std::time::Duration;

/// The most entries that a schedule may have.
pub const MAX_ENTRIES: usize = 50;

/// The longest delay that an entry may have: 30 days.
const MAX_DELAY: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The share by which a delay may grow or shrink, so that what failed together does not come back together.
const JITTER: f64 = 0.2;

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryScheduleError {
    /// None, or too many.
    #[error(
        "a retry schedule has 1 to {MAX_ENTRIES} entries separated by commas, such as 0s,5s,5m,2h; this one has {0}"
    )]
    Count(usize),
    /// An entry that cannot be read.
    #[error("\"{0}\" in the retry schedule is not a delay: write a whole number and ms, s, m or h, such as 30m")]
    Entry(String),
    /// An entry without end.
    #[error("\"{0}\" in the retry schedule is too long: a delay is at most 720h")]
    TooLong(String),
}

/// The delays before each try of an event; the first entry is the delay of the first try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetrySchedule {
    delays: Vec<Duration>,
}

impl RetrySchedule {
    /// What is used when nothing is configured; about three days in all.
    pub const DEFAULT: &'static str = "0s,5s,5m,30m,2h,5h,10h,14h,20h,24h";

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

    /// How many tries an event has in all.
    pub fn tries(&self) -> usize {
        self.delays.len()
    }
}

/// `delay` between 80 and 120 percent, by a `random` in [0, 1).
pub fn jittered(delay: Duration, random: f64) -> Duration {
    let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.5 };
    delay.mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
}

impl FromStr for RetrySchedule {
    type Err = RetryScheduleError;

    fn from_str(text: &str) -> Result<Self, RetryScheduleError> {
        let text = text.trim();
        let count = if text.is_empty() { 0 } else { text.split(',').count() };
        if count == 0 || count > MAX_ENTRIES {
            return Err(RetryScheduleError::Count(count));
        }
        let delays = text.split(',').map(|entry| parse_delay(entry.trim())).collect::<Result<_, _>>()?;
        Ok(Self { delays })
    }
}

fn parse_delay(entry: &str) -> Result<Duration, RetryScheduleError> {
    let not_a_delay = || RetryScheduleError::Entry(entry.chars().take(40).collect());
    let digits = entry.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = entry.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(not_a_delay()),
    };
    if number.is_empty() {
        return Err(not_a_delay());
    }
    let delay = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).map(Duration::from_millis);
    delay
        .filter(|delay| *delay <= MAX_DELAY)
        .ok_or_else(|| RetryScheduleError::TooLong(entry.chars().take(40).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_entry_delays_the_first_try_and_nothing_follows_the_last() {
        let schedule: RetrySchedule = RetrySchedule::DEFAULT.parse().unwrap();
        assert_eq!(schedule.tries(), 10);
        assert_eq!(schedule.delay_before_try(0), None);
        assert_eq!(schedule.delay_before_try(1), Some(Duration::ZERO));
        assert_eq!(schedule.delay_before_try(3), Some(Duration::from_secs(300)));
        assert_eq!(schedule.delay_before_try(10), Some(Duration::from_secs(86_400)));
        assert_eq!(schedule.delay_before_try(11), None);
        assert_eq!(
            " 250ms , 1s".parse::<RetrySchedule>().unwrap().delay_before_try(1),
            Some(Duration::from_millis(250))
        );
    }

    #[test]
    fn refuses_with_a_sentence() {
        let refusal = |text: &str| text.parse::<RetrySchedule>().unwrap_err();
        assert_eq!(refusal(""), RetryScheduleError::Count(0));
        assert_eq!(refusal(&vec!["1s"; 51].join(",")), RetryScheduleError::Count(51));
        assert!(vec!["1s"; 50].join(",").parse::<RetrySchedule>().is_ok());
        for bad in ["5", "s", "-1s", "1.5s", "1d", "1 s", "5s,,5s", "1S", "+1s", "é"] {
            assert!(matches!(refusal(bad), RetryScheduleError::Entry(_)), "{bad}");
        }
        for long in ["721h", "99999999999999999999h", "18446744073709551615h"] {
            assert!(matches!(refusal(long), RetryScheduleError::TooLong(_)), "{long}");
        }
        assert_eq!(
            refusal("0s,five").to_string(),
            "\"five\" in the retry schedule is not a delay: write a whole number and ms, s, m or h, such as 30m"
        );
    }

    #[test]
    fn retry_after_only_delays() {
        let schedule: RetrySchedule = "10s".parse().unwrap();
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
