//! Checks that `docs/operations.md`, the metrics page of a node, and the list of metrics agree.

use std::collections::BTreeMap;

use driver_tracker::telemetry::{METRICS, MetricKind};

use super::support::*;

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md"));
const PREFIX: &str = "driver_tracker_";

/// Returns the rows whose first cell is a metric's name: kind, labels, meaning.
fn rows() -> BTreeMap<&'static str, (&'static str, &'static str, &'static str)> {
    let mut rows = BTreeMap::new();
    for line in PAGE.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ["", name, kind, labels, meaning, ""] = cells[..]
            && let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'))
            && name.starts_with(PREFIX)
        {
            assert!(rows.insert(name, (kind, labels, meaning)).is_none(), "{name} has two rows in docs/operations.md");
        }
    }
    rows
}

#[test]
fn the_page_has_every_metric_with_its_kind_and_labels_and_no_other() {
    let mut rows = rows();
    for metric in METRICS {
        let Some((kind, labels, meaning)) = rows.remove(metric.name) else {
            panic!("docs/operations.md has no row for {}", metric.name)
        };
        let expected = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram(_) => "histogram",
        };
        assert_eq!((kind, labels), (expected, metric.labels.join(", ").as_str()), "{}", metric.name);
        assert!(meaning.len() > 10, "docs/operations.md explains {}", metric.name);
    }
    assert!(rows.is_empty(), "docs/operations.md lists only metrics that exist: {:?}", rows.keys());
}

#[test]
fn every_metric_that_the_page_mentions_exists() {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    for (start, _) in PAGE.match_indices(PREFIX) {
        let name = PAGE[start..].split(|c| !is_of_name(c)).next().unwrap_or_default();
        assert!(
            METRICS.iter().any(|metric| metric.name == name),
            "docs/operations.md mentions {name}, which is not a metric"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_exposes_only_listed_metrics_and_counts_waiting_orders() {
    let world = World::start().await;
    world.post_order(&Order::new("waits")).await.expect(202);
    let url = format!("http://{}/metrics", world.node().metrics_address);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let text = loop {
        let text = http::send(http::client().get(&url)).await.text;
        if text.contains("\ndriver_tracker_orders_waiting 1\n") {
            break text;
        }
        assert!(tokio::time::Instant::now() < deadline, "the waiting order is counted in time:\n{text}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    for line in ["driver_tracker_outbox_dead 0", "driver_tracker_outbox_pending ", "driver_tracker_database_up 1"] {
        assert!(text.contains(&format!("\n{line}")), "{line} is in:\n{text}");
    }
    assert!(text.contains("\ndriver_tracker_redis_call_seconds_bucket{"), "a histogram has buckets");
    assert!(
        text.contains("\n# TYPE driver_tracker_orders_waiting gauge\n"),
        "the page has the types of metrics:\n{text}"
    );
    for exposed in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(METRICS.iter().any(|metric| metric.name == exposed), "{exposed} is in the list of metrics");
    }
    world.finish().await;
}

/// Returns the series of a page without those of HTTP requests, whose routes and statuses appear with their first
/// response. Of a histogram, only the counts.
fn series(page: &str) -> std::collections::BTreeSet<&str> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let named = lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series);
    named.filter(|series| !series.starts_with("driver_tracker_http_")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_exposed_from_the_start_and_none_appears_later() {
    let world = World::start().await;
    let url = format!("http://{}/metrics", world.node().metrics_address);
    let page = async || http::send(http::client().get(&url)).await.text;
    let start = page().await;
    for metric in METRICS {
        assert!(start.contains(&format!("\n# TYPE {} ", metric.name)), "{} is exposed from the start", metric.name);
        for labels in metric.series() {
            let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
            let suffix = if matches!(metric.kind, MetricKind::Histogram(_)) { "_count" } else { "" };
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let line = format!("\n{}{suffix}{labels} ", metric.name);
            assert!(start.contains(&line), "{line:?} is exposed from the start");
        }
    }
    // Actions and errors of every kind.
    let driver = world.on_duty(RESTAURANT).await;
    let response = world.post_order(&Order::new("counted")).await.expect(201);
    world.post_order(&Order::new("counted")).await.expect(200);
    world.post_order(&Order::new("faulty").with("pickup", serde_json::json!(1))).await.refused(422, "invalid_fields");
    let (id, assignment) = (response["deliveryId"].as_str().unwrap(), response["assignmentId"].as_str().unwrap());
    driver.session.send_text("{");
    driver.session.send_text(r#"{"type": "dance"}"#);
    let now = chrono::Utc::now().to_rfc3339();
    let fixes = serde_json::json!([{"lat": 1}, {"lat": RESTAURANT.lat, "lon": RESTAURANT.lon, "fixTime": now}, {"lat": 0, "lon": 0, "fixTime": "1999-01-01T00:00:00Z"}]);
    driver.session.send_request(serde_json::json!({"type": "batch", "fixes": fixes})).await;
    driver.deliver(id, assignment).await;
    world.shop().wait_for_event(id, "DELIVERY_DELIVERED_V1").await;
    world.node().api().keyed(Some("no key")).get("/api/v1/drivers").await.problem(401);
    eventually("the actions are counted", SOON, || async {
        let counted = world.node().metric("driver_tracker_fixes_refused_total{code=\"fix_too_old\"}").await == 1.0
            && world.node().metric("driver_tracker_track_fixes_stored_total").await > 0.0
            && world.node().metric("driver_tracker_events_posted_total{outcome=\"delivered\"}").await >= 3.0;
        counted.then_some(())
    })
    .await;
    let later = page().await;
    let appeared: Vec<&str> = series(&later).difference(&series(&start)).copied().collect();
    assert!(appeared.is_empty(), "no series appears later: {appeared:?}");
    world.finish().await;
}
