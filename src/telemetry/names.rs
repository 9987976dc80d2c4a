//! The table of all metrics: name, kind, labels and help text.
//!
//! Invariants:
//! - A metric is added and never renamed, because dashboards and alerts use the names.
//! - A label has a small fixed set of values, never an id.
//! - The table lists exactly the metrics that the code emits. A test compares both.

/// The kind of a metric.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum MetricKind {
    /// Only grows. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution over these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name: `driver_tracker_…`, with the unit last.
    pub name: &'static str,
    /// The kind.
    pub kind: MetricKind,
    /// The labels, in the order of the code that emits the metric.
    pub labels: &'static [&'static str],
    /// The values of each label, in the same order. Every combination is exposed from the start at 0, so that an alert on a
    /// first increase works. For HTTP requests they name one series. The series of other routes and statuses appear with their
    /// first answer.
    pub values: &'static [&'static [&'static str]],
    /// The help text. It names every label.
    pub help: &'static str,
}

/// Bounds for times within the service: 0.5 ms to 10 s.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds for calls to Redis: 0.1 ms to 2.5 s, ten times the timeout of a call.
const CALL_SECONDS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 2.5];
/// Bounds for the size of batches.
const SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0];

type Labels = &'static [&'static str];
type Values = &'static [Labels];

/// The calls to Redis.
const REDIS_OPS: Labels = &[
    "begin_rebuild",
    "correct",
    "expel",
    "finish_rebuild",
    "heal",
    "heartbeats",
    "join",
    "load",
    "look",
    "members",
    "nearest",
    "online",
    "overview",
    "publish",
    "put_back",
    "renew_generation",
    "scan",
    "sweep",
    "transition",
];
const REDIS_OUTCOMES: Labels = &["ok", "cold", "timeout", "error", "breaker_open"];
const CLOSE_CODES: Labels = &["1002", "1008", "1009", "1011", "1012", "4001", "4002", "4003", "4004"];
const FRAME_CODES: Labels = &["invalid_json", "invalid_frame", "unknown_type"];
const FIX_CODES: Labels =
    &["fix_in_future", "fix_too_old", "fix_at_zero", "fix_inaccurate", "fix_too_fast", "invalid_frame"];
const ACTORS: Labels = &[
    "command_dispatcher",
    "epoch_repair",
    "gauges",
    "offline_detection",
    "outbox_relay",
    "presence_writer",
    "pruning",
    "reconciliation",
    "shop_refresh",
    "supervision",
    "track_flush",
    "track_partitions",
    "waiting_sweep",
];
const TASKS: Labels = &[
    "epoch_repair",
    "gauges",
    "offline_detection",
    "pruning",
    "reconciliation",
    "shop_refresh",
    "supervision",
    "track_flush",
    "track_partitions",
    "waiting_sweep",
];

const fn counter(name: &'static str, labels: Labels, values: Values, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, labels, values, help }
}

const fn task_gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels: &["task"], values: &[TASKS], help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels: &[], values: &[], help }
}

const fn histogram(
    name: &'static str,
    buckets: &'static [f64],
    labels: Labels,
    values: Values,
    help: &'static str,
) -> Metric {
    Metric { name, kind: MetricKind::Histogram(buckets), labels, values, help }
}

impl Metric {
    /// Every combination of the values of the labels; for a metric without labels, the empty one.
    pub fn series(&self) -> Vec<Vec<(&'static str, &'static str)>> {
        self.labels.iter().zip(self.values).fold(vec![Vec::new()], |series, (label, values)| {
            let with = |before: &Vec<_>, value| before.iter().copied().chain([(*label, value)]).collect();
            series.iter().flat_map(|before| values.iter().map(move |value| with(before, *value))).collect()
        })
    }
}

/// Every metric that the service emits.
pub const METRICS: &[Metric] = &[
    counter(
        "driver_tracker_http_requests_total",
        &["route", "method", "status"],
        &[&["unmatched"], &["GET"], &["404"]],
        "Requests answered, by route, method and status",
    ),
    histogram(
        "driver_tracker_http_request_duration_seconds",
        SECONDS,
        &["route"],
        &[&["unmatched"]],
        "From request to answer, by route",
    ),
    counter(
        "driver_tracker_auth_failures_total",
        &["kind"],
        &[&["webhook", "key", "driver"]],
        "Credentials refused, by kind: webhook, key or driver",
    ),
    counter(
        "driver_tracker_rate_limited_total",
        &["limit"],
        &[&["orders", "frames", "connections", "sessions", "turns", "auth_failures"]],
        "Requests and frames over a limit, by limit: orders, frames, connections, sessions, turns or auth_failures",
    ),
    counter(
        "driver_tracker_orders_total",
        &["outcome"],
        &[&["created", "duplicate", "conflict", "refused"]],
        "Orders posted by shops, by outcome: created, duplicate, conflict or refused",
    ),
    gauge("driver_tracker_orders_waiting", "Orders without a driver, of the whole database"),
    gauge("driver_tracker_regions_waiting", "Regions with an order due for a search"),
    counter(
        "driver_tracker_assignments_total",
        &["outcome"],
        &[&["given", "nobody", "gone", "error"]],
        "Searches for an order's driver, by outcome: given, nobody, gone (the order needs none any more) or error",
    ),
    gauge("driver_tracker_sessions", "Open sockets of drivers on this node"),
    counter(
        "driver_tracker_sessions_closed_total",
        &["code"],
        &[CLOSE_CODES],
        "Sockets closed by the service, by close code",
    ),
    counter(
        "driver_tracker_frames_refused_total",
        &["code"],
        &[FRAME_CODES],
        "Frames that could not be read, by code of the error",
    ),
    counter(
        "driver_tracker_fixes_refused_total",
        &["code"],
        &[FIX_CODES],
        "Fixes that were not believed, by code of the error",
    ),
    counter("driver_tracker_heartbeats_total", &[], &[], "Heartbeats received over sockets"),
    counter(
        "driver_tracker_heartbeats_stored_total",
        &["in"],
        &[&["redis", "postgresql"]],
        "Heartbeats stored in redis, or in postgresql while Redis is out",
    ),
    histogram("driver_tracker_heartbeat_batch_size", SIZES, &[], &[], "Heartbeats written in one batch"),
    counter("driver_tracker_track_fixes_stored_total", &[], &[], "Fixes stored for the tracks of deliveries"),
    counter(
        "driver_tracker_track_fixes_dropped_total",
        &[],
        &[],
        "Fixes that found no room while PostgreSQL did not take those before them",
    ),
    counter(
        "driver_tracker_events_posted_total",
        &["outcome"],
        &[&["delivered", "retried", "rejected", "gone", "dead"]],
        "Posts of events, by outcome: delivered, retried, rejected, gone or dead",
    ),
    gauge("driver_tracker_outbox_pending", "Events that wait to be posted, of the whole database"),
    gauge("driver_tracker_outbox_dead", "Events given up, which an operator may replay, of the whole database"),
    gauge("driver_tracker_outbox_oldest_pending_seconds", "Age of the oldest event that waits, 0 when none does"),
    gauge("driver_tracker_database_up", "1 while PostgreSQL takes writes, else 0"),
    counter(
        "driver_tracker_redis_calls_total",
        &["op", "outcome"],
        &[REDIS_OPS, REDIS_OUTCOMES],
        "Calls to Redis, by op and outcome: ok, cold, timeout, error or breaker_open",
    ),
    histogram("driver_tracker_redis_call_seconds", CALL_SECONDS, &["op"], &[REDIS_OPS], "One call to Redis, by op"),
    gauge("driver_tracker_redis_breaker_state", "0 closed, 1 probing, 2 open: Redis is not asked"),
    gauge("driver_tracker_redis_believed", "1 while Redis is believed, 0 while searches go to PostgreSQL"),
    counter("driver_tracker_redis_rebuilds_total", &[], &[], "Times that this node filled Redis again from PostgreSQL"),
    gauge("driver_tracker_reconcile_lease_held", "1 on the node that keeps Redis equal to PostgreSQL, else 0"),
    counter(
        "driver_tracker_presence_mended_total",
        &["what"],
        &[&["status", "membership", "ghost"]],
        "Drift in Redis that was mended, by what: status, membership or ghost (a member that PostgreSQL does not know)",
    ),
    counter("driver_tracker_redis_hints_dropped_total", &[], &[], "Hints from other nodes that found no room"),
    counter("driver_tracker_presence_swept_total", &[], &[], "Silent drivers taken out of the GEO set"),
    gauge("driver_tracker_silence_outage", "1 while so many drivers are silent that nobody is judged"),
    counter(
        "driver_tracker_actor_restarts_total",
        &["actor"],
        &[ACTORS],
        "Actors and background tasks restarted after a panic, by actor",
    ),
    task_gauge(
        "driver_tracker_background_task_last_success_seconds",
        "When a periodic task last succeeded, as Unix time; 0 before the first time",
    ),
    task_gauge("driver_tracker_background_task_duration_seconds", "How long the last run of a periodic task took"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashSet};
    use std::path::Path;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let names: HashSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len(), "a name stands once");
        for metric in METRICS {
            let rest = metric.name.strip_prefix("driver_tracker_").expect(metric.name);
            assert!(rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", metric.name);
            assert_eq!(metric.kind == MetricKind::Counter, rest.ends_with("_total"), "{}", metric.name);
            if let MetricKind::Histogram(buckets) = metric.kind {
                assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]), "{}", metric.name);
            }
            assert_eq!(metric.labels.len(), metric.values.len(), "{}", metric.name);
            assert!(metric.values.iter().all(|values| !values.is_empty()), "{}", metric.name);
            for label in metric.labels {
                assert!(metric.help.split(|c: char| !c.is_alphabetic()).any(|word| word == *label), "{}", metric.name);
            }
        }
    }

    /// The parts of a metric that the code and the table are compared by: kind and labels.
    type Shape = (&'static str, Vec<String>);

    fn quoted(text: &str) -> Option<(&str, &str)> {
        text.trim_start().strip_prefix('"')?.split_once('"')
    }

    /// The metrics that a source file emits.
    fn emitted(source: &str) -> Vec<(String, Shape)> {
        let mut found = Vec::new();
        for kind in ["counter", "gauge", "histogram"] {
            for call in source.split(&format!("metrics::{kind}!(")).skip(1) {
                let (name, mut rest) = quoted(call).expect("the name of a metric stands where it is emitted");
                let mut labels = Vec::new();
                // Each label has the form `, "label" => value`.
                while let Some((label, value)) = rest.trim_start().strip_prefix(',').and_then(quoted) {
                    labels.push(label.to_owned());
                    let value = value.trim_start().strip_prefix("=>").expect("a label's value");
                    rest = &value[value.find([',', ';']).expect("an end")..];
                }
                found.push((name.to_owned(), (kind, labels)));
            }
        }
        found
    }

    fn read_sources(dir: &Path, found: &mut BTreeMap<String, Shape>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("telemetry") {
                read_sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).unwrap();
                for (name, shape) in emitted(&source) {
                    let known = found.entry(name).or_insert_with(|| shape.clone());
                    assert_eq!(*known, shape, "one metric in two shapes, in {}", path.display());
                }
            }
        }
    }

    #[test]
    fn the_table_is_what_the_code_emits() {
        let mut found = BTreeMap::new();
        read_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let shape = |metric: &Metric| {
            let kind = match metric.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram(_) => "histogram",
            };
            (metric.name.to_owned(), (kind, metric.labels.iter().map(|label| (*label).to_owned()).collect()))
        };
        let table: BTreeMap<String, Shape> = METRICS.iter().map(shape).collect();
        assert_eq!(found, table, "left: emitted, right: the table");
    }

    /// The quoted texts that follow any of these openings in the source files of a folder.
    fn named_in(folder: &str, openings: &[&str]) -> std::collections::BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
        let mut found = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).unwrap();
                let program = source.split("#[cfg(test)]").next().unwrap_or_default();
                for opening in openings {
                    let named = program.split(opening).skip(1).filter_map(quoted);
                    found.extend(named.map(|(name, _)| name.to_owned()));
                }
            }
        }
        found
    }

    fn set(values: &[&str]) -> std::collections::BTreeSet<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn the_values_of_labels_are_those_that_the_code_names() {
        let calls = [concat!(".batch", "("), concat!(".run", "("), concat!(".on_session", "(")];
        assert_eq!(named_in("presence", &calls), set(REDIS_OPS));
        let tasks = named_in("background", &[concat!("tasks", ".start(")]);
        assert_eq!(tasks, set(TASKS));
        let started = [concat!("Supervised::", "start(")];
        let mut restarted = tasks;
        restarted.extend(["ingest", "outbox", "sessions"].iter().flat_map(|folder| named_in(folder, &started)));
        assert_eq!(restarted, set(ACTORS));
        let refusals = [concat!("refuse", "(")];
        let mut codes = named_in("domain", &refusals);
        codes.insert("invalid_frame".to_owned());
        assert_eq!(codes, set(FIX_CODES));
    }

    #[test]
    fn every_combination_of_label_values_is_a_series() {
        let of = |name: &str| METRICS.iter().find(|metric| metric.name == name).unwrap().series();
        assert_eq!(of("driver_tracker_redis_calls_total").len(), REDIS_OPS.len() * REDIS_OUTCOMES.len());
        assert_eq!(of("driver_tracker_heartbeats_total"), [vec![]]);
        assert_eq!(of("driver_tracker_heartbeats_stored_total"), [[("in", "redis")], [("in", "postgresql")]]);
    }

    #[test]
    fn metrics_are_found_in_source_text() {
        let source =
            concat!("metrics", "::counter!(\n  \"a_total\",\n \"op\" => op(1), \"outcome\" => \"ok\"\n).increment(1);");
        let labels = vec!["op".to_owned(), "outcome".to_owned()];
        assert_eq!(emitted(source), [("a_total".to_owned(), ("counter", labels))]);
    }
}
