//! Many lightweight drivers: one task and one connection each.
//!
//! Each driver sends heartbeats, acknowledges commands, reconnects after a close, and measures the latency of its
//! acks.
//!
//! Invariant: the drivers of a crowd stop when the [`Crowd`] is dropped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::socket::{self, Socket};
use super::{Place, driver, together};

/// The number of drivers who connect concurrently.
const CONNECTING: usize = 64;

/// The counts and latencies that the drivers of a crowd record.
#[derive(Default)]
pub struct Seen {
    /// The time from each heartbeat to its ack.
    waits: Mutex<Vec<Duration>>,
    pub sent: AtomicU64,
    pub acked: AtomicU64,
    pub connected: AtomicU64,
    /// The number of connections that ended.
    /// `closed_for_restart` counts those that ended with code 1012.
    pub ended: AtomicU64,
    pub sent_away: AtomicU64,
    pub assigned: AtomicU64,
}

impl Seen {
    /// Returns percentiles of the ack latencies in ms since the previous call.
    pub fn waits_ms(&self, hundredths: &[usize]) -> Vec<f64> {
        let mut waits = std::mem::take(&mut *self.waits.lock().expect("the lock of the latencies is not poisoned"));
        waits.sort();
        let at = |p: &usize| waits.get((waits.len() * p / 100).min(waits.len().saturating_sub(1)));
        hundredths.iter().map(|p| at(p).map_or(f64::NAN, |wait| wait.as_secs_f64() * 1000.0)).collect()
    }

    pub fn get(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Many lightweight drivers. They stop when the value is dropped.
pub struct Crowd {
    pub seen: Arc<Seen>,
    address: watch::Sender<String>,
    beating: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Connects one driver for each token. Each sends a heartbeat once in `every`; the heartbeats are spread
    /// evenly over it.
    pub async fn connect(address: &str, tokens: &[String], place: Place, every: Duration) -> Crowd {
        let seen: Arc<Seen> = Arc::default();
        let (address, beating) = (watch::Sender::new(address.to_owned()), watch::Sender::new(true));
        let (mut tasks, present) = (Vec::new(), address.subscribe());
        for (chunk, group) in tokens.chunks(CONNECTING).enumerate() {
            let first = group.iter().map(|token| socket::open_patiently(&present, token));
            for (n, socket) in together(first).await.into_iter().enumerate() {
                let number = chunk * CONNECTING + n;
                let light = Light {
                    token: tokens[number].clone(),
                    place: place.offset((number % 200) as f64 * 10.0, (number / 200) as f64 * 10.0),
                    seen: seen.clone(),
                    address: address.subscribe(),
                    beating: beating.subscribe(),
                    every,
                    seq: 0,
                    acked: 0,
                    waiting: None,
                };
                let offset = every.mul_f64(number as f64 / tokens.len() as f64);
                tasks.push(tokio::spawn(light.live(socket, offset)));
            }
        }
        Crowd { seen, address, beating, tasks }
    }

    /// Sets the address that drivers reconnect to from now on.
    pub fn send_to(&self, address: &str) {
        self.address.send_replace(address.to_owned());
    }

    /// Stops all heartbeats. The connections stay open.
    pub fn fall_silent(&self) {
        self.beating.send_replace(false);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Light {
    token: String,
    place: Place,
    seen: Arc<Seen>,
    address: watch::Receiver<String>,
    beating: watch::Receiver<bool>,
    every: Duration,
    seq: i64,
    acked: i64,
    waiting: Option<(i64, Instant)>,
}

impl Light {
    async fn live(mut self, mut socket: Socket, mut offset: Duration) {
        loop {
            one_more(&self.seen.connected);
            let come_back_after = self.stay(socket, offset).await;
            self.seen.connected.fetch_sub(1, Ordering::Relaxed);
            one_more(&self.seen.ended);
            tokio::time::sleep(come_back_after).await;
            let address = self.address.clone();
            socket = socket::open_patiently(&address, &self.token).await;
            offset = Duration::ZERO;
        }
    }

    /// Runs one connection until it ends. Returns the delay before the next one.
    async fn stay(&mut self, mut socket: Socket, offset: Duration) -> Duration {
        let mut beats = tokio::time::interval_at(tokio::time::Instant::now() + offset, self.every);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Heartbeats in flight when the last connection ended get no ack. They count as acknowledged so that
        // nothing waits for them.
        self.seen.acked.fetch_add((self.seq - self.acked).unsigned_abs(), Ordering::Relaxed);
        (self.acked, self.waiting) = (self.seq, None);
        let mut after = Duration::from_millis(rand::random_range(0..1000));
        loop {
            let answer = tokio::select! {
                _ = beats.tick() => {
                    if !*self.beating.borrow() {
                        continue;
                    }
                    self.seq += 1;
                    self.waiting.get_or_insert((self.seq, Instant::now()));
                    one_more(&self.seen.sent);
                    Some(driver::heartbeat(self.seq, self.place))
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
                        if frame["type"] == "reconnect" {
                            after = Duration::from_millis(frame["afterMs"].as_u64().expect("the frame has afterMs"));
                        }
                        self.hear(&frame)
                    }
                    Some(Ok(Message::Close(frame))) => {
                        if frame.is_some_and(|frame| u16::from(frame.code) == 1012) {
                            one_more(&self.seen.sent_away);
                        }
                        return after;
                    }
                    Some(Ok(_)) => None,
                    Some(Err(_)) | None => return after,
                },
            };
            if let Some(frame) = answer
                && socket.send(Message::text(frame.to_string())).await.is_err()
            {
                return after;
            }
        }
    }

    fn hear(&mut self, frame: &Value) -> Option<Value> {
        if frame["type"] == "ack" {
            let seq = frame["seq"].as_i64().expect("the ack has a seq");
            self.seen.acked.fetch_add((seq - self.acked).max(0).unsigned_abs(), Ordering::Relaxed);
            self.acked = self.acked.max(seq);
            if let Some((_, since)) = self.waiting.take_if(|(waiting, _)| *waiting <= seq) {
                self.seen.waits.lock().expect("the lock of the latencies is not poisoned").push(since.elapsed());
            }
        }
        if frame["type"] == "assignment" {
            one_more(&self.seen.assigned);
        }
        frame["messageId"].as_str().map(|id| json!({"type": "ack", "messageId": id}))
    }
}
