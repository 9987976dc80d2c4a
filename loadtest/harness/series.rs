//! The figures that the scripts write each second, merged over all VUs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

/// Counts by rounded milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Histogram(BTreeMap<u64, u64>);

impl Histogram {
    fn add(&mut self, counts: &Value) {
        for (ms, count) in counts.as_object().into_iter().flatten() {
            let ms = ms.parse::<f64>().unwrap_or_default();
            *self.0.entry(ms as u64).or_default() += count.as_u64().unwrap_or_default();
        }
    }

    /// Returns the quantile `share`, or `None` when the histogram is empty.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total: u64 = self.0.values().sum();
        let wanted = (total as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        self.0
            .iter()
            .find(|(_, count)| {
                below += **count;
                below >= wanted
            })
            .map(|(ms, _)| *ms as f64)
    }
}

/// One second of a run.
#[derive(Clone, Debug, Default)]
pub struct Second {
    pub counts: HashMap<String, f64>,
    pub times: HashMap<String, Histogram>,
    connected: HashMap<u64, f64>,
}

/// A run, second by second.
#[derive(Debug, Default)]
pub struct Series {
    pub seconds: BTreeMap<u64, Second>,
    /// The `sellerOrderId`s that got a 2xx answer.
    pub accepted: BTreeSet<String>,
}

impl Series {
    /// Parses the lines. Lines of another format are skipped.
    pub fn read(lines: &str) -> Self {
        let mut series = Self::default();
        for line in lines.lines() {
            let Ok(Value::Object(figures)) = serde_json::from_str::<Value>(line) else { continue };
            let Some(at_ms) = figures.get("t").and_then(Value::as_u64) else { continue };
            let vu = figures.get("vu").and_then(Value::as_u64).unwrap_or_default();
            let second = series.seconds.entry(at_ms / 1000).or_default();
            for (name, value) in &figures {
                match (name.as_str(), value) {
                    ("t" | "vu", _) => {}
                    ("connected", value) => drop(second.connected.insert(vu, value.as_f64().unwrap_or_default())),
                    ("accepted", value) => drop(series.accepted.insert(value.as_str().unwrap_or_default().to_owned())),
                    (_, Value::Number(count)) => {
                        *second.counts.entry(name.clone()).or_default() += count.as_f64().unwrap_or_default();
                    }
                    (_, histogram) => second.times.entry(name.clone()).or_default().add(histogram),
                }
            }
        }
        series
    }

    /// Returns the count `name` of each second.
    pub fn count(&self, name: &str) -> Vec<(f64, f64)> {
        let at = |second: &Second| second.counts.get(name).copied().unwrap_or_default();
        self.seconds.iter().map(|(t, second)| (*t as f64, at(second))).collect()
    }

    /// Returns the counts by code, such as `frame_errors: not_found`, over the whole run.
    pub fn by_code(&self) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (name, count) in self.seconds.values().flat_map(|second| &second.counts) {
            if name.contains(": ") {
                *sums.entry(name.clone()).or_default() += count;
            }
        }
        sums
    }

    /// Returns a quantile of each second that has measurements.
    pub fn quantile(&self, name: &str, share: f64) -> Vec<(f64, f64)> {
        let of = |second: &Second| second.times.get(name)?.quantile(share);
        self.seconds.iter().filter_map(|(t, second)| Some((*t as f64, of(second)?))).collect()
    }

    /// Returns the number of connected drivers: the sum of the last value of each VU.
    pub fn connected(&self) -> Vec<(f64, f64)> {
        let mut last: HashMap<u64, f64> = HashMap::new();
        let mut sums = Vec::new();
        for (t, second) in &self.seconds {
            last.extend(&second.connected);
            sums.push((*t as f64, last.values().sum()));
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_vus_are_merged_and_other_lines_are_skipped() {
        let lines = "\
            {\"t\":5000,\"vu\":1,\"connected\":2,\"heartbeats_acked\":3,\"heartbeat_ack_ms\":{\"1\":2,\"40\":1}}\n\
            another line\n\
            {\"t\":5900,\"vu\":2,\"connected\":5,\"heartbeats_acked\":1,\"heartbeat_ack_ms\":{\"1\":1}}\n\
            {\"t\":6100,\"vu\":1,\"connected\":1,\"accepted\":\"a-1\",\"heartbeat_ack_ms\":{}}\n";
        let series = Series::read(lines);
        assert_eq!(series.count("heartbeats_acked"), [(5.0, 4.0), (6.0, 0.0)]);
        assert_eq!(
            series.connected(),
            [(5.0, 7.0), (6.0, 6.0)],
            "a VU without a line in a second still holds its sockets"
        );
        assert_eq!(series.quantile("heartbeat_ack_ms", 0.75), [(5.0, 1.0)]);
        assert_eq!(series.quantile("heartbeat_ack_ms", 0.99), [(5.0, 40.0)]);
        assert_eq!(series.accepted.into_iter().collect::<Vec<_>>(), ["a-1"]);
    }
}
