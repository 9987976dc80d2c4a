//! Every metric's name, kind and meaning. Names are what dashboards and alerts hold on to: add, never rename.
//!
//! Rooms emit by these names; labels hold only values from small fixed sets, never an id.

/// How a metric moves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum MetricKind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution over these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, `driver_tracker_…`, the unit last.
    pub name: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// What it means, and its labels.
    pub help: &'static str,
}

/// Bounds for times within the service: 0.5 ms to 10 s.
const FAST_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds for times that hang on somebody else: 10 ms to 15 s, the timeout of a post.
const SLOW_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0];
/// Bounds for the size of batches.
const SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, help }
}

const fn histogram(name: &'static str, buckets: &'static [f64], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram(buckets), help }
}

/// Every metric of the service.
pub const METRICS: &[Metric] = &[
    counter("driver_tracker_http_requests_total", "Requests answered, by route, method and status"),
    histogram("driver_tracker_http_request_duration_seconds", FAST_SECONDS, "From request to answer, by route"),
    counter("driver_tracker_auth_failures_total", "Credentials refused, by kind: webhook, key or driver"),
    counter("driver_tracker_rate_limited_total", "Requests and frames over a limit, by limit"),
    counter(
        "driver_tracker_orders_total",
        "Orders posted by shops, by outcome: created, duplicate, conflict or refused",
    ),
    gauge("driver_tracker_orders_waiting", "Deliveries that are PENDING"),
    counter(
        "driver_tracker_assignments_total",
        "Orders given to a driver, by source of the candidates: redis or postgres",
    ),
    counter(
        "driver_tracker_assignment_conflicts_total",
        "Drivers chosen who were lost to another order before the commit",
    ),
    histogram("driver_tracker_assignment_duration_seconds", FAST_SECONDS, "From wake-up to committed assignment"),
    histogram("driver_tracker_search_duration_seconds", FAST_SECONDS, "One search for candidates, by source"),
    counter("driver_tracker_delivery_transitions_total", "Deliveries that changed state, by the new status"),
    gauge("driver_tracker_sessions", "Open WebSocket sessions of drivers on this node"),
    counter("driver_tracker_sessions_opened_total", "WebSocket sessions begun"),
    counter("driver_tracker_sessions_closed_total", "WebSocket sessions ended, by close code"),
    counter("driver_tracker_frames_total", "Frames from drivers, by type"),
    counter("driver_tracker_frame_errors_total", "Error frames sent to drivers, by code"),
    counter("driver_tracker_heartbeats_total", "Heartbeats, by outcome: stored, superseded or refused"),
    histogram("driver_tracker_heartbeat_batch_size", SIZES, "Heartbeats written to Redis in one batch"),
    histogram(
        "driver_tracker_heartbeat_flush_duration_seconds",
        FAST_SECONDS,
        "One batch of heartbeats written to Redis",
    ),
    counter("driver_tracker_positions_stored_total", "Positions written to PostgreSQL"),
    counter("driver_tracker_commands_sent_total", "Commands pushed to drivers, repeats included, by kind"),
    histogram("driver_tracker_command_ack_duration_seconds", SLOW_SECONDS, "From a command's first push to its ack"),
    counter("driver_tracker_events_posted_total", "Posts of events, by outcome: delivered, retried, dead or disabled"),
    histogram("driver_tracker_event_post_duration_seconds", SLOW_SECONDS, "One post of an event, answered or not"),
    gauge("driver_tracker_outbox_pending", "Events that wait to be posted"),
    gauge("driver_tracker_outbox_dead", "Events given up, which an operator may replay"),
    gauge("driver_tracker_outbox_oldest_pending_seconds", "Age of the oldest event that waits"),
    gauge("driver_tracker_database_up", "1 while PostgreSQL answers, else 0"),
    gauge("driver_tracker_database_connections", "Connections to PostgreSQL, by state: idle or used"),
    gauge("driver_tracker_redis_up", "1 while Redis answers, else 0"),
    gauge("driver_tracker_redis_warm", "1 while Redis is believed, 0 while it is cold and PostgreSQL is searched"),
    counter("driver_tracker_redis_failures_total", "Calls to Redis that failed or took too long, by operation"),
    counter("driver_tracker_presence_rebuilds_total", "Times that Redis was filled again from PostgreSQL"),
    counter("driver_tracker_drivers_silenced_total", "Drivers who went off duty because they were silent"),
    counter("driver_tracker_actor_restarts_total", "Actors started anew after a panic, by actor"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

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
        }
    }
}
