//! The output of a run: a snapshot each second and the final report.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// A snapshot of a run.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The time since the run began.
    pub elapsed: Duration,
    /// The drivers of this run.
    pub drivers: usize,
    /// The drivers with an open session.
    pub connected: usize,
    /// The drivers to whom the service can assign an order now: connected, on duty, with a free slot and a fresh position.
    pub drivers_free: usize,
    /// Heartbeats sent so far.
    pub heartbeats_sent: u64,
    /// Heartbeats acknowledged by the service so far.
    pub heartbeats_acked: u64,
    /// Heartbeats acknowledged per second, averaged over the last few seconds.
    pub heartbeats_acked_per_s: f64,
    /// Orders posted so far.
    pub orders_posted: u64,
    /// Posted orders that a driver of this run received at least once.
    pub orders_assigned: u64,
    /// Orders that the service accepted and that no driver of this run has received yet.
    pub orders_waiting: u64,
    /// Posted orders that are delivered.
    pub orders_delivered: u64,
    /// Orders of earlier runs and other senders that drivers of this run delivered.
    pub others_delivered: u64,
    /// The latency of the webhook's answers.
    pub webhook: Latency,
    /// The latency from the post to the driver's socket, for orders that were assigned at once.
    pub webhook_to_socket: Latency,
    /// Fixes that the service refused.
    pub fixes_refused: u64,
    /// All errors.
    pub errors: u64,
}

/// The distribution of a latency.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// The number of measurements.
    pub count: u64,
    /// The median in ms.
    pub p50_ms: f64,
    /// The 99th percentile in ms.
    pub p99_ms: f64,
    /// The maximum in ms.
    pub max_ms: f64,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |micros: u64| micros as f64 / 1000.0;
        Self {
            count: histogram.len(),
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            max_ms: ms(histogram.max()),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none measured");
        }
        let Self { count, p50_ms, p99_ms, max_ms } = self;
        write!(f, "p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, longest {max_ms:.1} ms ({count} measured)")
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5.0} s | drivers {}/{}, {:.0} heartbeats/s | orders {} posted, {} assigned, {} waiting, {} delivered",
            self.elapsed.as_secs_f64(),
            self.connected,
            self.drivers,
            self.heartbeats_acked_per_s,
            self.orders_posted,
            self.orders_assigned,
            self.orders_waiting,
            self.orders_delivered,
        )?;
        let socket = &self.webhook_to_socket;
        if socket.count > 0 {
            write!(f, " | webhook→socket p50 {:.1} p99 {:.1} ms", socket.p50_ms, socket.p99_ms)?;
        }
        if self.fixes_refused > 0 {
            write!(f, " | {} fixes refused", self.fixes_refused)?;
        }
        write!(f, " | errors {}", self.errors)
    }
}

/// How many orders were assigned to the nearest driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NearestCounts {
    /// The driver was the nearest, or at most 30 m farther than the nearest.
    pub nearest: u64,
    /// Another driver was certainly available and certainly nearer.
    pub not_nearest: u64,
    /// The outcome depends on moves or changes that were in progress.
    pub undecidable: u64,
}

/// The final report.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The last snapshot.
    pub last: Progress,
    /// The seed of the run.
    pub seed: u64,
    /// The time-lapse factor of the run.
    pub speed: f64,
    /// The maximum number of drivers connected at one moment.
    pub connected_peak: usize,
    /// Orders answered 201.
    pub assigned_at_once: u64,
    /// Orders assigned to a driver after a 202.
    pub assigned_later: u64,
    /// Orders that the service refused, or that could not be posted.
    pub orders_refused: u64,
    /// Orders that were unassigned from their driver (cancelled, rejected) and that no other driver of this run got.
    pub orders_unassigned: u64,
    /// The latency from the post to the driver's socket, for orders first answered 202.
    pub waited_to_socket: Latency,
    /// How many orders were assigned to the nearest driver.
    pub nearest: NearestCounts,
    /// Fixes that the service refused, by code.
    pub fixes_refused: BTreeMap<String, u64>,
    /// Errors by kind.
    pub errors: BTreeMap<String, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = &self.last;
        writeln!(f, "report of {:.0} s, speed {}, seed {}", last.elapsed.as_secs_f64(), self.speed, self.seed)?;
        writeln!(f, "  drivers          {}, at most {} connected at once", last.drivers, self.connected_peak)?;
        writeln!(f, "  heartbeats       {} sent, {} acknowledged", last.heartbeats_sent, last.heartbeats_acked)?;
        writeln!(
            f,
            "  orders           {} posted, {} assigned ({} at once, {} after waiting), {} waiting, {} delivered, \
             {} unassigned, {} refused",
            last.orders_posted,
            last.orders_assigned,
            self.assigned_at_once,
            self.assigned_later,
            last.orders_waiting,
            last.orders_delivered,
            self.orders_unassigned,
            self.orders_refused,
        )?;
        if last.others_delivered > 0 {
            writeln!(f, "  others' orders   {} delivered", last.others_delivered)?;
        }
        writeln!(f, "  webhook answer   {}", last.webhook)?;
        writeln!(f, "  webhook→socket   {}", last.webhook_to_socket)?;
        writeln!(f, "  … after waiting  {}", self.waited_to_socket)?;
        let NearestCounts { nearest, not_nearest, undecidable } = self.nearest;
        writeln!(f, "  nearest driver   {nearest} yes, {not_nearest} no, {undecidable} undecidable (moves in flight)")?;
        writeln!(f, "  fixes refused    {}", list(&self.fixes_refused))?;
        write!(f, "  errors           {}", list(&self.errors))
    }
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(kind, count)| format!("{kind}: {count}")).collect::<Vec<_>>().join(", ")
}
