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
use super::{Place, driver, join_all};

/// The number of drivers who connect concurrently.
const MAX_CONNECTING: usize = 64;

/// The counts and latencies that the drivers of a crowd record.
#[derive(Default)]
pub struct CrowdStats {
    /// The time from each heartbeat to its ack.
    ack_latencies: Mutex<Vec<Duration>>,
    pub sent: AtomicU64,
    pub acked: AtomicU64,
    pub connected: AtomicU64,
    /// The number of connections that ended.
    /// `closed_for_restart` counts those that ended with code 1012.
    pub ended: AtomicU64,
    pub closed_for_restart: AtomicU64,
    pub assigned: AtomicU64,
}

impl CrowdStats {
    /// Returns percentiles of the ack latencies in ms since the previous call.
    pub fn ack_latency_ms(&self, percentiles: &[usize]) -> Vec<f64> {
        let mut ack_latencies =
            std::mem::take(&mut *self.ack_latencies.lock().expect("the lock of the latencies is not poisoned"));
        ack_latencies.sort();
        let at =
            |p: &usize| ack_latencies.get((ack_latencies.len() * p / 100).min(ack_latencies.len().saturating_sub(1)));
        percentiles.iter().map(|p| at(p).map_or(f64::NAN, |wait| wait.as_secs_f64() * 1000.0)).collect()
    }

    pub fn get(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

fn increment(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Many lightweight drivers. They stop when the value is dropped.
pub struct Crowd {
    pub stats: Arc<CrowdStats>,
    address: watch::Sender<String>,
    heartbeats_on: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Connects one driver for each token. Each sends a heartbeat once in `every`; the heartbeats are spread
    /// evenly over it.
    pub async fn connect(address: &str, tokens: &[String], place: Place, every: Duration) -> Crowd {
        let stats: Arc<CrowdStats> = Arc::default();
        let (address, heartbeats_on) = (watch::Sender::new(address.to_owned()), watch::Sender::new(true));
        let (mut tasks, current_address) = (Vec::new(), address.subscribe());
        for (chunk, group) in tokens.chunks(MAX_CONNECTING).enumerate() {
            let first = group.iter().map(|token| socket::open_with_retries(&current_address, token));
            for (n, socket) in join_all(first).await.into_iter().enumerate() {
                let number = chunk * MAX_CONNECTING + n;
                let driver_task = LightDriver {
                    token: tokens[number].clone(),
                    place: place.offset((number % 200) as f64 * 10.0, (number / 200) as f64 * 10.0),
                    stats: stats.clone(),
                    address: address.subscribe(),
                    heartbeats_on: heartbeats_on.subscribe(),
                    every,
                    seq: 0,
                    acked: 0,
                    waiting: None,
                };
                let offset = every.mul_f64(number as f64 / tokens.len() as f64);
                tasks.push(tokio::spawn(driver_task.run(socket, offset)));
            }
        }
        Crowd { stats, address, heartbeats_on, tasks }
    }

    /// Sets the address that drivers reconnect to from now on.
    pub fn set_reconnect_address(&self, address: &str) {
        self.address.send_replace(address.to_owned());
    }

    /// Stops all heartbeats. The connections stay open.
    pub fn stop_heartbeats(&self) {
        self.heartbeats_on.send_replace(false);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct LightDriver {
    token: String,
    place: Place,
    stats: Arc<CrowdStats>,
    address: watch::Receiver<String>,
    heartbeats_on: watch::Receiver<bool>,
    every: Duration,
    seq: i64,
    acked: i64,
    waiting: Option<(i64, Instant)>,
}

impl LightDriver {
    async fn run(mut self, mut socket: Socket, mut offset: Duration) {
        loop {
            increment(&self.stats.connected);
            let reconnect_after = self.run_connection(socket, offset).await;
            self.stats.connected.fetch_sub(1, Ordering::Relaxed);
            increment(&self.stats.ended);
            tokio::time::sleep(reconnect_after).await;
            let address = self.address.clone();
            socket = socket::open_with_retries(&address, &self.token).await;
            offset = Duration::ZERO;
        }
    }

    /// Runs one connection until it ends. Returns the delay before the next one.
    async fn run_connection(&mut self, mut socket: Socket, offset: Duration) -> Duration {
        let mut heartbeat_timer = tokio::time::interval_at(tokio::time::Instant::now() + offset, self.every);
        heartbeat_timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Heartbeats in flight when the last connection ended get no ack. They count as acknowledged so that
        // nothing waits for them.
        self.stats.acked.fetch_add((self.seq - self.acked).unsigned_abs(), Ordering::Relaxed);
        (self.acked, self.waiting) = (self.seq, None);
        let mut after = Duration::from_millis(rand::random_range(0..1000));
        loop {
            let response = tokio::select! {
                _ = heartbeat_timer.tick() => {
                    if !*self.heartbeats_on.borrow() {
                        continue;
                    }
                    self.seq += 1;
                    self.waiting.get_or_insert((self.seq, Instant::now()));
                    increment(&self.stats.sent);
                    Some(driver::heartbeat(self.seq, self.place))
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
                        if frame["type"] == "reconnect" {
                            after = Duration::from_millis(frame["afterMs"].as_u64().expect("the frame has afterMs"));
                        }
                        self.handle_frame(&frame)
                    }
                    Some(Ok(Message::Close(frame))) => {
                        if frame.is_some_and(|frame| u16::from(frame.code) == 1012) {
                            increment(&self.stats.closed_for_restart);
                        }
                        return after;
                    }
                    Some(Ok(_)) => None,
                    Some(Err(_)) | None => return after,
                },
            };
            if let Some(frame) = response
                && socket.send(Message::text(frame.to_string())).await.is_err()
            {
                return after;
            }
        }
    }

    fn handle_frame(&mut self, frame: &Value) -> Option<Value> {
        if frame["type"] == "ack" {
            let seq = frame["seq"].as_i64().expect("the ack has a seq");
            self.stats.acked.fetch_add((seq - self.acked).max(0).unsigned_abs(), Ordering::Relaxed);
            self.acked = self.acked.max(seq);
            if let Some((_, since)) = self.waiting.take_if(|(waiting, _)| *waiting <= seq) {
                self.stats
                    .ack_latencies
                    .lock()
                    .expect("the lock of the latencies is not poisoned")
                    .push(since.elapsed());
            }
        }
        if frame["type"] == "assignment" {
            increment(&self.stats.assigned);
        }
        frame["messageId"].as_str().map(|id| json!({"type": "ack", "messageId": id}))
    }
}
