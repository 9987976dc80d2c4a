//! Reads the settings of heartbeats: the intervals, which depend on each other, and the rules that refuse a fix.

use std::time::Duration;

use chrono::TimeDelta;

use super::super::parse;
use super::super::types::HeartbeatConfig;
use super::Reader;
use crate::domain::plausibility::FixRules;

impl Reader<'_> {
    pub(super) fn heartbeat(&mut self) -> Option<HeartbeatConfig> {
        let interval = self.millis("HEARTBEAT_INTERVAL_MS", 100, 600_000);
        let ttl = self.millis("HEARTBEAT_TTL_MS", 300, 3_600_000);
        let offline_after = self.millis("OFFLINE_AFTER_MS", 300, 604_800_000);
        let position_max_age = self.millis("POSITION_MAX_AGE_MS", 1000, 86_400_000);
        let position_flush = self.millis("POSITION_FLUSH_MS", 100, 600_000);
        let fix_max_speed_kmh = self.count("FIX_MAX_SPEED_KMH", 0, 2000);
        let fix_rules = self.fix_rules();
        let track_retention_days = self.count("TRACK_RETENTION_DAYS", 0, 36_500);
        if let Some(ttl) = ttl {
            self.beside_ttl(ttl, interval, offline_after, position_flush);
        }
        let busy = self.optional("HEARTBEAT_INTERVAL_BUSY_MS", |text| parse::number(text, 100..=600_000));
        let idle = self.optional("HEARTBEAT_INTERVAL_IDLE_MS", |text| parse::number(text, 100..=600_000));
        let (interval_busy, interval_idle) = self.other_intervals(interval?, ttl?, busy?, idle?)?;
        Some(HeartbeatConfig {
            interval_busy,
            interval_idle,
            fix_rules: fix_rules?,
            track_retention_days: i32::try_from(track_retention_days?).ok().filter(|days| *days > 0),
            interval: interval?,
            ttl: ttl?,
            offline_after: offline_after?,
            position_max_age: position_max_age?,
            fix_max_speed_kmh: fix_max_speed_kmh?,
            position_flush: position_flush?,
        })
    }

    /// The intervals of busy and idle drivers. An interval that is not set is derived from `HEARTBEAT_INTERVAL_MS`.
    fn other_intervals(
        &mut self,
        interval: Duration,
        ttl: Duration,
        busy_ms: Option<u64>,
        idle_ms: Option<u64>,
    ) -> Option<(Duration, Duration)> {
        let (interval_ms, third_ms) = (interval.as_millis() as u64, ttl.as_millis() as u64 / 3);
        let busy = busy_ms.unwrap_or((interval_ms / 2).max(100).min(interval_ms));
        let idle = idle_ms.unwrap_or(third_ms.min(interval_ms * 3).max(interval_ms));
        if busy > interval_ms {
            self.problem(format!(
                "HEARTBEAT_INTERVAL_BUSY_MS is {busy} and HEARTBEAT_INTERVAL_MS is {interval_ms}, so that a driver with an \
                 order would be followed less: lower it to at most {interval_ms}"
            ));
            return None;
        }
        if idle < interval_ms {
            self.problem(format!(
                "HEARTBEAT_INTERVAL_IDLE_MS is {idle} and HEARTBEAT_INTERVAL_MS is {interval_ms}, so that a driver off duty \
                 would be followed more: raise it to at least {interval_ms}"
            ));
            return None;
        }
        if idle_ms.is_some_and(|idle| idle > third_ms) {
            self.problem(format!(
                "HEARTBEAT_INTERVAL_IDLE_MS is {idle} and HEARTBEAT_TTL_MS is {}, so that one lost heartbeat would cost a \
                 driver who comes on duty their orders: lower it to at most {third_ms}, or raise HEARTBEAT_TTL_MS",
                ttl.as_millis()
            ));
            return None;
        }
        Some((Duration::from_millis(busy), Duration::from_millis(idle)))
    }

    fn fix_rules(&mut self) -> Option<FixRules> {
        let future_ms = self.required("FIX_MAX_FUTURE_MS", |text| parse::number(text, 0..=86_400_000));
        let refuse_zero = self.required("FIX_REFUSE_ZERO", parse::boolean);
        let inaccuracy_m = self.count("FIX_MAX_INACCURACY_M", 0, 100_000);
        Some(FixRules {
            max_future: Some(future_ms?).filter(|ms| *ms > 0).map(|ms| TimeDelta::milliseconds(ms as i64)),
            refuse_zero: refuse_zero?,
            max_inaccuracy_m: Some(inaccuracy_m?).filter(|metres| *metres > 0).map(f64::from),
            ..FixRules::default()
        })
    }

    fn beside_ttl(
        &mut self,
        ttl: Duration,
        interval: Option<Duration>,
        offline_after: Option<Duration>,
        flush: Option<Duration>,
    ) {
        let ttl_ms = ttl.as_millis();
        if let Some(interval) = interval.filter(|interval| ttl < *interval * 3) {
            let (interval_ms, least_ms) = (interval.as_millis(), (interval * 3).as_millis());
            self.problem(format!(
                "HEARTBEAT_TTL_MS is {ttl_ms} and HEARTBEAT_INTERVAL_MS is {interval_ms}, so that one lost heartbeat would \
                 cost a driver their orders: raise HEARTBEAT_TTL_MS to at least {least_ms}, or lower HEARTBEAT_INTERVAL_MS"
            ));
        }
        if let Some(offline_after) = offline_after.filter(|offline_after| *offline_after < ttl) {
            self.problem(format!(
                "OFFLINE_AFTER_MS is {} and HEARTBEAT_TTL_MS is {ttl_ms}, so that drivers who are online would go off duty: \
                 raise OFFLINE_AFTER_MS to at least {ttl_ms}",
                offline_after.as_millis()
            ));
        }
        if let Some(flush) = flush.filter(|flush| *flush >= ttl) {
            self.problem(format!(
                "POSITION_FLUSH_MS is {} and HEARTBEAT_TTL_MS is {ttl_ms}, so that without Redis every driver would look \
                 silent: lower POSITION_FLUSH_MS below {ttl_ms}",
                flush.as_millis()
            ));
        }
    }
}
