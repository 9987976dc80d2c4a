//! Decides which fixes of a driver's device are plausible.
//!
//! - [`judge_alone`] checks a fix by its own values. [`JumpFilter`] compares it with the fixes before it.
//! - A refused fix still proves that the driver is alive.
//! - The rules are pure functions. The caller passes the server's time.
//!
//! Source of the rules: the filters that Traccar applies to positions (future, zero, accuracy, speed).

use chrono::{DateTime, TimeDelta, Utc};

use super::moment::is_storable;
use super::position::Fix;

/// A movement shorter than this, in metres, is never too fast.
const ALWAYS_NEAR_M: f64 = 50.0;
/// This many refused fixes in a row override the speed rule, because then the believed fix was wrong. They must agree with each
/// other. Each must be newer than the one before it, and all must be newer than the believed fix.
const OVERRIDE_AFTER: usize = 3;

/// The largest age of a fix that is accepted.
pub const MAX_FIX_AGE: TimeDelta = TimeDelta::days(7);

/// The limits that a fix must meet by itself. The default equals the default of the settings (`docs/configuration.md`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FixRules {
    /// A fix that is further in the future than this is refused. `None` means no limit.
    pub max_future: Option<TimeDelta>,
    /// A fix that is older than this is refused. The age is counted in whole seconds. A receiver that lost its week count is
    /// off by 19.7 years.
    pub max_age: TimeDelta,
    /// A fix that is less accurate than this, in metres, is refused. `None` means no limit.
    pub max_inaccuracy_m: Option<f64>,
    /// Whether a fix at 0/0 is refused.
    pub refuse_zero: bool,
}

impl Default for FixRules {
    fn default() -> Self {
        Self {
            max_future: Some(TimeDelta::seconds(30)),
            max_age: MAX_FIX_AGE,
            max_inaccuracy_m: Some(200.0),
            refuse_zero: true,
        }
    }
}

/// Why a fix is refused. The driver still counts as alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixRefusal {
    /// A stable code, listed in `docs/protocol.md`.
    pub code: &'static str,
    /// The reason in words.
    pub message: String,
}

fn refuse(code: &'static str, message: impl Into<String>) -> Result<(), FixRefusal> {
    Err(FixRefusal { code, message: message.into() })
}

/// Checks a fix by its own values: not in the future, not too old, not at 0/0, and of a valid and sufficient accuracy.
pub fn judge_alone(fix: &Fix, accuracy_m: Option<f64>, now: DateTime<Utc>, rules: &FixRules) -> Result<(), FixRefusal> {
    if let Some(ahead) = rules.max_future.filter(|ahead| fix.time - now > *ahead) {
        let ahead_ms = ahead.num_milliseconds();
        return refuse("fix_in_future", format!("fixTime is more than {ahead_ms} ms ahead of serverTime"));
    }
    let max_age_s = rules.max_age.num_seconds();
    if (now - fix.time).num_seconds() > max_age_s {
        return refuse("fix_too_old", format!("fixTime is more than {max_age_s} s behind serverTime"));
    }
    // A time that cannot be stored must not reach a table, also when `max_future` sets no limit.
    if !is_storable(fix.time) {
        return refuse("fix_in_future", "fixTime lies after the year 9999");
    }
    if rules.refuse_zero && fix.position.lat() == 0.0 && fix.position.lon() == 0.0 {
        return refuse("fix_at_zero", "a fix at 0/0 is no fix");
    }
    // iOS reports a negative accuracy when the position is invalid.
    if accuracy_m.is_some_and(|metres| metres < 0.0) {
        return refuse("fix_inaccurate", "a negative accuracyM says that the position is invalid");
    }
    if let Some(worst_m) = rules.max_inaccuracy_m.filter(|worst_m| accuracy_m.is_some_and(|metres| metres > *worst_m)) {
        return refuse("fix_inaccurate", format!("accuracyM is worse than {worst_m} m"));
    }
    Ok(())
}

/// Compares each fix of one driver with the fixes before it, within one session.
///
/// A fix is believed if the driver can have moved there from the last believed fix.
#[derive(Debug, Clone)]
pub struct JumpFilter {
    /// A fix that needs a higher speed than this, in kilometres an hour, is refused. 0 means no limit.
    max_speed_kmh: f64,
    /// The newest believed fix.
    believed: Option<Fix>,
    /// Refused fixes that agree with each other, oldest first.
    refused: Vec<Fix>,
}

impl JumpFilter {
    /// Creates a filter that starts with the last believed fix, if any.
    pub fn new(max_speed_kmh: f64, believed: Option<Fix>) -> Self {
        Self { max_speed_kmh, believed, refused: Vec::new() }
    }

    /// Adds the refused fixes of the driver's previous filter.
    pub fn with_refused(self, refused: Vec<Fix>) -> Self {
        Self { refused, ..self }
    }

    /// Returns the refused fixes that agree with each other, for the driver's next filter.
    pub fn into_refused(self) -> Vec<Fix> {
        self.refused
    }

    /// The newest believed fix.
    pub fn believed(&self) -> Option<Fix> {
        self.believed
    }

    /// Checks a fix. A fix that is believed and newer becomes the one that later fixes are compared with.
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
        // A repeated fix, or one that is older than a known fix, does not count towards an override.
        let is_news = fix.time > last.time && self.refused.last().is_none_or(|before| fix.time > before.time);
        if is_news {
            if !self.refused.last().is_none_or(|before| self.is_possible(before, &fix)) {
                self.refused.clear();
            }
            self.refused.push(fix);
        }
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
    fn each_rule_refuses_by_its_own_measure_and_can_be_off() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(1000);
        let zero = Fix { position: Position::new(0.0, 0.0).unwrap(), time: now };
        let code =
            |fix: &Fix, accuracy_m, rules: &FixRules| judge_alone(fix, accuracy_m, now, rules).err().map(|e| e.code);
        let strict = FixRules::default();
        assert_eq!(code(&fix(1.0, 1030), Some(200.0), &strict), None, "exactly the limits");
        assert_eq!(code(&fix(1.0, 1031), None, &strict), Some("fix_in_future"));
        assert_eq!(code(&zero, None, &strict), Some("fix_at_zero"));
        assert_eq!(code(&fix(1.0, 1000), Some(200.5), &strict), Some("fix_inaccurate"));
        let narrow = FixRules { max_future: Some(TimeDelta::seconds(5)), max_inaccuracy_m: Some(20.0), ..strict };
        assert_eq!(code(&fix(1.0, 1006), None, &narrow), Some("fix_in_future"));
        assert_eq!(code(&fix(1.0, 1000), Some(21.0), &narrow), Some("fix_inaccurate"));
        let off = FixRules { max_future: None, max_inaccuracy_m: None, refuse_zero: false, ..strict };
        assert_eq!(code(&fix(1.0, 9_000_000), Some(1e9), &off), None);
        assert_eq!(code(&zero, Some(1e9), &off), None);
    }

    #[test]
    fn a_fix_of_another_week_is_too_old() {
        let now: DateTime<Utc> = "2026-01-27T10:00:00Z".parse().unwrap();
        let code = |time: DateTime<Utc>| {
            let fix = Fix { position: Position::new(1.0, 1.0).unwrap(), time };
            judge_alone(&fix, None, now, &FixRules::default()).err().map(|refusal| refusal.code)
        };
        assert_eq!(code(now - TimeDelta::days(7)), None, "exactly seven days");
        for age in [TimeDelta::days(7) + TimeDelta::seconds(1), TimeDelta::days(8), TimeDelta::weeks(1024)] {
            assert_eq!(code(now - age), Some("fix_too_old"), "{age}");
        }
        assert_eq!(code(DateTime::UNIX_EPOCH), Some("fix_too_old"));
        assert_eq!(code(DateTime::UNIX_EPOCH - TimeDelta::days(700_000)), Some("fix_too_old"));
        let endless = FixRules { max_future: None, ..FixRules::default() };
        let beyond = Fix { position: Position::new(1.0, 1.0).unwrap(), time: now + TimeDelta::days(3_000_000) };
        assert_eq!(judge_alone(&beyond, None, now, &endless).unwrap_err().code, "fix_in_future");
    }

    #[test]
    fn a_negative_accuracy_says_that_the_position_is_invalid() {
        let now = DateTime::UNIX_EPOCH;
        let off = FixRules { max_inaccuracy_m: None, ..FixRules::default() };
        for rules in [FixRules::default(), off] {
            for accuracy_m in [-1.0, -0.001, -2_147_473.0] {
                let code = judge_alone(&fix(1.0, 0), Some(accuracy_m), now, &rules).unwrap_err().code;
                assert_eq!(code, "fix_inaccurate", "{accuracy_m}");
            }
            for accuracy_m in [0.0, -0.0, 5.0] {
                assert_eq!(judge_alone(&fix(1.0, 0), Some(accuracy_m), now, &rules), Ok(()), "{accuracy_m}");
            }
        }
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
    fn a_jump_that_is_sent_again_or_is_older_than_what_is_believed_overrides_nothing() {
        let mut filter = JumpFilter::new(200.0, Some(fix(12.0, 100)));
        for at in [105, 105, 105, 105, 80, 81, 82, 83, 106, 105, 106] {
            assert!(filter.judge(fix(13.0, at)).is_err(), "{at}");
        }
        assert_eq!(filter.believed(), Some(fix(12.0, 100)));
        assert_eq!(filter.judge(fix(13.0, 107)), Ok(()), "the third that is news");
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
