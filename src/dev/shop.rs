//! A small shop that receives delivery events, for `dev` and for tests. It verifies signatures, stores the events and can
//! be configured to fail.
//!
//! Invariants:
//! - It shares no code with the sender, signatures included, so a mistake of the sender cannot hide here.
//! - Memory is bounded: the oldest events are dropped.
//! - It counts repeats of accepted events and events accepted out of order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::sync::watch;
use tokio::time::timeout;

/// How many events are stored.
const MAX_EVENTS: usize = 10_000;
/// How many event ids are stored for the counts.
const MAX_IDS: usize = 1_000_000;
const MAX_BODY_BYTES: usize = 256 * 1024;
/// Standard Webhooks: the tolerated difference from the sender's clock, in seconds.
const TOLERANCE_S: u64 = 300;
/// How long [`Behaviour::Hang`] waits. It is longer than any client waits.
const HANG: Duration = Duration::from_secs(3600);

/// Why a shop cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    /// The secret is not `whsec_` followed by base64.
    #[error("the events' secret must be whsec_ followed by base64")]
    BadSecret,
    /// The address cannot be bound, for example because the port is taken.
    #[error("the receiving shop cannot listen: {0}")]
    Listen(#[from] std::io::Error),
}

/// How the shop answers an event with a valid signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// Answers 200.
    #[default]
    Ok,
    /// Answers this status.
    Status(u16),
    /// Accepts the request and never answers.
    Hang,
    /// Answers 200 after this time.
    Slow(Duration),
    /// Answers 500 this many times, then 200.
    FailFirst(u32),
    /// Answers 503 with this `Retry-After`, in seconds.
    RetryAfter(u64),
}

/// One request with a valid signature.
#[derive(Clone, Debug)]
pub struct ShopEvent {
    /// The event's name, such as `DELIVERY_ASSIGNED_V1`.
    pub event: String,
    /// The event's id, which is also the request's `webhook-id`.
    pub event_id: String,
    /// The sequence in the delivery's audit trail.
    pub sequence: u64,
    /// The delivery's id.
    pub delivery_id: String,
    /// The shop's id of the order.
    pub seller_order_id: String,
    /// The status after the change.
    pub status: String,
    /// The body as received.
    pub raw: String,
    /// The parsed body.
    pub body: Value,
    /// The status of the answer; 0 while the shop hangs.
    pub answered: u16,
    /// When the request arrived.
    pub received_at: Instant,
}

impl ShopEvent {
    /// Returns whether the answer is 2xx.
    pub fn accepted(&self) -> bool {
        (200..300).contains(&self.answered)
    }
}

/// The counters of the shop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShopCounts {
    /// Requests of any kind.
    pub requests: u64,
    /// Events answered with 2xx, repeats included.
    pub accepted: u64,
    /// Repeats of events that were already accepted.
    pub duplicates: u64,
    /// Events accepted after an event of the same delivery with an equal or higher sequence.
    pub order_violations: u64,
    /// Repeats whose body differs in any byte.
    pub changed_bodies: u64,
    /// Requests whose signature is missing, invalid or stale.
    pub bad_signatures: u64,
    /// Signed requests that are not an event.
    pub unreadable: u64,
}

#[derive(Default)]
struct Memory {
    behaviour: Behaviour,
    failures_left: u32,
    events: VecDeque<ShopEvent>,
    counts: ShopCounts,
    accepted_ids: HashSet<String>,
    /// The body hash of each event received, accepted or not, to compare repeats.
    body_hashes: HashMap<String, u64>,
    last_sequence: HashMap<String, u64>,
}

struct Shared {
    /// One or more keys. All of them are valid, so that a secret can rotate.
    keys: Vec<Vec<u8>>,
    memory: Mutex<Memory>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running shop. It stops when dropped.
pub struct ReceivingShop {
    shared: Arc<Shared>,
    address: SocketAddr,
    handle: ServerHandle,
}

impl ReceivingShop {
    /// Starts on a free loopback port. `secret` is one `whsec_…`, or several joined by commas.
    pub async fn start(secret: &str) -> Result<Self, ShopError> {
        Self::start_at(secret, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts on `address`.
    pub async fn start_at(secret: &str, address: SocketAddr) -> Result<Self, ShopError> {
        let keys = secret.split(',').map(parse_secret).collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(Shared { keys, memory: Mutex::new(Memory::default()), changed: watch::Sender::new(()) });
        let data = web::Data::from(shared.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .app_data(web::PayloadConfig::new(MAX_BODY_BYTES))
                .route("/events", web::post().to(receive))
        });
        let server = server.workers(1).disable_signals().shutdown_timeout(1).bind(address)?;
        let address = server.addrs().first().copied().unwrap_or(address);
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Ok(Self { shared, address, handle })
    }

    /// Returns the URL that events are posted to.
    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Returns the address that the shop listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the last 10,000 events received, oldest first.
    pub fn events(&self) -> Vec<ShopEvent> {
        self.shared.memory().events.iter().cloned().collect()
    }

    /// Returns the counters.
    pub fn counts(&self) -> ShopCounts {
        self.shared.memory().counts
    }

    /// Sets how later requests are answered. A request that is already waiting keeps its old behaviour.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        let mut memory = self.shared.memory();
        memory.behaviour = behaviour;
        memory.failures_left = if let Behaviour::FailFirst(count) = behaviour { count } else { 0 };
    }

    /// Clears all events and counters.
    pub fn clear(&self) {
        let mut memory = self.shared.memory();
        let (behaviour, failures_left) = (memory.behaviour, memory.failures_left);
        *memory = Memory { behaviour, failures_left, ..Memory::default() };
    }

    /// Waits until the events satisfy the predicate. Returns `None` after the time limit.
    pub async fn wait_for(&self, predicate: impl Fn(&[ShopEvent]) -> bool, within: Duration) -> Option<Vec<ShopEvent>> {
        let mut changes = self.shared.changed.subscribe();
        let waiting = async {
            loop {
                changes.mark_unchanged();
                let events = self.events();
                if predicate(&events) {
                    return Some(events);
                }
                changes.changed().await.ok()?;
            }
        };
        timeout(within, waiting).await.ok().flatten()
    }

    /// Stops listening and waits until the listener has ended.
    pub async fn stop(self) {
        self.handle.stop(false).await;
    }
}

impl Drop for ReceivingShop {
    fn drop(&mut self) {
        // `stop` sends the command at once. The future only waits until the listener has ended.
        std::mem::drop(self.handle.stop(false));
    }
}

async fn receive(shop: web::Data<Shared>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let verified = verify(&shop.keys, &request, &body, Utc::now().timestamp());
    let behaviour = {
        let mut memory = shop.memory();
        memory.counts.requests += 1;
        let Some(webhook_id) = verified else {
            memory.counts.bad_signatures += 1;
            return HttpResponse::Unauthorized().finish();
        };
        let (behaviour, answered) = memory.next_behaviour();
        match ShopEvent::read(&webhook_id, &body, answered) {
            Some(event) => memory.record(event),
            None => {
                memory.counts.unreadable += 1;
                return HttpResponse::BadRequest().finish();
            }
        }
        behaviour
    };
    shop.changed.send_replace(());
    match behaviour {
        Behaviour::Ok => HttpResponse::Ok().finish(),
        Behaviour::FailFirst(_) => HttpResponse::InternalServerError().finish(),
        Behaviour::RetryAfter(seconds) => {
            HttpResponse::ServiceUnavailable().insert_header(("Retry-After", seconds)).finish()
        }
        Behaviour::Status(status) => HttpResponse::build(status_code(status)).finish(),
        Behaviour::Slow(wait) => {
            tokio::time::sleep(wait).await;
            HttpResponse::Ok().finish()
        }
        Behaviour::Hang => {
            tokio::time::sleep(HANG).await;
            HttpResponse::GatewayTimeout().finish()
        }
    }
}

impl Memory {
    /// Returns how this request is answered and with which status.
    fn next_behaviour(&mut self) -> (Behaviour, u16) {
        match self.behaviour {
            Behaviour::FailFirst(_) => match self.failures_left.checked_sub(1) {
                Some(left) => {
                    self.failures_left = left;
                    (self.behaviour, 500)
                }
                None => (Behaviour::Ok, 200),
            },
            behaviour @ (Behaviour::Ok | Behaviour::Slow(_)) => (behaviour, 200),
            Behaviour::Status(status) => (self.behaviour, status_code(status).as_u16()),
            Behaviour::Hang => (Behaviour::Hang, 0),
            behaviour @ Behaviour::RetryAfter(_) => (behaviour, 503),
        }
    }

    fn record(&mut self, event: ShopEvent) {
        if self.body_hashes.len() < MAX_IDS {
            let hash = hash_of(&event.raw);
            if *self.body_hashes.entry(event.event_id.clone()).or_insert(hash) != hash {
                self.counts.changed_bodies += 1;
            }
        }
        if event.accepted() {
            self.counts.accepted += 1;
            let has_capacity = self.accepted_ids.len() < MAX_IDS;
            if self.accepted_ids.contains(&event.event_id) {
                self.counts.duplicates += 1;
            } else if has_capacity {
                self.accepted_ids.insert(event.event_id.clone());
                let last = self.last_sequence.entry(event.delivery_id.clone()).or_default();
                if event.sequence <= *last {
                    self.counts.order_violations += 1;
                }
                *last = event.sequence.max(*last);
            }
        }
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

impl ShopEvent {
    /// Returns `None` when the body is not an event, or when `webhook-id` differs from its `eventId`.
    fn read(webhook_id: &str, body: &[u8], answered: u16) -> Option<Self> {
        let raw = std::str::from_utf8(body).ok()?.to_owned();
        let body: Value = serde_json::from_str(&raw).ok()?;
        let text = |field: &str| body.get(field).and_then(Value::as_str).map(str::to_owned);
        let event_id = text("eventId").filter(|event_id| event_id == webhook_id)?;
        Some(Self {
            event: text("event")?,
            event_id,
            sequence: body.get("sequence").and_then(Value::as_u64)?,
            delivery_id: text("deliveryId")?,
            seller_order_id: text("sellerOrderId")?,
            status: text("status")?,
            raw,
            body,
            answered,
            received_at: Instant::now(),
        })
    }
}

fn parse_secret(text: &str) -> Result<Vec<u8>, ShopError> {
    let encoded = text.trim().strip_prefix("whsec_").ok_or(ShopError::BadSecret)?;
    let key = BASE64_STANDARD.decode(encoded).map_err(|_| ShopError::BadSecret)?;
    if key.is_empty() { Err(ShopError::BadSecret) } else { Ok(key) }
}

/// Verifies a request by Standard Webhooks 1.0. Returns the `webhook-id` when one of the signatures is valid for one of the
/// keys and the timestamp is within the tolerance.
fn verify(keys: &[Vec<u8>], request: &HttpRequest, body: &[u8], now_s: i64) -> Option<String> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (id, at) = (header("webhook-id")?, header("webhook-timestamp")?);
    if at.parse::<i64>().ok()?.abs_diff(now_s) > TOLERANCE_S {
        return None;
    }
    let signatures = header("webhook-signature")?.split(' ').filter_map(|one| one.strip_prefix("v1,"));
    let signatures: Vec<Vec<u8>> = signatures.filter_map(|one| BASE64_STANDARD.decode(one).ok()).collect();
    let is_right = |key: &Vec<u8>, signature: &[u8]| {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(body);
        // `verify_slice` compares in constant time.
        mac.verify_slice(signature).is_ok()
    };
    keys.iter().any(|key| signatures.iter().any(|signature| is_right(key, signature))).then(|| id.to_owned())
}

fn status_code(status: u16) -> actix_web::http::StatusCode {
    actix_web::http::StatusCode::from_u16(status).unwrap_or(actix_web::http::StatusCode::INTERNAL_SERVER_ERROR)
}

fn hash_of(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
