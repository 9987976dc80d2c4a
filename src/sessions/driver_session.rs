//! `DriverSession`: the WebSocket of one driver. This is the only file that knows actix-web-actors, so that the crate
//! can be replaced.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Wake` | its mailbox, which holds [`ToSession`](super::mailbox::ToSession) | none | see there |
//!
//! A session registers before it reads the state for its `welcome`, and sends nothing before the `welcome`. So no
//! change is lost in between. Frames that need PostgreSQL are handled one at a time, in order. Heartbeats never wait
//! for them. A received frame is handled to its end, even when the socket closes.
//!
//! Everything that waits here is bounded: frames from the client, messages from the node, and bytes for a client that
//! does not read. While the socket accepts no bytes this actor does not run; then [`ConnectionWatchdog`] ends it.

mod inbound;
mod outbound;
mod received;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use actix_web::http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use actix_web::{Error, HttpRequest, HttpResponse, web};
use actix_web_actors::ws::{self, CloseCode, CloseReason, ProtocolError, WebsocketContext};
use chrono::Utc;
use serde_json::Value;

use super::SessionServices;
use super::connection_watchdog::ConnectionWatchdog;
use super::directory::SessionEntry;
use super::flow_control::Outgoing;
use super::frame_budget::FrameBudget;
use super::frame_handler::refuse;
use super::frame_reader::FrameReader;
use super::interval::{SessionInterval, interval_of};
use super::mailbox::SessionMailbox;
use super::opening::open;
use crate::dispatch::DispatchError;
use crate::dispatch::session::DriverSnapshot;
use crate::domain::ids::{MessageId, SessionId};
use crate::domain::plausibility::JumpFilter;
use crate::protocol::{self, SUBPROTOCOL, close};
use crate::store::credentials::DriverIdentity;
use work::Work;

/// Between checks of the session. One timer for each session: every frame that wakes the actor also visits its timers.
const CHECK_EVERY: Duration = Duration::from_secs(4);
/// Checks between two pings: a ping every 20 s.
const CHECKS_A_PING: u32 = 5;
/// A socket from which no frame arrives for this long is closed.
const LIFE_TIMEOUT: Duration = Duration::from_secs(60);
/// Wake-ups that may wait. One is enough.
const MAILBOX: usize = 2;
/// Permits of a session, released when dropped.
pub struct Guards {
    /// Held for the life of the session.
    pub permit: Box<dyn std::any::Any>,
    /// Held until the session is open and in the node's directory.
    pub until_open: Option<Box<dyn std::any::Any>>,
}

/// Upgrades a checked request to a driver's session.
pub fn upgrade(
    request: &HttpRequest,
    payload: web::Payload,
    services: Arc<SessionServices>,
    identity: DriverIdentity,
    guards: Guards,
) -> Result<HttpResponse, Error> {
    let frames_per_second = services.frames_per_second;
    let session = DriverSession {
        identity,
        id: SessionId::new(),
        entry: None,
        filter: JumpFilter::new(f64::from(services.frames.heartbeat_config().fix_max_speed_kmh), None),
        first_heartbeat: true,
        interval: None,
        last_life: Instant::now(),
        budget: FrameBudget::new(frames_per_second),
        bad_frames: 0,
        payload: Some(payload),
        is_message_over: false,
        work: Work::default(),
        sent: HashMap::new(),
        outgoing: Outgoing::default(),
        checks: 0,
        is_ended: false,
        watchdog: request.conn_data::<ConnectionWatchdog>().cloned().unwrap_or_default(),
        services,
        guards,
    };
    let watchdog = session.watchdog.clone();
    // [`FrameReader`] reads the frames, because it refuses a frame from its header. The reader of this crate would
    // buffer the whole frame first.
    let nothing = futures_util::stream::pending();
    let mut response = ws::WsResponseBuilder::new(session, request, nothing).start()?;
    if request.headers().contains_key(SEC_WEBSOCKET_PROTOCOL) {
        // The handshake was checked: the client offers this subprotocol, in one header or several.
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    watchdog.leave_to_session();
    Ok(response)
}

/// The actor of one socket.
struct DriverSession {
    services: Arc<SessionServices>,
    identity: DriverIdentity,
    id: SessionId,
    /// Set once the session is open.
    entry: Option<SessionEntry>,
    filter: JumpFilter,
    first_heartbeat: bool,
    /// Set with the `welcome`.
    interval: Option<SessionInterval>,
    last_life: Instant,
    budget: FrameBudget,
    bad_frames: u32,
    /// The client's bytes. The actor takes them when it starts.
    payload: Option<web::Payload>,
    /// Whether a part of the current message was over the budget. Then the whole message is over the budget.
    is_message_over: bool,
    work: Work,
    /// When each command was last sent. An acknowledged command stays for a while: a poll that began before the
    /// acknowledgement may still return it.
    sent: HashMap<MessageId, Instant>,
    outgoing: Outgoing,
    checks: u32,
    /// A close frame was sent. Nothing is sent after it.
    is_ended: bool,
    watchdog: ConnectionWatchdog,
    guards: Guards,
}

type Ctx = WebsocketContext<DriverSession>;

impl Actor for DriverSession {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Ctx) {
        ctx.set_mailbox_capacity(MAILBOX);
        metrics::gauge!("driver_tracker_sessions").increment(1.0);
        ctx.run_interval(CHECK_EVERY, |this, ctx| this.check(ctx));
        if let Some(payload) = self.payload.take() {
            ctx.add_stream(FrameReader::new(payload));
        }
        let mailbox = SessionMailbox::new(ctx.address().recipient());
        let opening = open(self.services.clone(), self.identity, self.id, mailbox, self.watchdog.clone());
        // No other message is handled until the welcome is sent.
        ctx.wait(opening.into_actor(self).map(|opened, this, ctx| this.opened(opened, ctx)));
    }

    fn stopped(&mut self, _: &mut Ctx) {
        metrics::gauge!("driver_tracker_sessions").decrement(1.0);
        if self.watchdog.has_timed_out() && !self.is_ended {
            count_end(close::TOO_SLOW);
            tracing::info!(driver.id = %self.identity.driver_id, session.id = %self.id, "a client took nothing and is cut off");
        }
        self.finish_work();
        self.services.directory.unregister(self.identity.driver_id, self.id);
    }
}

impl DriverSession {
    fn opened(&mut self, opened: Result<(SessionEntry, DriverSnapshot), DispatchError>, ctx: &mut Ctx) {
        self.guards.until_open = None;
        match opened {
            Ok((entry, snapshot)) => {
                tracing::debug!(driver.id = %self.identity.driver_id, session.id = %self.id, "session opened");
                let max_speed_kmh = f64::from(self.services.frames.heartbeat_config().fix_max_speed_kmh);
                self.filter = JumpFilter::new(max_speed_kmh, snapshot.last_fix);
                self.entry = Some(entry);
                let interval = SessionInterval::of(&snapshot.driver.as_changed());
                self.interval = Some(interval);
                let interval = interval_of(interval.heartbeat_tier(), self.services.frames.heartbeat_config());
                self.send(ctx, &protocol::outbound::welcome(Some(self.id), &snapshot, interval, Utc::now()));
                // The next polls of the command dispatcher deliver everything else.
                if !snapshot.deliveries.is_empty() {
                    self.services.notifications.notify_here(self.identity.driver_id);
                }
            }
            Err(_) if self.watchdog.has_left() => self.end(ctx, 1011, "the client has left"),
            Err(error) => {
                tracing::warn!(driver.id = %self.identity.driver_id, error = %error, "a session could not be opened");
                self.send(ctx, &refuse(None, None, &error));
                // 1011: the app reconnects by itself.
                self.end(ctx, 1011, "not possible just now");
            }
        }
    }

    /// Detects what must work without any message: a dead socket, and a session that was replaced on this node.
    fn check(&mut self, ctx: &mut Ctx) {
        self.end_if_too_slow(ctx);
        self.checks = self.checks.wrapping_add(1);
        if self.checks.is_multiple_of(CHECKS_A_PING) {
            self.ping(ctx);
        }
        let present = self.services.directory.get(self.identity.driver_id);
        if self.last_life.elapsed() >= LIFE_TIMEOUT {
            self.end(ctx, close::HEARTBEAT_TIMEOUT, "nothing was heard");
        } else if self.entry.is_some() && present.is_none_or(|entry| entry.session_id != self.id) {
            self.end(ctx, close::REPLACED, "a newer session has taken over");
        }
    }

    fn session_epoch(&self) -> i64 {
        self.entry.as_ref().map_or(0, |entry| entry.session_epoch)
    }

    /// Sends a frame, unless the session has ended.
    fn send(&mut self, ctx: &mut Ctx, frame: &Value) {
        self.send_text(ctx, frame.to_string());
    }

    fn send_text(&mut self, ctx: &mut Ctx, text: String) {
        if self.is_ended {
            return;
        }
        let asks = self.outgoing.sent(text.len(), Instant::now());
        ctx.text(text);
        if asks {
            self.ping(ctx);
        }
    }

    fn ping(&mut self, ctx: &mut Ctx) {
        if !self.is_ended {
            ctx.ping(&self.outgoing.ask());
        }
    }

    /// Ends the session with a close frame, once.
    fn end(&mut self, ctx: &mut Ctx, code: u16, why: &str) {
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        count_end(code);
        ctx.close(Some(CloseReason { code: CloseCode::from(code), description: Some(why.to_owned()) }));
        ctx.stop();
    }

    fn end_if_too_slow(&mut self, ctx: &mut Ctx) {
        if self.outgoing.is_too_slow(Instant::now()) {
            self.end(ctx, close::TOO_SLOW, "frames are not read");
        }
    }
}

/// `WsResponseBuilder` requires this handler. Its stream is empty: frames come from [`FrameReader`].
impl StreamHandler<Result<ws::Message, ProtocolError>> for DriverSession {
    fn handle(&mut self, _: Result<ws::Message, ProtocolError>, _: &mut Ctx) {}
}

fn count_end(code: u16) {
    metrics::counter!("driver_tracker_sessions_closed_total", "code" => code.to_string()).increment(1);
}
