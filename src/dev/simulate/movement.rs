//! The movement of one simulated driver: roaming along streets, or along a recorded trace.
//!
//! Times are wall time since the run began. The driver's own time is `speed` times the wall time. A roaming driver drives to
//! a goal when it gets one. A traced driver follows its trace and only estimates when it could have reached the goal.
//!
//! Invariant: the only side effect is the state of a seeded random generator.

use std::collections::VecDeque;
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::geo;
use super::recorded::{Sighting, Trace};
use crate::domain::position::Position;

/// Realistic speeds on a road, in m/s.
pub(super) const ROAD_SPEED_MPS: std::ops::Range<f64> = 5.0..14.0;
/// The assumed speed of a traced driver in a city, in m/s.
const CITY_SPEED_MPS: f64 = 8.0;
/// The factor by which a route along streets is longer than the straight line.
const DETOUR: f64 = 1.3;
/// The time at a pickup or a drop, in seconds of the driver's own time.
const DWELL_S: std::ops::Range<f64> = 20.0..60.0;
/// The maximum number of waypoints in one step. Only unrealistic speeds reach it.
const MAX_LEGS_PER_STEP: usize = 1000;

/// The duty that the movement implies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    On,
    /// Off duty for now.
    Off,
    /// Off duty permanently, because the trace has ended.
    Over,
}

/// One driver's movement.
pub(super) enum Mover {
    Roaming(Roaming),
    Traced(Traced),
}

impl Mover {
    /// Starts at `place`, or at a random point of the circle.
    pub(super) fn roaming(center: Position, radius_km: f64, speed: f64, seed: u64, place: Option<Position>) -> Self {
        Self::Roaming(Roaming::new(center, radius_km, speed, seed, place))
    }

    pub(super) fn traced(trace: Trace, speed: f64, seed: u64) -> Self {
        Self::Traced(Traced { trace, speed, rng: StdRng::seed_from_u64(seed) })
    }

    /// Returns the time at which the driver first connects.
    pub(super) fn starts_at(&self) -> Duration {
        match self {
            Self::Roaming(_) => Duration::ZERO,
            Self::Traced(traced) => traced.wall(traced.trace.fixes()[0].0),
        }
    }

    /// Returns the duty now, and until when it lasts at least.
    pub(super) fn duty(&self, now: Duration) -> (Duty, Option<Duration>) {
        match self {
            Self::Roaming(_) => (Duty::On, None),
            Self::Traced(traced) => traced.duty(now),
        }
    }

    /// Returns the position of the driver. `None` before the trace begins and in its breaks.
    pub(super) fn position(&mut self, now: Duration) -> Option<Position> {
        match self {
            Self::Roaming(roaming) => Some(roaming.advance(now)),
            Self::Traced(traced) => match traced.trace.at(traced.own_s(now)) {
                Sighting::At(place) | Sighting::Over(place) => Some(place),
                Sighting::Before(_) | Sighting::Gap(..) => None,
            },
        }
    }

    /// Returns the speed in metres per second of wall time, for the heartbeat.
    pub(super) fn speed_mps(&self) -> Option<f64> {
        match self {
            Self::Roaming(roaming) if roaming.path.is_empty() => Some(0.0),
            Self::Roaming(roaming) => Some(roaming.leg_mps * roaming.speed),
            Self::Traced(_) => None,
        }
    }

    /// Drives to `goal` and stays there. Returns the time at which the stop there is finished.
    pub(super) fn head_for(&mut self, now: Duration, goal: Position) -> Duration {
        match self {
            Self::Roaming(roaming) => roaming.head_for(now, goal),
            Self::Traced(traced) => traced.time_to(now, traced.last_seen(now), goal),
        }
    }

    /// Clears the goal, so that the driver roams again.
    pub(super) fn release(&mut self) {
        if let Self::Roaming(roaming) = self {
            roaming.has_goal = false;
        }
    }

    /// Returns whether the driver follows a recording.
    pub(super) fn is_traced(&self) -> bool {
        matches!(self, Self::Traced(_))
    }
}

/// Random waypoints within a circle, joined by an east-west and a north-south street.
pub(super) struct Roaming {
    center: Position,
    radius_km: f64,
    speed: f64,
    rng: StdRng,
    here: Position,
    /// The wall time at which the driver was at `here`.
    at: Duration,
    path: VecDeque<Position>,
    leg_mps: f64,
    /// Whether the driver has a goal, where it waits.
    has_goal: bool,
}

impl Roaming {
    fn new(center: Position, radius_km: f64, speed: f64, seed: u64, place: Option<Position>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let anywhere = geo::random_within(&mut rng, center, radius_km);
        let here = place.unwrap_or(anywhere);
        let leg_mps = rng.random_range(ROAD_SPEED_MPS);
        let path = VecDeque::new();
        Self { center, radius_km, speed, rng, here, at: Duration::ZERO, path, leg_mps, has_goal: false }
    }

    fn advance(&mut self, now: Duration) -> Position {
        let mut left_s = now.saturating_sub(self.at).as_secs_f64() * self.speed;
        self.at = self.at.max(now);
        for _ in 0..MAX_LEGS_PER_STEP {
            let Some(&next) = self.path.front() else {
                if self.has_goal {
                    break;
                }
                let waypoint = geo::random_within(&mut self.rng, self.center, self.radius_km);
                self.start_leg(waypoint);
                continue;
            };
            let leg_m = self.here.distance_m(&next);
            let step_m = left_s * self.leg_mps;
            if step_m < leg_m {
                self.here = geo::between(self.here, next, step_m / leg_m);
                break;
            }
            self.here = next;
            self.path.pop_front();
            left_s -= leg_m / self.leg_mps;
        }
        self.here
    }

    fn start_leg(&mut self, goal: Position) {
        let corner = Position::new(self.here.lat(), goal.lon()).unwrap_or(goal);
        self.path = VecDeque::from([corner, goal]);
        self.leg_mps = self.rng.random_range(ROAD_SPEED_MPS);
    }

    fn head_for(&mut self, now: Duration, goal: Position) -> Duration {
        self.advance(now);
        self.start_leg(goal);
        self.has_goal = true;
        let mut way_m = 0.0;
        let mut from = self.here;
        for &to in &self.path {
            way_m += from.distance_m(&to);
            from = to;
        }
        now + wall(way_m / self.leg_mps + self.rng.random_range(DWELL_S), self.speed)
    }
}

/// Movement along a recorded trace.
pub(super) struct Traced {
    trace: Trace,
    speed: f64,
    rng: StdRng,
}

impl Traced {
    fn own_s(&self, now: Duration) -> f64 {
        now.as_secs_f64() * self.speed
    }

    fn wall(&self, own_s: f64) -> Duration {
        wall(own_s, self.speed)
    }

    fn last_seen(&self, now: Duration) -> Position {
        match self.trace.at(self.own_s(now)) {
            Sighting::At(place) | Sighting::Gap(place, _) | Sighting::Over(place) => place,
            Sighting::Before(_) => self.trace.fixes()[0].1,
        }
    }

    fn duty(&self, now: Duration) -> (Duty, Option<Duration>) {
        let own_s = self.own_s(now);
        match self.trace.at(own_s) {
            Sighting::Before(wait_s) | Sighting::Gap(_, wait_s) => (Duty::Off, Some(now + self.wall(wait_s))),
            Sighting::At(_) => (Duty::On, Some(now + self.wall(self.trace.moving_for_s(own_s)))),
            Sighting::Over(_) => (Duty::Over, None),
        }
    }

    fn time_to(&mut self, now: Duration, from: Position, goal: Position) -> Duration {
        let drive_s = from.distance_m(&goal) * DETOUR / CITY_SPEED_MPS;
        let dwell_s = self.rng.random_range(DWELL_S);
        now + self.wall(drive_s + dwell_s)
    }
}

/// Converts seconds of the driver's own time into wall time.
fn wall(own_s: f64, speed: f64) -> Duration {
    Duration::try_from_secs_f64((own_s / speed).max(0.0)).unwrap_or(Duration::MAX / 4)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;
    use crate::config::SETTINGS;
    use crate::dev::demand::SPEED;
    use crate::domain::plausibility::JumpFilter;
    use crate::domain::position::Fix;

    fn center() -> Position {
        Position::new(12.97, 77.59).unwrap()
    }

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_roaming_driver_keeps_to_road_speeds_and_stays_near_the_centre() {
        let mut mover = Mover::roaming(center(), 3.0, 1.0, 7, None);
        let mut here = mover.position(Duration::ZERO).unwrap();
        let mut moved_m = 0.0;
        for second in 1..2000 {
            let next = mover.position(s(f64::from(second))).unwrap();
            let step_m = here.distance_m(&next);
            assert!(step_m < 14.1, "{step_m} m in a second");
            assert!(center().distance_m(&next) < 3.0 * 1000.0 * 1.5);
            moved_m += step_m;
            here = next;
        }
        assert!(moved_m > 2000.0 * 4.0, "{moved_m}");
    }

    #[test]
    fn a_driver_with_a_known_position_starts_from_it() {
        let place = geo::offset(center(), 400.0, -700.0);
        let mut mover = Mover::roaming(center(), 3.0, 1.0, 7, Some(place));
        assert_eq!(mover.position(Duration::ZERO), Some(place));
        assert!(mover.position(s(60.0)).unwrap().distance_m(&place) > 1.0, "the driver moves on from there");
    }

    /// Applies the rule for impossible jumps, at the default limit, to the fixes of `dev`. Heartbeats are late, and their
    /// `fixTime` is up to half a second off.
    #[test]
    fn no_fix_at_the_speed_of_dev_is_a_jump() {
        let limit_kmh: f64 =
            SETTINGS.iter().find(|s| s.name == "FIX_MAX_SPEED_KMH").unwrap().default_text().parse().unwrap();
        let judged = |speed: f64| {
            let mut refused = 0;
            for seed in 0..40 {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut mover = Mover::roaming(center(), 1.5, speed, seed, None);
                let mut filter = JumpFilter::new(limit_kmh, None);
                let mut now_s = 0.0;
                for step in 0..600 {
                    if step % 50 == 20 {
                        mover.head_for(s(now_s), geo::random_within(&mut rng, center(), 1.5));
                    } else if step % 50 == 45 {
                        mover.release();
                    }
                    let position = mover.position(s(now_s)).unwrap();
                    let fix_time_ms = (now_s * 1000.0) as i64 + rng.random_range(0..=500);
                    let time = DateTime::UNIX_EPOCH + TimeDelta::milliseconds(fix_time_ms);
                    refused += usize::from(filter.judge(Fix { position, time }).is_err());
                    now_s += rng.random_range(1.0..3.0);
                }
            }
            refused
        };
        assert_eq!(judged(SPEED), 0);
        assert!(judged(SPEED * 2.0) > 0, "drivers at twice the speed exceed the limit");
    }

    #[test]
    fn the_same_seed_gives_the_same_route() {
        let mut ways = [7, 7, 8].map(|seed| Mover::roaming(center(), 3.0, 2.0, seed, None));
        let places = ways.each_mut().map(|way| way.position(s(100.0)).unwrap());
        assert_eq!(places[0], places[1]);
        assert_ne!(places[0], places[2]);
    }

    #[test]
    fn a_goal_is_reached_by_the_returned_time_and_kept_until_released() {
        let mut mover = Mover::roaming(center(), 3.0, 10.0, 7, None);
        let goal = geo::offset(center(), 5000.0, 2000.0);
        let done_at = mover.head_for(s(3.0), goal);
        assert!(done_at > s(3.0 + 5000.0 / 140.0), "{done_at:?}");
        assert!(mover.position(s(10.0)).unwrap().distance_m(&goal) > 100.0);
        assert!(mover.position(done_at).unwrap().distance_m(&goal) < 1.0);
        assert!(mover.position(done_at + s(60.0)).unwrap().distance_m(&goal) < 1.0);
        mover.release();
        assert!(mover.position(done_at + s(70.0)).unwrap().distance_m(&goal) > 100.0);
    }

    #[test]
    fn a_traced_driver_follows_its_trace_and_is_off_duty_in_breaks() {
        let at = |lat| Position::new(lat, 0.0).unwrap();
        let trace = Trace::new("a", vec![(100.0, at(0.0)), (200.0, at(0.01)), (900.0, at(0.02)), (950.0, at(0.03))]);
        let mut mover = Mover::traced(trace.unwrap(), 10.0, 1);
        assert_eq!(mover.starts_at(), s(10.0));
        assert_eq!(mover.duty(s(15.0)), (Duty::On, Some(s(20.0))));
        let goal = at(0.1);
        let done_at = mover.head_for(s(15.0), goal);
        assert!(done_at > s(15.0 + 10_500.0 * DETOUR / CITY_SPEED_MPS / 10.0), "{done_at:?}");
        assert!((mover.position(s(15.0)).unwrap().lat() - 0.005).abs() < 1e-9, "the goal does not change the route");
        assert_eq!(mover.duty(s(30.0)), (Duty::Off, Some(s(90.0))));
        assert_eq!(mover.position(s(30.0)), None);
        assert_eq!(mover.duty(s(95.0)), (Duty::Over, None));
    }
}
