//! Sets up the metrics recorder and renders the metrics for Prometheus.

use std::sync::Mutex;

use metrics::Label;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::TelemetryError;
use super::names::{METRICS, MetricKind};

/// The recorder of this process. It is set once. Later callers get the same recorder.
static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);

/// A handle of the recorder. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Sets up the recorder for the whole process and describes every metric. A second call returns the same recorder.
pub fn init_metrics() -> Result<Metrics, TelemetryError> {
    let mut installed = INSTALLED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(metrics) = &*installed {
        return Ok(metrics.clone());
    }
    let metrics = Metrics(builder()?.install_recorder()?);
    describe();
    *installed = Some(metrics.clone());
    Ok(metrics)
}

impl Metrics {
    /// Renders every metric in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Moves recorded histogram values into their buckets. Must be called every few seconds, so that memory stays bounded when
    /// no scrape happens.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

fn builder() -> Result<PrometheusBuilder, TelemetryError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let MetricKind::Histogram(buckets) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
        }
    }
    Ok(builder)
}

/// Registers every metric with the current recorder: its help text, and its series at 0.
fn describe() {
    for metric in METRICS {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram(_) => metrics::describe_histogram!(metric.name, metric.help),
        }
        for labels in metric.series() {
            let labels: Vec<Label> = labels.into_iter().map(|(label, value)| Label::new(label, value)).collect();
            // Creating the handle registers the series. Its value is 0 until the first change.
            match metric.kind {
                MetricKind::Counter => drop(metrics::counter!(metric.name, labels)),
                MetricKind::Gauge => drop(metrics::gauge!(metric.name, labels)),
                MetricKind::Histogram(_) => drop(metrics::histogram!(metric.name, labels)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_render_with_help_type_and_buckets() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::counter!("driver_tracker_orders_total", "outcome" => "created").increment(2);
            metrics::gauge!("driver_tracker_sessions").set(3.0);
            metrics::histogram!("driver_tracker_redis_call_seconds", "op" => "nearest").record(0.003);
        });
        let text = Metrics(handle).render();
        for line in [
            "# TYPE driver_tracker_orders_total counter",
            "driver_tracker_orders_total{outcome=\"created\"} 2",
            "# HELP driver_tracker_sessions ",
            "driver_tracker_sessions 3",
            "driver_tracker_redis_call_seconds_bucket{op=\"nearest\",le=\"0.005\"} 1",
            "driver_tracker_orders_total{outcome=\"refused\"} 0",
            "driver_tracker_redis_call_seconds_count{op=\"heal\"} 0",
            "driver_tracker_outbox_dead 0",
        ] {
            assert!(text.contains(line), "{line:?} is not in:\n{text}");
        }
    }

    #[test]
    fn the_recorder_is_set_once() {
        init_metrics().unwrap();
        init_metrics().unwrap();
    }
}
