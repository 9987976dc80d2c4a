//! The shared state of a run: the recent history of every driver, every open order, latencies and errors.
//!
//! The drivers and the shop write into it, and the run reads it once a second.
//!
//! Invariants:
//! - The lock is held only briefly and never across an await.
//! - Memory is bounded: orders are removed when they have ended, and histories are pruned.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::judge::{self, Availability, History, Verdict, Window};
use super::report::{Latency, NearestCounts, Progress, Report};
use crate::domain::position::Position;

/// The period that rates are averaged over.
const RATE_OVER: Duration = Duration::from_secs(5);
/// The delay between an order's answer and its verdict. By then this run has received every assignment that was made
/// in the meantime, because the service repeats an unacknowledged one every 5 s.
const JUDGE_AFTER: Duration = Duration::from_secs(6);
/// The maximum age of an assignment when this run receives it.
const RECEIVED_WITHIN: Duration = Duration::from_secs(6);
/// How long after its post an order without a driver counts as one that will need a driver of this run. After that it may
/// be assigned to a driver outside this run, and this run gets no frame about that.
const NEEDS_DRIVER_FOR: Duration = Duration::from_secs(60);
/// The maximum number of open orders. Beyond it no order is posted.
const MAX_OPEN_ORDERS: usize = 100_000;
/// The greatest latency that is recorded: an hour.
const MAX_LATENCY_US: u64 = 3_600_000_000;
/// The maximum number of kinds of errors that are counted separately.
const MAX_KINDS: usize = 64;

/// How the webhook answered an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 201 on the first attempt.
    AtOnce,
    /// 202, or any 2xx on a repeated post.
    Later,
}

#[derive(Default)]
struct Order {
    pickup: Option<Position>,
    posted_at: Duration,
    answer: Option<Answer>,
    on_socket_after: Option<Duration>,
    ended: bool,
    /// The order was unassigned from its driver, and no other driver of this run has it yet.
    unassigned: bool,
}

struct ToJudge {
    due: Duration,
    pickup: Position,
    chosen: Option<usize>,
    window: Window,
}

struct DriverEntry {
    id: String,
    connected: bool,
    history: History,
}

struct Inner {
    drivers: Vec<DriverEntry>,
    by_id: HashMap<String, usize>,
    orders: HashMap<String, Order>,
    to_judge: VecDeque<ToJudge>,
    webhook: Histogram<u64>,
    to_socket: Histogram<u64>,
    waited: Histogram<u64>,
    progress: Progress,
    /// Times over the last few seconds, each with the number of heartbeats acknowledged until then.
    acked_marks: VecDeque<(Duration, u64)>,
    report: Report,
    last_change: Duration,
}

/// See the module.
pub(super) struct Ledger(Mutex<Inner>);

impl Ledger {
    pub(super) fn new(driver_ids: Vec<String>) -> Self {
        // A longer latency is recorded as the greatest value.
        let histogram = || Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("the bounds are valid");
        let by_id = driver_ids.iter().cloned().enumerate().map(|(index, id)| (id, index)).collect();
        let entry = |id| DriverEntry { id, connected: false, history: History::default() };
        let drivers: Vec<_> = driver_ids.into_iter().map(entry).collect();
        let progress = Progress { drivers: drivers.len(), ..Progress::default() };
        Self(Mutex::new(Inner {
            drivers,
            by_id,
            orders: HashMap::new(),
            to_judge: VecDeque::new(),
            webhook: histogram(),
            to_socket: histogram(),
            waited: histogram(),
            progress,
            acked_marks: VecDeque::from([(Duration::ZERO, 0)]),
            report: Report::default(),
            last_change: Duration::ZERO,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- drivers ---

    pub(super) fn connected(&self, driver: usize, ttl: Duration) {
        let mut inner = self.lock();
        inner.drivers[driver].history.fresh_for = ttl / 2;
        if !std::mem::replace(&mut inner.drivers[driver].connected, true) {
            inner.progress.connected += 1;
            inner.report.connected_peak = inner.report.connected_peak.max(inner.progress.connected);
        }
    }

    pub(super) fn ttl_changed(&self, driver: usize, ttl: Duration) {
        self.lock().drivers[driver].history.fresh_for = ttl / 2;
    }

    pub(super) fn disconnected(&self, driver: usize) {
        let mut inner = self.lock();
        if std::mem::replace(&mut inner.drivers[driver].connected, false) {
            inner.progress.connected -= 1;
        }
    }

    pub(super) fn heartbeat_sent(&self, driver: usize, now: Duration, seq: u64, place: Option<Position>) {
        let mut inner = self.lock();
        inner.progress.heartbeats_sent += 1;
        if let Some(place) = place {
            inner.drivers[driver].history.fix_sent(now, seq, place);
        }
    }

    pub(super) fn heartbeats_acked(&self, driver: usize, now: Duration, seq: u64, count: u64) {
        let mut inner = self.lock();
        inner.progress.heartbeats_acked += count;
        inner.drivers[driver].history.acked(now, seq);
    }

    pub(super) fn fix_refused(&self, driver: usize, seq: u64, code: &str) {
        let mut inner = self.lock();
        inner.drivers[driver].history.refused(seq);
        inner.progress.fixes_refused += 1;
        count(&mut inner.report.fixes_refused, code);
    }

    pub(super) fn set_availability(&self, driver: usize, now: Duration, availability: Availability) {
        self.lock().drivers[driver].history.set_availability(now, availability);
    }

    /// Records that the driver received an assignment for the first time.
    pub(super) fn assigned(
        &self,
        driver: usize,
        now: Duration,
        seller_order_id: &str,
        availability_after: Availability,
    ) {
        let mut inner = self.lock();
        let earliest = now.saturating_sub(RECEIVED_WITHIN);
        let posted_at = inner.orders.get(seller_order_id).map_or(earliest, |order| order.posted_at);
        inner.drivers[driver].history.assigned(posted_at.max(earliest), now, availability_after);
        if let Some(order) = inner.orders.get_mut(seller_order_id) {
            order.unassigned = false;
            if order.on_socket_after.is_none() {
                order.on_socket_after = Some(now.saturating_sub(order.posted_at));
                inner.progress.orders_assigned += 1;
                inner.record_latency(seller_order_id);
            }
        }
        inner.last_change = now;
    }

    pub(super) fn delivered(&self, now: Duration, seller_order_id: &str) {
        let mut inner = self.lock();
        match inner.orders.get(seller_order_id) {
            Some(order) if !order.ended => inner.progress.orders_delivered += 1,
            Some(_) => {}
            None => inner.progress.others_delivered += 1,
        }
        inner.ended(now, seller_order_id);
    }

    /// Records that the driver lost the delivery without completing it. Another driver may still get it.
    pub(super) fn unassigned(&self, now: Duration, seller_order_id: &str) {
        let mut inner = self.lock();
        if let Some(order) = inner.orders.get_mut(seller_order_id) {
            order.unassigned = true;
        }
        inner.last_change = now;
    }

    pub(super) fn error(&self, kind: &str) {
        let mut inner = self.lock();
        inner.progress.errors += 1;
        count(&mut inner.report.errors, kind);
    }

    /// Returns whether `keep` drivers stay available when one more order is posted. Every order of this run without a driver
    /// counts as if it had one.
    pub(super) fn can_post_order(&self, now: Duration, keep: usize) -> bool {
        let inner = self.lock();
        let needs_driver = |order: &&Order| {
            let has_none = order.on_socket_after.is_none() || order.unassigned;
            has_none && !order.ended && now.saturating_sub(order.posted_at) < NEEDS_DRIVER_FOR
        };
        let needed = inner.orders.values().filter(needs_driver).count();
        inner.available(now) > keep + needed
    }

    /// Returns whether every driver is connected and none is uncertain.
    pub(super) fn is_fleet_ready(&self, now: Duration) -> bool {
        let inner = self.lock();
        inner
            .drivers
            .iter()
            .all(|driver| driver.connected && driver.history.availability_at(now) != Availability::Uncertain)
    }

    // --- orders ---

    /// Records an order that is about to be posted. Returns false when too many orders are open.
    pub(super) fn order_posted(&self, seller_order_id: &str, now: Duration, pickup: Position) -> bool {
        let mut inner = self.lock();
        if inner.orders.len() >= MAX_OPEN_ORDERS {
            return false;
        }
        let order = Order { pickup: Some(pickup), posted_at: now, ..Order::default() };
        inner.orders.insert(seller_order_id.to_owned(), order);
        inner.progress.orders_posted += 1;
        inner.last_change = now;
        true
    }

    /// Records that the webhook accepted the order.
    pub(super) fn order_answered(&self, seller_order_id: &str, now: Duration, answer: Answer, driver_id: Option<&str>) {
        let mut inner = self.lock();
        let chosen = driver_id.and_then(|id| inner.by_id.get(id).copied());
        let Some(order) = inner.orders.get_mut(seller_order_id) else { return };
        order.answer = Some(answer);
        let window = Window { from: order.posted_at, to: now };
        if let Some(pickup) = order.pickup
            && answer == Answer::AtOnce
        {
            inner.to_judge.push_back(ToJudge { due: now + JUDGE_AFTER, pickup, chosen, window });
        }
        if driver_id.is_some() && chosen.is_none() {
            // A driver outside this run has the order, so no frame of this run reports how it ends.
            inner.orders.remove(seller_order_id);
        }
        inner.record_latency(seller_order_id);
        inner.last_change = now;
    }

    /// Records the latency of one answer of the webhook, whatever its status.
    pub(super) fn webhook_answered(&self, took: Duration) {
        self.lock().webhook.saturating_record(micros(took));
    }

    /// Records that the order never got a 2xx.
    pub(super) fn order_refused(&self, seller_order_id: &str) {
        let mut inner = self.lock();
        if inner.orders.remove(seller_order_id).is_some() {
            inner.report.orders_refused += 1;
        }
    }

    /// Returns the number of orders that were posted and have not ended.
    pub(super) fn open_orders(&self) -> usize {
        self.lock().orders.values().filter(|order| !order.ended).count()
    }

    /// Returns the time of the last change of any order.
    pub(super) fn last_change(&self) -> Duration {
        self.lock().last_change
    }

    // --- the run ---

    /// Runs once a second: judges the orders that are due (all of them when `all`), prunes, and returns a snapshot.
    pub(super) fn tick(&self, now: Duration, all: bool) -> Progress {
        let mut inner = self.lock();
        inner.judge(now, all);
        inner.drivers.iter_mut().for_each(|driver| driver.history.prune(now));
        inner.measure_acks(now);
        let waiting = |order: &&Order| order.answer.is_some() && order.on_socket_after.is_none() && !order.ended;
        inner.progress.orders_waiting = inner.orders.values().filter(waiting).count() as u64;
        inner.progress.drivers_free = inner.available(now);
        inner.progress.elapsed = now;
        inner.progress.webhook = Latency::of(&inner.webhook);
        inner.progress.webhook_to_socket = Latency::of(&inner.to_socket);
        inner.progress.clone()
    }

    pub(super) fn report(&self, seed: u64, speed: f64) -> Report {
        let inner = self.lock();
        let waited_to_socket = Latency::of(&inner.waited);
        let assigned_at_once = inner.to_socket.len();
        let assigned_later = inner.waited.len();
        let last = inner.progress.clone();
        let orders_unassigned = inner.orders.values().filter(|order| order.unassigned && !order.ended).count() as u64;
        Report {
            last,
            seed,
            speed,
            assigned_at_once,
            assigned_later,
            orders_unassigned,
            waited_to_socket,
            ..inner.report.clone()
        }
    }
}

impl Inner {
    fn available(&self, now: Duration) -> usize {
        self.drivers.iter().filter(|driver| driver.connected && driver.history.is_available(now)).count()
    }

    /// Computes the rate over the last few seconds. Drivers send in bursts, so the rate of a single second varies too much.
    fn measure_acks(&mut self, now: Duration) {
        self.acked_marks.push_back((now, self.progress.heartbeats_acked));
        while self.acked_marks.len() > 2 && now.saturating_sub(self.acked_marks[0].0) > RATE_OVER {
            self.acked_marks.pop_front();
        }
        let (since, acked) = self.acked_marks[0];
        let passed_s = now.saturating_sub(since).as_secs_f64();
        if passed_s > 0.5 {
            self.progress.heartbeats_acked_per_s = (self.progress.heartbeats_acked - acked) as f64 / passed_s;
        }
    }

    /// Records the latency to the socket once both the answer and the frame arrived, in either order.
    fn record_latency(&mut self, seller_order_id: &str) {
        let Some(order) = self.orders.get(seller_order_id) else { return };
        let ended = order.ended && order.answer.is_some();
        match (order.answer, order.on_socket_after) {
            (Some(Answer::AtOnce), Some(took)) => self.to_socket.saturating_record(micros(took)),
            (Some(Answer::Later), Some(took)) => self.waited.saturating_record(micros(took)),
            _ => {}
        }
        if ended {
            self.orders.remove(seller_order_id);
        }
    }

    fn ended(&mut self, now: Duration, seller_order_id: &str) {
        self.last_change = now;
        if let Some(order) = self.orders.get_mut(seller_order_id) {
            order.ended = true;
            if order.answer.is_some() {
                self.orders.remove(seller_order_id);
            }
        }
    }

    fn judge(&mut self, now: Duration, all: bool) {
        while let Some(next) = self.to_judge.pop_front_if(|next| all || next.due <= now) {
            let histories = self.drivers.iter().map(|driver| &driver.history);
            let verdict = next
                .chosen
                .map_or(Verdict::Undecidable, |chosen| judge::judge(histories, chosen, next.pickup, next.window));
            if verdict == Verdict::NotNearest {
                // Logs must not hold positions. The driver's id is enough to find the decision.
                let driver = next.chosen.map(|chosen| self.drivers[chosen].id.as_str());
                tracing::debug!(driver.id = driver, "an order was assigned to a driver who was not the nearest");
            }
            let NearestCounts { nearest, not_nearest, undecidable } = &mut self.report.nearest;
            match verdict {
                Verdict::Nearest => *nearest += 1,
                Verdict::NotNearest => *not_nearest += 1,
                Verdict::Undecidable => *undecidable += 1,
            }
        }
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1)
}

fn count(counts: &mut BTreeMap<String, u64>, kind: &str) {
    let kind = if counts.len() < MAX_KINDS || counts.contains_key(kind) { kind } else { "others" };
    *counts.entry(kind.to_owned()).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger whose drivers are connected and available, with a position that was acknowledged at 9 s.
    fn ledger_of(drivers: usize) -> Ledger {
        let ledger = Ledger::new((0..drivers).map(|n| format!("d{n}")).collect());
        for driver in 0..drivers {
            ledger.connected(driver, Duration::from_secs(20));
            ledger.set_availability(driver, Duration::from_secs(1), Availability::Available);
            ledger.heartbeats_acked(driver, Duration::from_secs(9), 1, 1);
        }
        ledger
    }

    #[test]
    fn an_order_can_be_posted_while_enough_drivers_stay_available() {
        let ledger = ledger_of(3);
        let place = Position::new(1.0, 1.0).unwrap();
        let s = Duration::from_secs;
        assert!(ledger.can_post_order(s(10), 2) && !ledger.can_post_order(s(10), 3));
        assert_eq!(ledger.tick(s(10), false).drivers_free, 3);

        // An order that is posted and not yet assigned will need one of the drivers.
        assert!(ledger.order_posted("own", s(10), place));
        assert!(ledger.can_post_order(s(10), 1) && !ledger.can_post_order(s(10), 2));
        ledger.order_answered("own", s(10), Answer::AtOnce, Some("d0"));
        ledger.assigned(0, s(10), "own", Availability::Unavailable);
        assert!(ledger.can_post_order(s(11), 1) && !ledger.can_post_order(s(11), 2), "the order counts once");

        // An order of another sender occupies a driver as well.
        ledger.assigned(1, s(11), "another sender's", Availability::Unavailable);
        assert!(ledger.can_post_order(s(12), 0) && !ledger.can_post_order(s(12), 1));
        ledger.disconnected(2);
        assert!(!ledger.can_post_order(s(12), 0));
        assert_eq!(ledger.tick(s(12), false).drivers_free, 0);
    }

    #[test]
    fn an_order_of_a_driver_outside_the_run_needs_no_driver_of_the_run() {
        let ledger = ledger_of(2);
        let place = Position::new(1.0, 1.0).unwrap();
        let s = Duration::from_secs;
        assert!(ledger.order_posted("theirs", s(10), place));
        assert!(!ledger.can_post_order(s(10), 1));
        ledger.order_answered("theirs", s(10), Answer::AtOnce, Some("unknown"));
        assert!(ledger.can_post_order(s(10), 1));
        assert_eq!((ledger.open_orders(), ledger.tick(s(10), false).orders_waiting), (0, 0));

        // A waiting order may be assigned outside the run. After a minute it no longer counts.
        assert!(ledger.order_posted("waits", s(10), place));
        ledger.order_answered("waits", s(10), Answer::Later, None);
        assert!(!ledger.can_post_order(s(10), 1));
        for driver in 0..2 {
            ledger.heartbeats_acked(driver, s(70), 2, 1);
        }
        assert!(ledger.can_post_order(s(70), 1));
    }

    #[test]
    fn the_latency_to_the_socket_is_measured_whether_the_answer_or_the_frame_comes_first() {
        let ledger = Ledger::new(vec!["d".to_owned()]);
        let place = Position::new(1.0, 1.0).unwrap();
        let ms = Duration::from_millis;
        for (order, answer) in [("a", Answer::AtOnce), ("b", Answer::Later)] {
            assert!(ledger.order_posted(order, ms(1000), place));
            ledger.assigned(0, ms(1010), order, Availability::Unavailable);
            ledger.order_answered(order, ms(1020), answer, Some("d"));
            ledger.assigned(0, ms(6000), order, Availability::Unavailable);
        }
        assert!(ledger.order_posted("c", ms(1000), place));
        ledger.order_answered("c", ms(1020), Answer::Later, None);
        assert_eq!(ledger.tick(ms(3000), false).orders_waiting, 1);
        ledger.assigned(0, ms(9000), "c", Availability::Unavailable);
        ledger.delivered(ms(9500), "c");
        ledger.delivered(ms(9500), "another sender's");
        ledger.order_refused("never posted");

        let last = ledger.tick(ms(10_000), true);
        assert_eq!((last.orders_posted, last.orders_assigned, last.orders_delivered), (3, 3, 1));
        assert_eq!((last.orders_waiting, last.others_delivered), (0, 1));
        assert!((last.webhook_to_socket.max_ms - 10.0).abs() < 0.1, "{:?}", last.webhook_to_socket);
        let report = ledger.report(1, 1.0);
        assert_eq!((report.assigned_at_once, report.assigned_later), (1, 2));
        assert!((report.waited_to_socket.max_ms - 8000.0).abs() < 10.0);
        assert_eq!(ledger.open_orders(), 2);
        let text = report.to_string();
        assert!(text.contains("3 posted, 3 assigned (1 at once, 2 after waiting)"), "{text}");
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let ledger = Ledger::new(Vec::new());
        for kind in 0..1000 {
            ledger.error(&format!("kind {kind}"));
        }
        let report = ledger.report(1, 1.0);
        assert_eq!(report.errors.len(), MAX_KINDS + 1);
        assert_eq!(report.errors["others"], 1000 - MAX_KINDS as u64);
    }
}
