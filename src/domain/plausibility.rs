//! Which fixes of a driver's device are believed. Pure: the caller brings the server's time.
//!
//! Source of the rules: the filters that Traccar applies to positions (future, zero, accuracy, speed).

use chrono::{DateTime, TimeDelta, Utc};

use super::position::Fix;

/// A fix further in the future than this is refused.
const MAX_FUTURE: TimeDelta = TimeDelta::seconds(30);
/// A fix less accurate than this, in metres, is refused.
const MAX_INACCURACY_M: f64 = 200.0;
/// A move of less than this, in metres, is never too fast.
const ALWAYS_NEAR_M: f64 = 50.0;
/// So many fixes in a row that agree with each other override the speed rule: the believed one was the wrong one.
const OVERRIDE_AFTER: usize = 3;

/// A fix that is not believed; the driver is alive all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixRefusal {
    /// A stable code of the contract.
    pub code: &'static str,
    /// In words.
    pub message: String,
}

fn refuse(code: &'static str, message: impl Into<String>) -> Result<(), FixRefusal> {
    Err(FixRefusal { code, message: message.into() })
}

/// Judges a fix by itself: not in the future, not at 0/0, accurate enough.
pub fn judge_alone(fix: &Fix, accuracy_m: Option<f64>, now: DateTime<Utc>) -> Result<(), FixRefusal> {
    if fix.time > now + MAX_FUTURE {
        return refuse("fix_in_future", "fixTime is more than 30 s ahead of serverTime");
    }
    if fix.position.lat() == 0.0 && fix.position.lon() == 0.0 {
        return refuse("fix_at_zero", "a fix at 0/0 is no fix");
    }
    if accuracy_m.is_some_and(|metres| metres > MAX_INACCURACY_M) {
        return refuse("fix_inaccurate", "accuracyM is worse than 200 m");
    }
    Ok(())
}

/// Judges fixes by those before them: one driver's, within one session.
#[derive(Debug, Clone)]
pub struct JumpFilter {
    /// Faster than this, in kilometres an hour, is refused; 0: nothing is.
    max_speed_kmh: f64,
    believed: Option<Fix>,
    /// Refused fixes that agree with each other, oldest first.
    refused: Vec<Fix>,
}

impl JumpFilter {
    /// Begins with the last fix that was believed, if any.
    pub fn new(max_speed_kmh: f64, believed: Option<Fix>) -> Self {
        Self { max_speed_kmh, believed, refused: Vec::new() }
    }

    /// The newest fix that is believed.
    pub fn believed(&self) -> Option<Fix> {
        self.believed
    }

    /// Judges a fix and, if it is believed and newer, makes it the one to judge by.
    pub fn judge(&mut self, fix: Fix) -> Result<(), FixRefusal> {
        let Some(last) = self.believed else {
            self.believe(fix);
            return Ok(());
        };
        if self.is_possible(&last, &fix) {
            if fix.time >= last.time {
                self.believe(fix);
            }
            return Ok(());
        }
        let agrees = self.refused.last().is_none_or(|before| self.is_possible(before, &fix));
        if !agrees {
            self.refused.clear();
        }
        self.refused.push(fix);
        if self.refused.len() >= OVERRIDE_AFTER {
            self.believe(fix);
            return Ok(());
        }
        refuse("fix_too_fast", format!("faster than {} km/h from the last fix", self.max_speed_kmh))
    }

    fn believe(&mut self, fix: Fix) {
        self.refused.clear();
        self.believed = Some(fix);
    }

    fn is_possible(&self, from: &Fix, to: &Fix) -> bool {
        let distance_m = from.position.distance_m(&to.position);
        if self.max_speed_kmh == 0.0 || distance_m < ALWAYS_NEAR_M {
            return true;
        }
        let seconds = (to.time - from.time).num_milliseconds().unsigned_abs() as f64 / 1000.0;
        distance_m <= seconds * self.max_speed_kmh / 3.6
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Position;
    use proptest::prelude::*;

    fn fix(lat: f64, seconds: i64) -> Fix {
        let time = DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        Fix { position: Position::new(lat, 77.0).unwrap(), time }
    }

    #[test]
    fn a_jump_is_refused_and_three_that_agree_override_it() {
        let mut filter = JumpFilter::new(200.0, Some(fix(12.0, 0)));
        assert_eq!(filter.judge(fix(12.0004, 0)), Ok(()), "less than 50 m is never too fast");
        assert_eq!(filter.judge(fix(13.0, 5)).unwrap_err().code, "fix_too_fast");
        assert_eq!(filter.judge(fix(12.0008, 6)), Ok(()));
        assert_eq!(filter.judge(fix(13.0, 7)).unwrap_err().code, "fix_too_fast");
        assert_eq!(filter.judge(fix(13.0001, 8)).unwrap_err().code, "fix_too_fast");
        assert_eq!(filter.judge(fix(13.0002, 9)), Ok(()));
        assert_eq!(filter.believed(), Some(fix(13.0002, 9)));
    }

    #[test]
    fn jumps_that_do_not_agree_override_nothing() {
        let mut filter = JumpFilter::new(200.0, Some(fix(12.0, 0)));
        for (lat, at) in [(13.0, 5), (14.0, 6), (15.0, 7), (16.0, 8), (17.0, 9)] {
            assert!(filter.judge(fix(lat, at)).is_err());
        }
        assert_eq!(filter.believed(), Some(fix(12.0, 0)));
    }

    #[test]
    fn an_old_fix_is_no_news() {
        let mut filter = JumpFilter::new(200.0, Some(fix(12.0, 100)));
        assert_eq!(filter.judge(fix(12.001, 50)), Ok(()));
        assert_eq!(filter.believed(), Some(fix(12.0, 100)));
    }

    proptest! {
        #[test]
        fn without_a_limit_nothing_is_too_fast(lats in prop::collection::vec(-80.0f64..80.0, 1..30)) {
            let mut filter = JumpFilter::new(0.0, None);
            for (n, lat) in lats.iter().enumerate() {
                prop_assert!(filter.judge(fix(*lat, n as i64)).is_ok());
            }
        }
    }
}
