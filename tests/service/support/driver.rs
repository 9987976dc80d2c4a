//! A driver with an app: a session, a place, and a heartbeat that repeats in the background.
//!
//! Invariants:
//! - The background heartbeat follows the interval of the latest `welcome` or `config`.
//! - `seq` grows with every heartbeat, also over several sessions.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::session::Session;
use super::{Node, Place};

/// The share of the heartbeat interval that passes between two heartbeats. It is below 1 because timers fire late.
const INTERVAL_SHARE: f64 = 0.8;

/// A driver with an app.
pub struct Driver {
    pub id: String,
    pub token: String,
    pub name: String,
    pub session: Arc<Session>,
    place: Arc<Mutex<Place>>,
    seq: Arc<AtomicI64>,
    heartbeat_task: Option<JoinHandle<()>>,
}

/// Returns a heartbeat frame with the current time.
pub fn heartbeat(seq: i64, place: Place) -> Value {
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    json!({"type": "heartbeat", "seq": seq, "fixTime": now, "lat": place.lat, "lon": place.lon, "accuracyM": 5.0})
}

impl Driver {
    /// Opens a session for a driver. Asserts that its first frame is the `welcome`.
    pub async fn connect(node: &Node, id: &str, token: &str, place: Place) -> Driver {
        let session = Session::connect(&node.address, token).await;
        let mut driver = Driver {
            id: id.to_owned(),
            token: token.to_owned(),
            name: String::new(),
            session: Arc::new(session),
            place: Arc::new(Mutex::new(place)),
            seq: Arc::new(AtomicI64::new(100)),
            heartbeat_task: None,
        };
        driver.take_welcome().await;
        driver
    }

    /// Takes the first frame and asserts that it is this driver's `welcome`.
    async fn take_welcome(&mut self) -> Value {
        let first = self.session.take_first().await;
        assert_eq!(first["type"], "welcome", "the first frame of a session is the welcome: {first}");
        assert_eq!(first["driver"]["id"], self.id.as_str());
        self.name = first["driver"]["name"].as_str().unwrap_or_default().to_owned();
        first
    }

    /// Opens a new session and returns its `welcome`. The background heartbeat continues there if it ran before.
    pub async fn reconnect(&mut self, node: &Node) -> Value {
        let sent_heartbeats = self.heartbeat_task.is_some();
        self.stop_heartbeats();
        self.session = Arc::new(Session::connect(&node.address, &self.token).await);
        let welcome = self.take_welcome().await;
        if sent_heartbeats {
            self.heartbeat().await;
            self.start_heartbeats();
        }
        welcome
    }

    /// Sends one heartbeat from the driver's place and returns its `seq`. Does not wait for the `ack`.
    pub fn send_heartbeat(&self) -> i64 {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        self.session.send(&heartbeat(seq, self.place()));
        seq
    }

    /// Sends one heartbeat and waits for its `ack`.
    pub async fn heartbeat(&self) {
        let seq = self.send_heartbeat();
        self.session.wait_for_ack(seq).await;
    }

    /// Starts the background heartbeat at the interval of the latest `welcome` or `config`.
    pub fn start_heartbeats(&mut self) {
        let (session, place, seq) = (self.session.clone(), self.place.clone(), self.seq.clone());
        self.heartbeat_task = Some(tokio::spawn(async move {
            let mut interval_ms_receiver = session.interval_ms();
            loop {
                let began = tokio::time::Instant::now();
                // A shorter interval counts from the last heartbeat, not from the next one.
                loop {
                    let pause = Duration::from_millis((*interval_ms_receiver.borrow_and_update()).max(50))
                        .mul_f64(INTERVAL_SHARE);
                    let interval_changed = tokio::time::timeout_at(began + pause, interval_ms_receiver.changed()).await;
                    match interval_changed {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return,
                        Err(_) => break,
                    }
                }
                let here = *place.lock().expect("the lock of the place is not poisoned");
                session.send(&heartbeat(seq.fetch_add(1, Ordering::Relaxed), here));
            }
        }));
    }

    /// Stops the background heartbeat. The session stays open.
    pub fn stop_heartbeats(&mut self) {
        if let Some(heartbeat_task) = self.heartbeat_task.take() {
            heartbeat_task.abort();
        }
    }

    /// Returns the driver's place.
    pub fn place(&self) -> Place {
        *self.place.lock().expect("the lock of the place is not poisoned")
    }

    /// Sets the driver's place. The next heartbeat reports it.
    pub fn move_to(&self, place: Place) {
        *self.place.lock().expect("the lock of the place is not poisoned") = place;
    }

    /// Requests a duty by a `status` frame and returns the response.
    pub async fn request_duty(&self, status: &str) -> Value {
        self.session.send_request(json!({"type": "status", "status": status})).await
    }

    /// Goes on duty: reports a fix, requests duty, and starts the background heartbeat.
    pub async fn go_on_duty(&mut self) {
        self.heartbeat().await;
        let response = self.request_duty("AVAILABLE").await;
        assert_eq!(response["type"], "ok", "{response}");
        self.start_heartbeats();
    }

    /// Waits for the assignment of a delivery and returns its frame.
    pub async fn wait_for_assignment(&self, delivery: &str) -> Value {
        let fits = |f: &Value| f["type"] == "assignment" && f["delivery"]["id"] == delivery;
        self.session.take_where(&format!("the assignment of {delivery}"), super::SOON, fits).await
    }

    /// Waits for any assignment. Returns the delivery's id and the assignment's id.
    pub async fn wait_for_any_assignment(&self) -> (String, String) {
        let frame = self.session.take("assignment").await;
        let text = |v: &Value| v.as_str().expect("the frame has the ids").to_owned();
        (text(&frame["delivery"]["id"]), text(&frame["delivery"]["assignmentId"]))
    }

    /// Sends a `delivery.update` and returns the response.
    pub async fn update(&self, delivery: &str, assignment: &str, status: &str, more: Value) -> Value {
        let mut frame = json!({
            "type": "delivery.update", "deliveryId": delivery, "assignmentId": assignment, "status": status,
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            frame[name] = value.clone();
        }
        self.session.send_request(frame).await
    }

    /// Reports `PICKED_UP` and `DELIVERED`. Asserts that both are accepted.
    pub async fn deliver(&self, delivery: &str, assignment: &str) {
        for status in ["PICKED_UP", "DELIVERED"] {
            let response = self.update(delivery, assignment, status, json!({})).await;
            assert_eq!((&response["type"], &response["status"]), (&json!("ok"), &json!(status)), "{response}");
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop_heartbeats();
    }
}
