//! The output of a run: a snapshot each second, and the closing report.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// A cheap snapshot of a run.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Since the run began.
    pub elapsed: Duration,
    /// Drivers of this run.
    pub drivers: usize,
    /// Those with an open session.
    pub connected: usize,
    /// Those whom the service can give an order now: connected, on duty, with a free slot and a fresh position.
    pub drivers_free: usize,
    /// Heartbeats sent so far.
    pub heartbeats_sent: u64,
    /// Heartbeats dealt with by the service so far.
    pub heartbeats_acked: u64,
    /// Heartbeats dealt with in the last second.
    pub heartbeats_acked_per_s: f64,
    /// Orders posted so far.
    pub orders_posted: u64,
    /// Of those, given to a driver of this run at least once.
    pub orders_assigned: u64,
    /// Accepted by the service, and not sent to a driver yet.
    pub orders_waiting: u64,
    /// Handed over.
    pub orders_delivered: u64,
    /// Deliveries of earlier runs and other senders that drivers of this run handed over.
    pub others_delivered: u64,
    /// Answer times of the webhook.
    pub webhook: Latency,
    /// From before the post to the driver's socket, orders assigned at once.
    pub webhook_to_socket: Latency,
    /// Fixes that the service did not take.
    pub fixes_refused: u64,
    /// Everything that went wrong.
    pub errors: u64,
}

/// How long something took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Half took no longer, in ms.
    pub p50_ms: f64,
    /// 99 % took no longer, in ms.
    pub p99_ms: f64,
    /// The longest, in ms.
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

/// Whether orders went to the nearest driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NearestCounts {
    /// The nearest, or within 30 m of it.
    pub nearest: u64,
    /// Somebody surely free was surely nearer.
    pub not_nearest: u64,
    /// It hung on moves or changes that were under way.
    pub undecidable: u64,
}

/// The closing report.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The last snapshot.
    pub last: Progress,
    /// Its seed.
    pub seed: u64,
    /// Its time-lapse factor.
    pub speed: f64,
    /// The most drivers connected at one moment.
    pub connected_peak: usize,
    /// Orders answered 201.
    pub assigned_at_once: u64,
    /// Orders given to a driver after a 202.
    pub assigned_later: u64,
    /// Orders that the service refused, or that could not be posted.
    pub orders_refused: u64,
    /// Orders that their driver lost again (cancelled, given back) and that no other driver of this run got.
    pub orders_taken_back: u64,
    /// From before the post to the driver's socket, orders answered 202 first.
    pub waited_to_socket: Latency,
    /// Whether orders went to the nearest driver.
    pub nearest: NearestCounts,
    /// Fixes that the service did not take, by code.
    pub fixes_refused: BTreeMap<String, u64>,
    /// What went wrong, by kind.
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
             {} taken back, {} refused",
            last.orders_posted,
            last.orders_assigned,
            self.assigned_at_once,
            self.assigned_later,
            last.orders_waiting,
            last.orders_delivered,
            self.orders_taken_back,
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
