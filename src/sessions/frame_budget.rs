//! The frame budget of a driver: a token bucket that also ends sessions that do not stop sending.

use std::time::Instant;

/// A token bucket over frames.
pub struct FrameBudget {
    per_second: f64,
    tokens: f64,
    filled: Instant,
    over: u32,
}

/// The verdict on a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Spend {
    /// The frame is within the budget.
    Fine,
    /// The frame is over the budget and is not handled.
    Over,
    /// The client keeps sending over the budget: the socket is closed.
    Flood,
}

impl FrameBudget {
    /// The bucket holds the frames of two seconds; 0 means no limit.
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, tokens: per_second * 2.0, filled: Instant::now(), over: 0 }
    }

    /// Takes one frame out of the budget.
    pub fn spend(&mut self) -> Spend {
        if self.per_second == 0.0 {
            return Spend::Fine;
        }
        let now = Instant::now();
        let earned = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(self.per_second * 2.0);
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            self.over = self.over.saturating_sub(1);
            return Spend::Fine;
        }
        self.over += 1;
        if f64::from(self.over) > self.per_second * 10.0 { Spend::Flood } else { Spend::Over }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_frames_are_refused_and_a_flood_is_ended() {
        let mut budget = FrameBudget::new(5);
        assert!((0..10).all(|_| budget.spend() == Spend::Fine));
        assert_eq!(budget.spend(), Spend::Over);
        assert!((0..200).any(|_| budget.spend() == Spend::Flood));
    }

    #[test]
    fn zero_is_no_limit() {
        let mut budget = FrameBudget::new(0);
        assert!((0..10_000).all(|_| budget.spend() == Spend::Fine));
    }
}
