//! A driver's socket: a real WebSocket client that keeps what arrives until a test takes it.

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

/// The protocol that is asked for.
pub const SUBPROTOCOL: &str = "driver-tracker.v1";

/// How a socket ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// With this code.
    With(u16),
    /// Without a close frame: reset, or a process that died.
    Abruptly,
}

#[derive(Default)]
struct Inbox {
    frames: Vec<Value>,
    acked: Option<i64>,
    closed: Option<Closed>,
    /// What is wrong with a frame that no schema knows.
    malformed: Option<String>,
}

/// An open socket.
pub struct Session {
    outgoing: mpsc::UnboundedSender<Message>,
    inbox: Arc<Mutex<Inbox>>,
    changed: watch::Receiver<u64>,
    acks_commands: Arc<AtomicBool>,
    /// The interval of heartbeats in ms as last told; 0 before the first word of it.
    interval_ms: watch::Receiver<u64>,
    tasks: [JoinHandle<()>; 2],
}

/// A request for an upgrade, to be changed before it is sent.
pub fn upgrade(address: &str, path_and_query: &str, headers: &[(&'static str, &str)]) -> Request<()> {
    let mut request = format!("ws://{address}{path_and_query}").into_client_request().expect("an address");
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).expect("a header value"));
    }
    request
}

impl Session {
    /// Upgrades as a driver's app does. `Err` is the status that refused it.
    pub async fn try_connect(address: &str, token: &str) -> Result<Session, u16> {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("sec-websocket-protocol", SUBPROTOCOL)];
        Self::open(upgrade(address, "/ws/driver", &headers)).await
    }

    /// As `try_connect`, for one that must succeed.
    pub async fn connect(address: &str, token: &str) -> Session {
        let outcome = Self::try_connect(address, token).await;
        outcome.unwrap_or_else(|status| panic!("the upgrade was refused with {status}"))
    }

    /// Sends the upgrade as it is.
    pub async fn open(request: Request<()>) -> Result<Session, u16> {
        match tokio::time::timeout(SOON, connect_async(request)).await.expect("an answer to the upgrade") {
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
        let (paced, interval_ms) = watch::channel(0_u64);
        let writer = tokio::spawn(async move {
            while let Some(message) = to_send.recv().await {
                if sink.send(message).await.is_err() {
                    break;
                }
            }
            // The other half keeps the socket open.
            std::future::pending::<()>().await;
        });
        let (kept, replies, acks) = (inbox.clone(), outgoing.clone(), acks_commands.clone());
        let reader = tokio::spawn(async move {
            let closed = loop {
                match stream.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let frame: Value = serde_json::from_str(&text).expect("frames are JSON");
                        if let Some(id) = frame["messageId"].as_str().filter(|_| acks.load(Ordering::Relaxed)) {
                            let _ = replies.send(text_of(&json!({"type": "ack", "messageId": id})));
                        }
                        if let Some(told_ms) = frame["heartbeatIntervalMs"].as_u64() {
                            paced.send_replace(told_ms);
                        }
                        keep(&kept, frame);
                    }
                    Some(Ok(Message::Close(frame))) => {
                        break frame.map_or(Closed::Abruptly, |f| Closed::With(f.code.into()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break Closed::Abruptly,
                }
                notify.send_modify(|n| *n += 1);
            };
            kept.lock().expect("the inbox").closed = Some(closed);
            notify.send_modify(|n| *n += 1);
            // Goes on reading, so that the closing handshake is finished.
            while let Some(Ok(_)) = stream.next().await {}
            std::future::pending::<()>().await;
        });
        Session { outgoing, inbox, changed, acks_commands, interval_ms, tasks: [writer, reader] }
    }

    /// Whether commands are acknowledged as they come; on at first.
    pub fn acknowledge_commands(&self, yes: bool) {
        self.acks_commands.store(yes, Ordering::Relaxed);
    }

    /// How often to send a heartbeat, in ms, as `welcome` or `config` last told.
    pub fn interval_ms(&self) -> watch::Receiver<u64> {
        self.interval_ms.clone()
    }

    /// Sends a frame.
    pub fn send(&self, frame: &Value) {
        self.send_raw(text_of(frame));
    }

    /// Sends a text as it is.
    pub fn send_text(&self, text: &str) {
        self.send_raw(Message::text(text.to_owned()));
    }

    /// Sends any message.
    pub fn send_raw(&self, message: Message) {
        // A closed socket is noticed by what does not come back.
        let _ = self.outgoing.send(message);
    }

    /// Waits until `probe` finds something in what has arrived.
    async fn until<T>(&self, what: &str, within: Duration, mut probe: impl FnMut(&mut Inbox) -> Option<T>) -> T {
        let mut changed = self.changed.clone();
        let deadline = tokio::time::Instant::now() + within;
        loop {
            changed.mark_unchanged();
            {
                let mut inbox = self.inbox.lock().expect("the inbox");
                assert!(inbox.malformed.is_none(), "{:?}", inbox.malformed);
                if let Some(found) = probe(&mut inbox) {
                    return found;
                }
            }
            let news = tokio::time::timeout_at(deadline, changed.changed()).await;
            if !matches!(news, Ok(Ok(()))) {
                let inbox = self.inbox.lock().expect("the inbox");
                panic!(
                    "{what} did not come within {within:?}; closed: {:?}; waiting: {:?}",
                    inbox.closed, inbox.frames
                );
            }
        }
    }

    /// Takes the first frame that fits, waiting for it.
    pub async fn take_where(&self, what: &str, within: Duration, fits: impl Fn(&Value) -> bool) -> Value {
        self.until(what, within, |inbox| {
            let at = inbox.frames.iter().position(&fits)?;
            Some(inbox.frames.remove(at))
        })
        .await
    }

    /// Takes the first frame of a type, waiting for it.
    pub async fn take(&self, kind: &str) -> Value {
        self.take_where(kind, SOON, |frame| frame["type"] == kind).await
    }

    /// Takes the very first frame, whatever it is.
    pub async fn take_first(&self) -> Value {
        self.take_where("any frame", SOON, |_| true).await
    }

    /// Takes the answer to the frame that carried `reference`.
    pub async fn answer(&self, reference: &str) -> Value {
        let fits = |frame: &Value| frame["ref"] == reference && matches!(frame["type"].as_str(), Some("ok" | "error"));
        self.take_where(&format!("an answer to {reference}"), SOON, fits).await
    }

    /// Sends a frame with a `ref` of its own and takes its answer.
    pub async fn ask(&self, mut frame: Value) -> Value {
        let reference = format!("r{}", super::servers::next_number());
        frame["ref"] = json!(reference);
        self.send(&frame);
        self.answer(&reference).await
    }

    /// Waits until every heartbeat up to `seq` is dealt with.
    pub async fn acked(&self, seq: i64) {
        self.until(&format!("an ack of {seq}"), SOON, |inbox| inbox.acked.filter(|acked| *acked >= seq)).await;
    }

    /// Frames of a type that have arrived and were not taken.
    pub fn waiting(&self, kind: &str) -> Vec<Value> {
        let inbox = self.inbox.lock().expect("the inbox");
        inbox.frames.iter().filter(|frame| frame["type"] == kind).cloned().collect()
    }

    /// How the socket ended, if it has.
    pub fn ended(&self) -> Option<Closed> {
        self.inbox.lock().expect("the inbox").closed
    }

    /// Waits for the end of the socket.
    pub async fn closed(&self, within: Duration) -> Closed {
        self.until("the end of the socket", within, |inbox| inbox.closed).await
    }

    /// Waits for the end of the socket with a code.
    pub async fn closed_with(&self, code: u16) {
        assert_eq!(self.closed(SOON).await, Closed::With(code));
    }
}

impl Drop for Session {
    /// The socket is gone at once, without a word.
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn text_of(frame: &Value) -> Message {
    Message::text(frame.to_string())
}

/// Acks are counted, everything else is kept. What the schema of frames does not know ends the test.
fn keep(inbox: &Mutex<Inbox>, frame: Value) {
    let faults = Schema::of("server-frames").unknown_fields(&frame);
    let mut inbox = inbox.lock().expect("the inbox");
    if !faults.is_empty() {
        inbox.malformed.get_or_insert(format!("docs/schemas/server-frames.json does not know {frame}: {faults:?}"));
    }
    if frame["type"] == "ack" {
        inbox.acked = inbox.acked.max(frame["seq"].as_i64());
    } else {
        inbox.frames.push(frame);
    }
}
