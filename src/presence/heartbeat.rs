//! Stores heartbeats: renews the drivers' online keys and moves the drivers that searches can find.
//!
//! `SET … GET` writes first and returns the old value; a condition would take a script, at more than twice the
//! cost. The rare heartbeat of a session that was replaced is therefore undone in one more trip, before its answer is
//! given: the newer session's value goes back, and `drivers:geo` is made to follow it.

use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use redis::{Cmd, Value};

use super::keys::member;
use super::online::OnlineValue;
use super::{BATCH, Inner, Outage, Presence, PresenceError, scripts};
use crate::domain::heartbeat::Heartbeat;
use crate::domain::ids::DriverId;

/// The form in which Redis stores a heartbeat.
pub(super) trait Stored {
    /// The value of the driver's online key.
    fn value(&self) -> OnlineValue;

    /// The rest of `ttl` in ms. `None` when the heartbeat is older than `ttl`.
    fn ttl_left_ms(&self, ttl: Duration, now: DateTime<Utc>) -> Option<u64>;
}

impl Stored for Heartbeat {
    fn value(&self) -> OnlineValue {
        OnlineValue { fix: self.fix, received_at: self.received_at, session_epoch: self.session_epoch }
    }

    fn ttl_left_ms(&self, ttl: Duration, now: DateTime<Utc>) -> Option<u64> {
        let age_ms = (now - self.received_at).num_milliseconds().max(0);
        let left_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).saturating_sub(age_ms);
        u64::try_from(left_ms).ok().filter(|left_ms| *left_ms > 0)
    }
}

impl Presence {
    /// Stores the heartbeats and moves the drivers that are in `drivers:geo`.
    ///
    /// For each driver, in order: whether [`Presence::join`] is due, because their key had lapsed, they come through a new
    /// session, or their first known position came. Newest first is the caller's matter: one heartbeat a driver.
    /// One that is older than the TTL, or of an older session than Redis knows, leaves nothing behind. After an error the
    /// drivers of the lost answers are due at their next heartbeat.
    #[tracing::instrument(level = "trace", skip_all)]
    pub async fn heartbeats(&self, heartbeats: &[Heartbeat]) -> Result<Vec<bool>, PresenceError> {
        let mut due = Vec::with_capacity(heartbeats.len());
        for chunk in heartbeats.chunks(BATCH) {
            match self.heartbeat_chunk(chunk).await {
                Ok(mut more) => due.append(&mut more),
                Err(error) => {
                    // The caller learns nothing of the chunks before, which did arrive.
                    let answered = heartbeats.iter().zip(&due).filter(|(_, due)| **due).map(|(beat, _)| beat.driver_id);
                    self.inner.unanswered().extend(answered);
                    return Err(error);
                }
            }
        }
        Ok(due)
    }

    async fn heartbeat_chunk(&self, chunk: &[Heartbeat]) -> Result<Vec<bool>, PresenceError> {
        let now = Utc::now();
        let inner = &self.inner;
        let live: Vec<Option<u64>> = chunk.iter().map(|beat| beat.ttl_left_ms(inner.ttl, now)).collect();
        let sent = || chunk.iter().zip(&live).filter_map(|(beat, left_ms)| left_ms.map(|left_ms| (beat, left_ms)));
        let mut commands: Vec<Cmd> = sent().map(|(beat, left_ms)| inner.remember(beat, left_ms)).collect();
        commands.extend(inner.moves(sent().map(|(beat, _)| beat)));
        // An error or a cancelled call before the answers leaves the drivers marked as unanswered.
        let owing = Owing { inner, chunk, live: &live };
        let owed = owing.of_before();
        let mut answers = inner.link.batch("heartbeats", commands).await?.into_iter();
        let mut due = Vec::with_capacity(chunk.len());
        let mut newer = Vec::new();
        for (number, (beat, live)) in chunk.iter().zip(&live).enumerate() {
            let lapsed = match live {
                Some(_) => {
                    let old = decode(answers.next().ok_or(Outage::Unexpected("SET"))?);
                    newer.extend(old.filter(|old| old.session_epoch > beat.session_epoch).map(|old| (beat, old)));
                    join_is_due(beat, old)
                }
                None => false,
            };
            due.push(lapsed || owed.contains(&number));
        }
        self.put_back(&newer).await?;
        owing.answered();
        Ok(due)
    }

    /// Undoes the heartbeats of replaced sessions. The old value is merged, because the newer session may have sent another
    /// heartbeat meanwhile.
    async fn put_back(&self, newer: &[(&Heartbeat, OnlineValue)]) -> Result<(), PresenceError> {
        let (inner, now) = (&self.inner, Utc::now());
        let commands = newer.iter().flat_map(|(beat, old)| {
            let OnlineValue { fix, received_at, session_epoch } = *old;
            let old = Heartbeat {
                driver_id: beat.driver_id,
                fix,
                fix_is_newest: true,
                received_at,
                session_epoch,
                received: beat.received,
            };
            // The value existed a moment ago. If it has expired by this node's clock, it expires at once and a join follows.
            let left_ms = old.ttl_left_ms(inner.ttl, now).unwrap_or(1);
            [inner.merge(&old, left_ms), inner.join(old.driver_id)]
        });
        inner.link.batch("put_back", commands.collect()).await.map(drop)
    }

    /// The values of the online keys, in order. `None` for a driver who is not online.
    pub async fn online(&self, drivers: &[DriverId]) -> Result<Vec<Option<OnlineValue>>, PresenceError> {
        let mut values = Vec::with_capacity(drivers.len());
        for chunk in drivers.chunks(BATCH) {
            let inner = self.inner.clone();
            let names: Vec<String> = chunk.iter().map(|driver| inner.keys.online(*driver)).collect();
            let link = self.inner.link.clone();
            let texts = link.run("online", |session| async move { inner.read_online(&session, &names).await }).await?;
            values.extend(texts);
        }
        Ok(values)
    }
}

/// Heartbeats under way: when dropped before their answers, their drivers are due at their next one, since it is unknown
/// whether their keys had lapsed.
struct Owing<'a> {
    inner: &'a Inner,
    chunk: &'a [Heartbeat],
    live: &'a [Option<u64>],
}

impl Owing<'_> {
    fn drivers(&self) -> impl Iterator<Item = (usize, DriverId)> {
        let sent = self.chunk.iter().zip(self.live).enumerate().filter(|(_, (_, live))| live.is_some());
        sent.map(|(number, (beat, _))| (number, beat.driver_id))
    }

    /// The indexes of the heartbeats whose drivers were unanswered before this call.
    fn of_before(&self) -> HashSet<usize> {
        let unanswered = self.inner.unanswered();
        if unanswered.is_empty() {
            return HashSet::new();
        }
        self.drivers().filter(|(_, driver)| unanswered.contains(driver)).map(|(number, _)| number).collect()
    }

    /// Records that all answers have arrived.
    fn answered(self) {
        let mut unanswered = self.inner.unanswered();
        if !unanswered.is_empty() {
            for (_, driver) in self.drivers() {
                unanswered.remove(&driver);
            }
        }
        drop(unanswered);
        std::mem::forget(self);
    }
}

impl Drop for Owing<'_> {
    fn drop(&mut self) {
        let drivers = self.drivers().map(|(_, driver)| driver);
        self.inner.unanswered().extend(drivers);
    }
}

impl Inner {
    /// The command that stores one heartbeat and returns the old text.
    fn remember(&self, beat: &Heartbeat, left_ms: u64) -> Cmd {
        if beat.fix.is_none() || !beat.fix_is_newest {
            return self.merge(beat, left_ms);
        }
        let mut command = redis::cmd("SET");
        command.arg(self.keys.online(beat.driver_id)).arg(beat.value().encode()).arg("PX").arg(left_ms).arg("GET");
        command
    }

    /// As [`Self::remember`], but a newer value stays. Newer is decided by session epoch and time. A fix that may be an old one is
    /// compared by its time alone.
    pub(super) fn merge(&self, beat: &Heartbeat, left_ms: u64) -> Cmd {
        let (key, value) = (self.keys.online(beat.driver_id), beat.value().encode());
        let by_time = if beat.fix_is_newest { "0" } else { "1" };
        scripts::REMEMBER.call(&[&key], &[&value, &left_ms.to_string(), by_time])
    }

    /// One command that moves every driver with a new fix. With XX it can never add a driver who was just removed.
    fn moves<'a>(&self, beats: impl Iterator<Item = &'a Heartbeat>) -> Option<Cmd> {
        let mut command = redis::cmd("GEOADD");
        command.arg(&self.keys.geo).arg("XX");
        let mut moved = false;
        for beat in beats {
            let Some(fix) = beat.fix.filter(|_| beat.fix_is_newest) else { continue };
            command.arg(fix.position.lon()).arg(fix.position.lat()).arg(member(beat.driver_id));
            moved = true;
        }
        moved.then_some(command)
    }

    /// The lock must not be held across an await.
    fn unanswered(&self) -> MutexGuard<'_, HashSet<DriverId>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decode(old: Value) -> Option<OnlineValue> {
    match old {
        Value::BulkString(text) => OnlineValue::decode(&text),
        _ => None,
    }
}

fn join_is_due(beat: &Heartbeat, old: Option<OnlineValue>) -> bool {
    old.is_none_or(|old| {
        old.session_epoch < beat.session_epoch
            || (old.session_epoch == beat.session_epoch && old.fix.is_none() && beat.fix.is_some())
    })
}
