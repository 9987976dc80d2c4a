//! Flow control: how many sent bytes the client is not known to have read. Pure: it uses no socket and no clock of its
//! own.
//!
//! A kernel buffers bytes for a client that does not read them, so a successful write says little. A ping follows the
//! sent bytes, and its pong comes from a client that has read up to the ping. Only the payload of frames is counted.

use std::time::{Duration, Instant};

/// The bytes that may be unread. Beyond this window commands wait, since PostgreSQL keeps them.
const WINDOW: u64 = 256 * 1024;
/// The bytes after which a ping checks how far the client has read. It is small enough that a client that reads stays
/// far from the window.
const ASK_EVERY: u64 = 32 * 1024;
/// The bytes that may be sent beyond the window: answers to a client that sends requests and does not read the answers.
const PAST_WINDOW: u64 = 512 * 1024;
/// How long a client may stay beyond the window without reading further. Only the end of a frame can be checked, so a
/// large frame gets this time for each [`ASK_EVERY`] of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most unanswered pings that are counted. A client may answer late, and all at once.
const MAX_UNANSWERED: u32 = 32;

/// The most parts of [`ASK_EVERY`] that extend the time for a frame: 512 KiB.
const MAX_PARTS: u32 = 16;

/// Bytes sent to a client, and what it is known to have read.
#[derive(Debug, Default)]
pub struct Outgoing {
    sent: u64,
    read: u64,
    /// The position of the newest ping.
    asked: u64,
    /// Pings that no pong has answered yet.
    unanswered: u32,
    /// The largest frame that is not known to be read.
    largest: Option<Frame>,
    full: Option<Full>,
}

/// A frame that was sent.
#[derive(Debug, Clone, Copy)]
struct Frame {
    bytes: u64,
    /// The total sent, including this frame.
    upto: u64,
}

/// The client is beyond the window.
#[derive(Debug)]
struct Full {
    since: Instant,
    /// The total sent at that time.
    sent: u64,
}

impl Outgoing {
    /// Counts sent bytes. `true` when it is time to ping the client.
    pub fn sent(&mut self, bytes: usize, now: Instant) -> bool {
        let bytes = bytes as u64;
        self.sent += bytes;
        if self.largest.is_none_or(|largest| largest.bytes <= bytes) {
            self.largest = Some(Frame { bytes, upto: self.sent });
        }
        if !self.has_room() && self.full.is_none() {
            self.full = Some(Full { since: now, sent: self.sent });
        }
        self.sent - self.asked >= ASK_EVERY
    }

    /// The payload of a ping: the position that its pong confirms.
    pub fn ask(&mut self) -> [u8; 8] {
        self.asked = self.sent;
        self.unanswered = (self.unanswered + 1).min(MAX_UNANSWERED);
        self.sent.to_be_bytes()
    }

    /// Records a pong. A pong without the payload of a ping confirms nothing. `true` when a ping is unanswered: each
    /// ping allows one pong.
    pub fn answered(&mut self, payload: &[u8], now: Instant) -> bool {
        let is_asked_for = self.unanswered > 0;
        self.unanswered = self.unanswered.saturating_sub(1);
        let upto = payload.try_into().map_or(0, u64::from_be_bytes);
        if upto > self.read && upto <= self.asked {
            self.read = upto;
            self.largest = self.largest.filter(|largest| largest.upto > upto);
            self.full = (!self.has_room()).then_some(Full { since: now, sent: self.sent });
        }
        is_asked_for
    }

    /// Whether commands may be sent.
    pub fn has_room(&self) -> bool {
        self.sent - self.read <= WINDOW
    }

    /// Whether the client reads so little that its session ends.
    pub fn is_too_slow(&self, now: Instant) -> bool {
        self.full.as_ref().is_some_and(|full| {
            now.duration_since(full.since) >= self.patience() || self.sent - full.sent > PAST_WINDOW
        })
    }

    fn patience(&self) -> Duration {
        let largest = self.largest.map_or(0, |largest| largest.bytes);
        PATIENCE * u32::try_from(largest.div_ceil(ASK_EVERY)).unwrap_or(u32::MAX).clamp(1, MAX_PARTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn a_client_that_answers_pings_is_never_too_slow_however_much_it_is_sent() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        for _ in 0..1000 {
            if outgoing.sent(8 * KIB, now) {
                let ping = outgoing.ask();
                outgoing.answered(&ping, now);
            }
            assert!(outgoing.has_room() && !outgoing.is_too_slow(now + PATIENCE * 10));
        }
    }

    #[test]
    fn one_that_reads_nothing_gets_no_more_commands_and_is_ended_after_a_while_or_when_it_asks_for_more() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        (0..8).for_each(|_| _ = outgoing.sent(32 * KIB, now));
        assert!(outgoing.has_room() && !outgoing.is_too_slow(now + PATIENCE));
        outgoing.sent(1, now);
        assert!(!outgoing.has_room() && !outgoing.is_too_slow(now));
        assert!(outgoing.is_too_slow(now + PATIENCE));
        outgoing.sent(512 * KIB, now);
        assert!(!outgoing.is_too_slow(now));
        outgoing.sent(1, now);
        assert!(outgoing.is_too_slow(now));
    }

    #[test]
    fn reading_on_gives_more_time_and_reading_up_gives_room() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        (0..4).for_each(|_| _ = outgoing.sent(25 * KIB, now));
        let early = outgoing.ask();
        (0..12).for_each(|_| _ = outgoing.sent(25 * KIB, now));
        let late = outgoing.ask();
        outgoing.answered(&early, now + PATIENCE / 2);
        assert!(!outgoing.has_room() && !outgoing.is_too_slow(now + PATIENCE));
        assert!(outgoing.is_too_slow(now + PATIENCE * 2));
        outgoing.answered(&late, now + PATIENCE);
        assert!(outgoing.has_room() && !outgoing.is_too_slow(now + PATIENCE * 10));
    }

    #[test]
    fn each_ping_asks_for_one_pong() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        assert!(!outgoing.answered(b"", now));
        let pings = [outgoing.ask(), outgoing.ask()];
        assert!(pings.iter().all(|ping| outgoing.answered(ping, now)));
        assert!(!outgoing.answered(&pings[1], now));
        for _ in 0..1000 {
            outgoing.ask();
        }
        assert_eq!((0..1000).filter(|_| outgoing.answered(b"", now)).count(), 32);
    }

    #[test]
    fn a_large_frame_may_take_as_long_as_small_ones_of_its_size() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        outgoing.sent(300 * KIB, now);
        let large = outgoing.ask();
        assert!(!outgoing.has_room() && !outgoing.is_too_slow(now + PATIENCE * 9));
        assert!(outgoing.is_too_slow(now + PATIENCE * 10));
        // Once the frame is read, its extra time is gone.
        outgoing.answered(&large, now);
        (0..9).for_each(|_| _ = outgoing.sent(32 * KIB, now));
        assert!(!outgoing.has_room() && outgoing.is_too_slow(now + PATIENCE));
    }

    #[test]
    fn a_pong_of_the_clients_own_making_says_nothing() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        outgoing.sent(300 * KIB, now);
        for forged in [&b""[..], b"hello", &u64::MAX.to_be_bytes(), &(300 * KIB as u64).to_be_bytes()] {
            outgoing.answered(forged, now);
            assert!(!outgoing.has_room(), "{forged:?}");
        }
    }
}
