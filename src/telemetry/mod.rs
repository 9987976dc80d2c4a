//! Sets up the process's logs and metrics.
//!
//! This module owns the subscriber of `tracing`, the recorder of `metrics` and the table of metric names.
//!
//! Must not: start a listener or a task. The application serves [`Metrics::render`] on its own listener and calls
//! [`Metrics::upkeep`] periodically.

mod logs;
mod metrics;
mod names;

pub use logs::{LogOutput, init_logging};
pub use metrics::{Metrics, init_metrics};
pub use names::{METRICS, Metric, MetricKind};

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not a list of directives. The configuration checks this before.
    #[error("RUST_LOG cannot be used")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process already has a subscriber.
    #[error("logging is already set up")]
    Logging(#[from] tracing_subscriber::util::TryInitError),
    /// The process already has a recorder, or the buckets are invalid.
    #[error("metrics cannot be set up")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}
