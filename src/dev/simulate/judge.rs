//! Decides from the simulator's own data whether the chosen driver was the nearest one.
//!
//! The service decides at some moment between the post of an order and its answer. In that window drivers move and become
//! available or unavailable. So a driver counts with every position that the service may have used in the window, and is
//! available, unavailable or uncertain.
//!
//! Invariant: the verdict is "nearest" or "not nearest" only if it holds for all these positions. This module does no IO.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::position::Position;

/// A difference in distance up to this counts as a tie.
const TIE_M: f64 = 30.0;
/// After a commit, the searches of the service may need this time to see it.
pub(super) const SEARCH_DELAY: Duration = Duration::from_secs(1);
/// How much of the past a history covers.
const KEEP: Duration = Duration::from_secs(25);
/// A window longer than this is not judged.
pub(super) const MAX_WINDOW: Duration = Duration::from_secs(10);
/// The maximum number of fixes, and of changes, that are kept per driver.
const MAX_ENTRIES: usize = 512;

/// The availability of a driver, as the service may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// The driver is on duty with a free slot, and the service has had time to see it.
    Available,
    /// The availability is changing.
    Uncertain,
    /// The driver is busy or off duty.
    Unavailable,
}

/// The outcome for one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Nearest,
    /// Another driver was certainly available and certainly nearer, by more than 30 m.
    NotNearest,
    /// The outcome depends on moves or changes that were in progress.
    Undecidable,
}

/// The time between the post of an order and its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) from: Duration,
    pub(super) to: Duration,
}

struct SentFix {
    seq: u64,
    place: Position,
    sent_at: Duration,
    acked_at: Option<Duration>,
}

/// The recent fixes and availability changes of one driver.
#[derive(Default)]
pub(super) struct History {
    /// How long after an acknowledgement the driver's position certainly counts as fresh.
    pub(super) fresh_for: Duration,
    fixes: VecDeque<SentFix>,
    last_ack: Option<Duration>,
    /// Start time and availability, in ascending order of time.
    availability: VecDeque<(Duration, Availability)>,
}

impl History {
    pub(super) fn fix_sent(&mut self, now: Duration, seq: u64, place: Position) {
        if self.fixes.len() >= MAX_ENTRIES {
            self.fixes.pop_front();
        }
        self.fixes.push_back(SentFix { seq, place, sent_at: now, acked_at: None });
    }

    /// Records that the service acknowledged every heartbeat up to `seq`.
    pub(super) fn acked(&mut self, now: Duration, seq: u64) {
        self.last_ack = Some(now);
        for fix in self.fixes.iter_mut().filter(|fix| fix.seq <= seq) {
            fix.acked_at.get_or_insert(now);
        }
    }

    /// Removes a fix that the service refused.
    pub(super) fn refused(&mut self, seq: u64) {
        self.fixes.retain(|fix| fix.seq != seq);
    }

    /// Sets the availability from `at` on. It replaces what was recorded for later times.
    pub(super) fn set_availability(&mut self, at: Duration, availability: Availability) {
        if self.availability_at(Duration::MAX) == availability && !self.availability.is_empty() {
            return;
        }
        self.truncate_from(at);
        if availability == Availability::Available {
            self.availability.push_back((at, Availability::Uncertain));
            self.availability.push_back((at + SEARCH_DELAY, Availability::Available));
        } else {
            self.availability.push_back((at, availability));
        }
    }

    /// Records an assignment that was received at `now` and made at some time after `since`.
    pub(super) fn assigned(&mut self, since: Duration, now: Duration, availability_after: Availability) {
        // The assignment cannot be older than the moment at which the driver became available.
        let available_since =
            self.availability.iter().rev().find(|(at, what)| *what != Availability::Available && *at <= now);
        let since = available_since.map_or(since, |(at, _)| since.max(*at));
        self.truncate_from(since);
        self.availability.push_back((since, Availability::Uncertain));
        self.availability.push_back((now.max(since), availability_after));
    }

    /// Removes entries that no window can reach any more.
    pub(super) fn prune(&mut self, now: Duration) {
        let horizon = now.saturating_sub(KEEP);
        while self.fixes.get(1).is_some_and(|next| next.acked_at.is_some_and(|at| at < horizon)) {
            self.fixes.pop_front();
        }
        while self.availability.len() > MAX_ENTRIES || self.availability.get(1).is_some_and(|(at, _)| *at < horizon) {
            self.availability.pop_front();
        }
    }

    fn truncate_from(&mut self, at: Duration) {
        while self.availability.back().is_some_and(|(from, _)| *from >= at) {
            self.availability.pop_back();
        }
    }

    pub(super) fn availability_at(&self, at: Duration) -> Availability {
        self.availability
            .iter()
            .rev()
            .find(|(from, _)| *from <= at)
            .map_or(Availability::Unavailable, |(_, what)| *what)
    }

    /// Returns whether the service can assign an order to the driver now: certainly available, with a fresh position.
    pub(super) fn is_available(&self, now: Duration) -> bool {
        self.availability_at(now) == Availability::Available
            && self.last_ack.is_some_and(|at| now.saturating_sub(at) <= self.fresh_for)
    }

    /// Returns the availability if it was the same during the whole window, or uncertain.
    fn availability_in(&self, window: Window) -> Availability {
        let first = self.availability_at(window.from);
        let changes =
            self.availability.iter().any(|(at, what)| *at > window.from && *at <= window.to && *what != first);
        if changes { Availability::Uncertain } else { first }
    }

    /// Returns the least and the greatest distance to `pickup` among the positions that the service may have used.
    fn distances_m(&self, window: Window, pickup: Position) -> Option<(f64, f64)> {
        let stored = self.fixes.iter().rposition(|fix| fix.acked_at.is_some_and(|at| at <= window.from));
        let possible = self.fixes.iter().skip(stored.unwrap_or(0)).filter(|fix| fix.sent_at <= window.to);
        possible.map(|fix| fix.place.distance_m(&pickup)).fold(None, |range, distance_m| {
            let (least, most) = range.unwrap_or((distance_m, distance_m));
            Some((f64::min(least, distance_m), f64::max(most, distance_m)))
        })
    }
}

/// Judges one order that was assigned to `chosen`.
pub(super) fn judge<'a>(
    drivers: impl Iterator<Item = &'a History>,
    chosen: usize,
    pickup: Position,
    window: Window,
) -> Verdict {
    if window.to.saturating_sub(window.from) > MAX_WINDOW {
        return Verdict::Undecidable;
    }
    let mut chosen_m = None;
    // The least distance of a driver that was certainly available, and of one that was possibly available.
    let (mut certain_m, mut possible_m) = (f64::INFINITY, f64::INFINITY);
    for (index, driver) in drivers.enumerate() {
        let Some((least_m, most_m)) = driver.distances_m(window, pickup) else { continue };
        if index == chosen {
            chosen_m = Some((least_m, most_m));
            continue;
        }
        let availability = driver.availability_in(window);
        let fresh = driver.last_ack.is_some_and(|at| window.from.saturating_sub(at) <= driver.fresh_for);
        if availability == Availability::Available && fresh {
            certain_m = certain_m.min(most_m);
        }
        if availability != Availability::Unavailable {
            possible_m = possible_m.min(least_m);
        }
    }
    match chosen_m {
        Some((least_m, _)) if certain_m + TIE_M < least_m => Verdict::NotNearest,
        Some((_, most_m)) if most_m <= possible_m + TIE_M => Verdict::Nearest,
        _ => Verdict::Undecidable,
    }
}

#[cfg(test)]
mod tests {
    use super::super::geo::offset;
    use super::*;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn pickup() -> Position {
        Position::new(12.97, 77.59).unwrap()
    }

    /// A driver that is available since 0 s. Its position at this distance was acknowledged at 9 s.
    fn available_at(distance_m: f64) -> History {
        let mut history = History { fresh_for: s(15.0), ..History::default() };
        history.set_availability(s(0.0), Availability::Available);
        history.fix_sent(s(8.9), 1, offset(pickup(), distance_m, 0.0));
        history.acked(s(9.0), 1);
        history
    }

    fn verdict(drivers: &[History], chosen: usize) -> Verdict {
        judge(drivers.iter(), chosen, pickup(), Window { from: s(10.0), to: s(10.1) })
    }

    #[test]
    fn plain_cases_and_ties() {
        let drivers = [available_at(500.0), available_at(520.0), available_at(900.0)];
        assert_eq!(verdict(&drivers, 0), Verdict::Nearest);
        assert_eq!(verdict(&drivers, 1), Verdict::Nearest, "20 m is a tie");
        assert_eq!(verdict(&drivers, 2), Verdict::NotNearest);
        assert_eq!(verdict(&drivers, 7), Verdict::Undecidable, "the driver is not part of this run");
        let long = Window { from: s(10.0), to: s(30.0) };
        assert_eq!(judge(drivers.iter(), 0, pickup(), long), Verdict::Undecidable);
    }

    #[test]
    fn a_nearer_busy_driver_does_not_count_and_a_changing_one_makes_the_outcome_undecidable() {
        let mut drivers = [available_at(100.0), available_at(500.0)];
        drivers[0].assigned(s(2.0), s(2.1), Availability::Unavailable);
        assert_eq!(verdict(&drivers, 1), Verdict::Nearest);
        drivers[0].set_availability(s(9.5), Availability::Available);
        assert_eq!(verdict(&drivers, 1), Verdict::Undecidable, "available, but the searches may not see it yet");
        assert_eq!(verdict(&drivers, 0), Verdict::Nearest);
    }

    #[test]
    fn an_assignment_received_later_makes_the_time_since_its_order_uncertain() {
        let mut drivers = [available_at(100.0), available_at(500.0)];
        drivers[0].assigned(s(9.9), s(12.0), Availability::Unavailable);
        assert_eq!(verdict(&drivers, 1), Verdict::Undecidable);
        let mut drivers = [available_at(100.0), available_at(500.0)];
        drivers[0].assigned(s(11.0), s(12.0), Availability::Unavailable);
        assert_eq!(verdict(&drivers, 1), Verdict::NotNearest, "a later order took the nearer driver");
    }

    #[test]
    fn a_move_in_progress_counts_with_both_positions() {
        let mut drivers = [available_at(400.0), available_at(500.0)];
        drivers[0].fix_sent(s(9.99), 2, offset(pickup(), 700.0, 0.0));
        assert_eq!(verdict(&drivers, 0), Verdict::Undecidable);
        assert_eq!(verdict(&drivers, 1), Verdict::Undecidable);
        drivers[0].refused(2);
        assert_eq!(verdict(&drivers, 0), Verdict::Nearest);
        drivers[0].fix_sent(s(11.0), 3, offset(pickup(), 9000.0, 0.0));
        drivers[0].acked(s(11.1), 3);
        assert_eq!(verdict(&drivers, 0), Verdict::Nearest, "a fix after the answer does not count");
    }

    #[test]
    fn a_silent_driver_is_not_certainly_available() {
        let drivers = [available_at(100.0), available_at(500.0)];
        let late = Window { from: s(60.0), to: s(60.1) };
        assert_eq!(judge(drivers.iter(), 1, pickup(), late), Verdict::Undecidable);
    }

    #[test]
    fn a_driver_is_available_only_with_a_fresh_position() {
        let mut driver = available_at(100.0);
        assert!(driver.is_available(s(10.0)) && driver.is_available(s(24.0)));
        assert!(!driver.is_available(s(24.1)), "the last position is older than fresh_for");
        driver.acked(s(30.0), 1);
        assert!(driver.is_available(s(30.0)));
        driver.assigned(s(30.0), s(31.0), Availability::Unavailable);
        assert!(!driver.is_available(s(30.5)) && !driver.is_available(s(31.0)));
        assert!(!History::default().is_available(s(0.0)));
    }

    #[test]
    fn pruning_keeps_entries_that_a_window_can_reach() {
        let mut driver = available_at(100.0);
        driver.fix_sent(s(50.0), 2, offset(pickup(), 200.0, 0.0));
        driver.acked(s(50.1), 2);
        driver.prune(s(60.0));
        assert_eq!(
            driver.fixes.len(),
            2,
            "the service used the old position until 50.1 s, which a window can still reach"
        );
        driver.prune(s(100.0));
        assert_eq!((driver.fixes.len(), driver.availability_at(s(100.0))), (1, Availability::Available));
    }
}
