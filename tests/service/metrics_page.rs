//! Holds the table of `docs/operations.md` and what a node exposes against the list of metrics.

use std::collections::BTreeMap;

use driver_tracker::telemetry::{METRICS, MetricKind};

use super::support::*;

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md"));
const PREFIX: &str = "driver_tracker_";

/// The rows whose first cell is a metric's name: kind, labels, meaning.
fn rows() -> BTreeMap<&'static str, (&'static str, &'static str, &'static str)> {
    let mut rows = BTreeMap::new();
    for line in PAGE.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ["", name, kind, labels, meaning, ""] = cells[..]
            && let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'))
            && name.starts_with(PREFIX)
        {
            assert!(rows.insert(name, (kind, labels, meaning)).is_none(), "{name} stands twice in the page");
        }
    }
    rows
}

#[test]
fn the_page_has_every_metric_with_its_kind_and_labels_and_no_other() {
    let mut rows = rows();
    for metric in METRICS {
        let Some((kind, labels, meaning)) = rows.remove(metric.name) else {
            panic!("docs/operations.md lacks {}", metric.name)
        };
        let expected = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram(_) => "histogram",
        };
        assert_eq!((kind, labels), (expected, metric.labels.join(", ").as_str()), "{}", metric.name);
        assert!(meaning.len() > 10, "{} is not explained", metric.name);
    }
    assert!(rows.is_empty(), "the page lists what does not exist: {:?}", rows.keys());
}

#[test]
fn every_metric_that_the_page_mentions_exists() {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    for (start, _) in PAGE.match_indices(PREFIX) {
        let name = PAGE[start..].split(|c| !is_of_name(c)).next().unwrap_or_default();
        assert!(METRICS.iter().any(|metric| metric.name == name), "the page speaks of {name}, which does not exist");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_exposes_what_is_listed_and_how_much_waits() {
    let world = World::start().await;
    world.order(&Order::new("waits")).await.expect(202);
    let url = format!("http://{}/metrics", world.node().metrics_address);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let text = loop {
        let text = http::send(http::client().get(&url)).await.text;
        if text.contains("\ndriver_tracker_orders_waiting 1\n") {
            break text;
        }
        assert!(tokio::time::Instant::now() < deadline, "nobody counted the order:\n{text}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    for line in ["driver_tracker_outbox_dead 0", "driver_tracker_outbox_pending ", "driver_tracker_database_up 1"] {
        assert!(text.contains(&format!("\n{line}")), "{line} is not in:\n{text}");
    }
    assert!(text.contains("\ndriver_tracker_redis_call_seconds_bucket{"), "a histogram has buckets");
    assert!(text.contains("\n# TYPE driver_tracker_orders_waiting gauge\n"), "the types are read below:\n{text}");
    for exposed in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(METRICS.iter().any(|metric| metric.name == exposed), "{exposed} is not listed");
    }
    world.finish().await;
}
