//! Encodes and decodes the text of an online key.
//!
//! Invariants: the text is `lat,lon,fix_ms,received_ms,session_epoch`. The first three are empty while no position is known.
//! `scripts/common.lua` reads the same text, and both must change together.

use chrono::{DateTime, Utc};

use crate::domain::position::{Fix, Position};

/// The value of an online key: what Redis knows about an online driver.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OnlineValue {
    /// The driver's last fix. `None` while the driver is online without a known position.
    pub fix: Option<Fix>,
    /// When the last heartbeat reached a node, by that node's clock.
    pub received_at: DateTime<Utc>,
    /// The epoch of the session that sent the heartbeat.
    pub session_epoch: i64,
}

impl OnlineValue {
    pub(super) fn encode(&self) -> String {
        let (received_ms, epoch) = (self.received_at.timestamp_millis(), self.session_epoch);
        match self.fix {
            Some(Fix { position, time }) => {
                let fix_ms = time.timestamp_millis();
                format!("{},{},{fix_ms},{received_ms},{epoch}", position.lat(), position.lon())
            }
            None => format!(",,,{received_ms},{epoch}"),
        }
    }

    /// Returns `None` for a text that this service did not write, or that another version wrote in another form.
    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split(',');
        let mut next = || parts.next();
        let (lat, lon, fix_ms, received_ms, epoch) = (next()?, next()?, next()?, next()?, next()?);
        if parts.next().is_some() {
            return None;
        }
        let fix = match (lat, lon, fix_ms) {
            ("", "", "") => None,
            _ => Some(Fix {
                position: Position::new(lat.parse().ok()?, lon.parse().ok()?).ok()?,
                time: DateTime::from_timestamp_millis(fix_ms.parse().ok()?)?,
            }),
        };
        Some(Self {
            fix,
            received_at: DateTime::from_timestamp_millis(received_ms.parse().ok()?)?,
            session_epoch: epoch.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::MAX_LATITUDE;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            lat in -MAX_LATITUDE..MAX_LATITUDE, lon in -180.0..180.0f64, placed in any::<bool>(),
            fix_ms in 0i64..4_000_000_000_000, received_ms in 0i64..4_000_000_000_000, session_epoch in any::<i64>(),
        ) {
            let at = |ms| DateTime::from_timestamp_millis(ms).unwrap();
            let fix = placed.then(|| Fix { position: Position::new(lat, lon).unwrap(), time: at(fix_ms) });
            let value = OnlineValue { fix, received_at: at(received_ms), session_epoch };
            prop_assert_eq!(OnlineValue::decode(value.encode().as_bytes()), Some(value));
        }

        #[test]
        fn any_text_is_borne(text in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = OnlineValue::decode(&text);
        }
    }

    #[test]
    fn unknown_text_is_nobody() {
        for text in ["", "1", "1,2,3,4", "91,0,1,2,3", "1,2,,4,5", "NaN,0,1,2,3", "1,2,3,4,5,6", "a,b,c,d,e"] {
            assert_eq!(OnlineValue::decode(text.as_bytes()), None, "{text}");
        }
    }
}
