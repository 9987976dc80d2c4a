//! Parses the times that devices, shops and operators send.
//!
//! - Every input (frames, webhooks, REST, command line) uses [`parse_moment`], so one text gives the same time everywhere.
//! - The function accepts every spelling of RFC 3339, and the offset without a colon that some platforms write.
//! - No text makes the function panic.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};

/// Parses an RFC 3339 time and returns it in UTC.
///
/// - `T` and `Z` may be lower case. A space may replace `T`.
/// - A fraction may have any number of digits. Digits beyond nanoseconds are cut.
/// - The offset may lack its colon (`+0000`).
/// - A leap second becomes the first second of the next minute, as in POSIX and PostgreSQL.
///
/// The offset may move the year of the result outside 0…9999: see [`is_storable`].
pub fn parse_moment(text: &str) -> Option<DateTime<Utc>> {
    let bytes = text.as_bytes();
    let (date, time) = (bytes.get(..10)?, bytes.get(11..19)?);
    if date[4] != b'-' || date[7] != b'-' || !b"Tt ".contains(&bytes[10]) || time[2] != b':' || time[5] != b':' {
        return None;
    }
    let day =
        NaiveDate::from_ymd_opt(i32::try_from(digits(&date[..4])?).ok()?, digits(&date[5..7])?, digits(&date[8..])?)?;
    let (hour, minute, second) = (digits(&time[..2])?, digits(&time[3..5])?, digits(&time[6..])?);
    let is_leap = second == 60;
    let (nanos, zone) = fraction(&bytes[19..])?;
    let local = day.and_hms_nano_opt(hour, minute, if is_leap { 59 } else { second }, nanos)?;
    let leap = TimeDelta::seconds(i64::from(is_leap));
    let utc = local.checked_add_signed(leap)?.checked_sub_signed(offset(zone)?)?;
    Some(utc.and_utc())
}

/// Whether a time can be stored and printed as RFC 3339: its year in UTC has four digits.
pub fn is_storable(moment: DateTime<Utc>) -> bool {
    (0..=9999).contains(&moment.year())
}

/// Parses ASCII digits as a number. Returns `None` if there is any other byte. The caller passes at most nine digits.
fn digits(bytes: &[u8]) -> Option<u32> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    bytes.iter().try_fold(0, |number, byte| Some(number * 10 + digit(byte)?))
}

/// Parses an optional fraction. Returns its nanoseconds and the bytes after it.
fn fraction(rest: &[u8]) -> Option<(u32, &[u8])> {
    let Some(rest) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (all, zone) = rest.split_at(count);
    let kept = &all[..count.min(9)];
    let missing = u32::try_from(9 - kept.len()).ok()?;
    (count > 0).then_some(())?;
    Some((digits(kept)? * 10_u32.pow(missing), zone))
}

/// Parses an offset: how far local time is ahead of UTC.
fn offset(zone: &[u8]) -> Option<TimeDelta> {
    let (sign, hours, minutes) = match zone {
        b"Z" | b"z" => return Some(TimeDelta::zero()),
        [sign, hours @ .., b':', m1, m2] if hours.len() == 2 => (sign, hours, [*m1, *m2]),
        [sign, h @ .., m1, m2] if h.len() == 2 => (sign, h, [*m1, *m2]),
        _ => return None,
    };
    let (hours, minutes) = (digits(hours)?, digits(&minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let ahead = TimeDelta::minutes(i64::from(hours * 60 + minutes));
    match sign {
        b'+' => Some(ahead),
        b'-' => Some(-ahead),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::SecondsFormat;
    use proptest::prelude::*;

    fn printed(text: &str) -> Option<String> {
        parse_moment(text).map(|moment| moment.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }

    #[test]
    fn every_spelling_of_one_moment_reads_alike() {
        for text in [
            "2026-01-27T10:00:00Z",
            "2026-01-27t10:00:00z",
            "2026-01-27 10:00:00Z",
            "2026-01-27T10:00:00.000000000000Z",
            "2026-01-27T10:00:00+00:00",
            "2026-01-27T10:00:00-00:00",
            "2026-01-27T10:00:00+0000",
            "2026-01-27T10:00:00-0000",
            "2026-01-27T15:30:00+0530",
            "2026-01-27T15:30:00.0+05:30",
            "2026-01-26T23:00:00-11:00",
            "2026-01-27T09:59:60Z",
        ] {
            assert_eq!(printed(text).as_deref(), Some("2026-01-27T10:00:00Z"), "{text}");
        }
    }

    #[test]
    fn leap_seconds_and_long_fractions_are_read() {
        assert_eq!(printed("2016-12-31T23:59:60Z").as_deref(), Some("2017-01-01T00:00:00Z"));
        assert_eq!(printed("2016-12-31T15:59:60.25-08:00").as_deref(), Some("2017-01-01T00:00:00.250Z"));
        assert_eq!(printed("2026-01-27T10:00:00.1234567899999Z").as_deref(), Some("2026-01-27T10:00:00.123456789Z"));
        assert_eq!(printed("1970-01-01T00:00:00+05:30").as_deref(), Some("1969-12-31T18:30:00Z"));
    }

    #[test]
    fn a_moment_that_cannot_be_printed_again_is_not_storable() {
        let storable = |text| is_storable(parse_moment(text).expect(text));
        assert!(storable("0000-01-01T00:00:00Z") && storable("9999-12-31T23:59:59Z"));
        assert!(!storable("9999-12-31T23:59:59-00:01") && !storable("0000-01-01T00:00:00+00:01"));
        assert!(!storable("9999-12-31T23:59:60Z"));
    }

    #[test]
    fn what_is_no_rfc_3339_is_refused() {
        for text in [
            "",
            "noon",
            "2026-01-27",
            "2026-01-27T10:00:00",
            "2026-01-27T10:00Z",
            "2026-01-27T10:00:00.Z",
            "2026-01-27T10:00:00,5Z",
            "2026-01-27T10:00:00+00",
            "2026-01-27T10:00:00+24:00",
            "2026-01-27T10:00:00+00:60",
            "2026-01-27T10:00:00 +0000",
            "2026-01-27T24:00:00Z",
            "2026-01-27T10:00:61Z",
            "2026-02-29T10:00:00Z",
            "2026-1-27T10:00:00Z",
            "+2026-01-27T10:00:00Z",
            "2026-01-27_10:00:00Z",
            "2026-01-27T10:00:00Z ",
            "２026-01-27T10:00:00Z",
            "1769508000",
        ] {
            assert_eq!(parse_moment(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}", near in "[0-9TtZz :.+-]{15,40}") {
            let _ = (parse_moment(&text), parse_moment(&near));
        }

        #[test]
        fn what_another_parser_reads_is_read_alike(
            seconds in -62_167_219_200i64..253_402_300_799, nanos in 0u32..1_000_000_000, minutes in -1439i32..1440,
        ) {
            let zone = chrono::FixedOffset::east_opt(minutes * 60).unwrap();
            let text = DateTime::from_timestamp(seconds, nanos).unwrap().with_timezone(&zone).to_rfc3339();
            let expected = DateTime::parse_from_rfc3339(&text).ok().map(|moment| moment.with_timezone(&Utc));
            prop_assume!(expected.is_some());
            prop_assert_eq!(parse_moment(&text), expected, "{}", text);
        }
    }
}
