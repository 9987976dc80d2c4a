//! A driver's session: a real WebSocket client that stores every received frame until a test takes it.
//!
//! Invariants:
//! - Every received frame matches `docs/schemas/server-frames.json`. A frame that does not match fails the test.
//! - Acks of heartbeats are counted and not stored.
//! - Commands are acknowledged on receipt unless a test turns this off.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::SOON;
use super::schema::Schema;

/// The subprotocol that a client requests.
pub const SUBPROTOCOL: &str = "driver-tracker.v1";

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// With a close frame of this code.
    With(u16),
    /// Without a close frame: a reset, or a process that died.
    Abruptly,
}

#[derive(Default)]
struct Inbox {
    frames: Vec<Value>,
    acked: Option<i64>,
    closed: Option<Closed>,
    /// The first frame that does not match the schema, with its errors.
    malformed: Option<String>,
}

/// An open session.
pub struct Session {
    outgoing: mpsc::UnboundedSender<Message>,
    inbox: Arc<Mutex<Inbox>>,
    changed: watch::Receiver<u64>,
    acks_commands: Arc<AtomicBool>,
    /// The latest heartbeat interval in ms; 0 before the first one is received.
    interval_ms: watch::Receiver<u64>,
    tasks: [JoinHandle<()>; 2],
}

/// Returns an upgrade request that the caller may change before it sends it.
pub fn upgrade(address: &str, path_and_query: &str, headers: &[(&'static str, &str)]) -> Request<()> {
    let mut request = format!("ws://{address}{path_and_query}").into_client_request().expect("the address is valid");
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).expect("the header value is valid"));
    }
    request
}

impl Session {
    /// Opens a session as a driver's app does. `Err` is the status of the refusal.
    pub async fn try_connect(address: &str, token: &str) -> Result<Session, u16> {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("sec-websocket-protocol", SUBPROTOCOL)];
        Self::open(upgrade(address, "/ws/driver", &headers)).await
    }

    /// Opens a session as a driver's app does. Panics when it is refused.
    pub async fn connect(address: &str, token: &str) -> Session {
        let outcome = Self::try_connect(address, token).await;
        outcome.unwrap_or_else(|status| panic!("the upgrade was refused with {status}"))
    }

    /// Sends an upgrade request unchanged. `Err` is the status of the refusal.
    pub async fn open(request: Request<()>) -> Result<Session, u16> {
        match tokio::time::timeout(SOON, connect_async(request)).await.expect("the upgrade request gets a response") {
            Ok((socket, _)) => Ok(Self::run(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("the upgrade failed: {error}"),
        }
    }

    fn run(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Session {
        let (mut sink, mut stream) = socket.split();
        let (outgoing, mut to_send) = mpsc::unbounded_channel::<Message>();
        let inbox: Arc<Mutex<Inbox>> = Arc::default();
        let (notify, changed) = watch::channel(0_u64);
        let acks_commands = Arc::new(AtomicBool::new(true));
        let (interval_sender, interval_ms) = watch::channel(0_u64);
        let writer = tokio::spawn(async move {
            while let Some(message) = to_send.recv().await {
                if sink.send(message).await.is_err() {
                    break;
                }
            }
            // This half must stay alive: dropping it closes the socket.
            std::future::pending::<()>().await;
        });
        let (received, replies, acks) = (inbox.clone(), outgoing.clone(), acks_commands.clone());
        let reader = tokio::spawn(async move {
            let closed = loop {
                match stream.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
                        if let Some(id) = frame["messageId"].as_str().filter(|_| acks.load(Ordering::Relaxed)) {
                            let _ = replies.send(text_of(&json!({"type": "ack", "messageId": id})));
                        }
                        if let Some(new_interval_ms) = frame["heartbeatIntervalMs"].as_u64() {
                            interval_sender.send_replace(new_interval_ms);
                        }
                        store_frame(&received, frame);
                    }
                    Some(Ok(Message::Close(frame))) => {
                        break frame.map_or(Closed::Abruptly, |f| Closed::With(f.code.into()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break Closed::Abruptly,
                }
                notify.send_modify(|n| *n += 1);
            };
            received.lock().expect("the lock of the inbox is not poisoned").closed = Some(closed);
            notify.send_modify(|n| *n += 1);
            // Reading continues so that the closing handshake completes.
            while let Some(Ok(_)) = stream.next().await {}
            std::future::pending::<()>().await;
        });
        Session { outgoing, inbox, changed, acks_commands, interval_ms, tasks: [writer, reader] }
    }

    /// Sets whether commands are acknowledged on receipt. The default is yes.
    pub fn acknowledge_commands(&self, yes: bool) {
        self.acks_commands.store(yes, Ordering::Relaxed);
    }

    /// Returns the latest heartbeat interval in ms from `welcome` or `config`.
    pub fn interval_ms(&self) -> watch::Receiver<u64> {
        self.interval_ms.clone()
    }

    /// Sends a frame.
    pub fn send(&self, frame: &Value) {
        self.send_raw(text_of(frame));
    }

    /// Sends a text message unchanged.
    pub fn send_text(&self, text: &str) {
        self.send_raw(Message::text(text.to_owned()));
    }

    /// Sends any WebSocket message.
    pub fn send_raw(&self, message: Message) {
        // A closed socket shows by the missing response.
        let _ = self.outgoing.send(message);
    }

    /// Waits until `probe` returns `Some` for the received frames.
    async fn wait_until<T>(&self, what: &str, within: Duration, mut probe: impl FnMut(&mut Inbox) -> Option<T>) -> T {
        let mut changed = self.changed.clone();
        let deadline = tokio::time::Instant::now() + within;
        loop {
            changed.mark_unchanged();
            {
                let mut inbox = self.inbox.lock().expect("the lock of the inbox is not poisoned");
                assert!(inbox.malformed.is_none(), "{:?}", inbox.malformed);
                if let Some(found) = probe(&mut inbox) {
                    return found;
                }
            }
            let change = tokio::time::timeout_at(deadline, changed.changed()).await;
            if !matches!(change, Ok(Ok(()))) {
                let inbox = self.inbox.lock().expect("the lock of the inbox is not poisoned");
                panic!(
                    "{what} did not arrive within {within:?}; closed: {:?}; frames not taken: {:?}",
                    inbox.closed, inbox.frames
                );
            }
        }
    }

    /// Waits for the first frame that matches, and takes it.
    pub async fn take_where(&self, what: &str, within: Duration, fits: impl Fn(&Value) -> bool) -> Value {
        self.wait_until(what, within, |inbox| {
            let at = inbox.frames.iter().position(&fits)?;
            Some(inbox.frames.remove(at))
        })
        .await
    }

    /// Waits for the first frame of a type, and takes it.
    pub async fn take(&self, kind: &str) -> Value {
        self.take_where(kind, SOON, |frame| frame["type"] == kind).await
    }

    /// Waits for the first frame of any type, and takes it.
    pub async fn take_first(&self) -> Value {
        self.take_where("any frame", SOON, |_| true).await
    }

    /// Takes the response to the frame whose `ref` is `reference`.
    pub async fn take_response(&self, reference: &str) -> Value {
        let fits = |frame: &Value| frame["ref"] == reference && matches!(frame["type"].as_str(), Some("ok" | "error"));
        self.take_where(&format!("the response to {reference}"), SOON, fits).await
    }

    /// Sends a frame with a unique `ref` and takes its response.
    pub async fn send_request(&self, mut frame: Value) -> Value {
        let reference = format!("r{}", super::servers::next_number());
        frame["ref"] = json!(reference);
        self.send(&frame);
        self.take_response(&reference).await
    }

    /// Waits until every heartbeat up to `seq` is acknowledged.
    pub async fn wait_for_ack(&self, seq: i64) {
        self.wait_until(&format!("the ack of {seq}"), SOON, |inbox| inbox.acked.filter(|acked| *acked >= seq)).await;
    }

    /// Returns the received frames of a type that no test has taken.
    pub fn waiting(&self, kind: &str) -> Vec<Value> {
        let inbox = self.inbox.lock().expect("the lock of the inbox is not poisoned");
        inbox.frames.iter().filter(|frame| frame["type"] == kind).cloned().collect()
    }

    /// Returns how the connection ended, or `None` while it is open.
    pub fn ended(&self) -> Option<Closed> {
        self.inbox.lock().expect("the lock of the inbox is not poisoned").closed
    }

    /// Waits until the connection ends.
    pub async fn wait_for_close(&self, within: Duration) -> Closed {
        self.wait_until("the end of the socket", within, |inbox| inbox.closed).await
    }

    /// Waits until the connection ends with a close code.
    pub async fn wait_for_close_code(&self, code: u16) {
        assert_eq!(self.wait_for_close(SOON).await, Closed::With(code));
    }
}

impl Drop for Session {
    /// Closes the connection at once, without a close frame.
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn text_of(frame: &Value) -> Message {
    Message::text(frame.to_string())
}

/// Counts an ack and stores any other frame. Records a frame that does not match the schema; it fails the test later.
fn store_frame(inbox: &Mutex<Inbox>, frame: Value) {
    let errors = Schema::of("server-frames").strict_errors(&frame);
    let mut inbox = inbox.lock().expect("the lock of the inbox is not poisoned");
    if !errors.is_empty() {
        inbox.malformed.get_or_insert(format!("docs/schemas/server-frames.json does not describe {frame}: {errors:?}"));
    }
    if frame["type"] == "ack" {
        inbox.acked = inbox.acked.max(frame["seq"].as_i64());
    } else {
        inbox.frames.push(frame);
    }
}
