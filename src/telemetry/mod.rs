//! Logs and metrics.
//!
//! Owns the subscriber of `tracing`, the recorder of `metrics` and the list of metric names. Starts no listener and no
//! task: the application serves [`Metrics::render`] on its own listener and calls [`Metrics::upkeep`] now and then.

mod logs;
mod metrics;
mod names;

pub use logs::{LogOutput, init_logging};
pub use metrics::{Metrics, init_metrics};
pub use names::{METRICS, Metric, MetricKind};

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is no list of directives; the configuration checks this before.
    #[error("RUST_LOG cannot be used")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A subscriber is in place already.
    #[error("logging is already set up")]
    Logging(#[from] tracing_subscriber::util::TryInitError),
    /// A recorder is in place already, or its buckets are wrong.
    #[error("metrics cannot be set up")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}
