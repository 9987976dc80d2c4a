//! The WebSocket client of one driver: connects, passes frames between the socket and its [`Agent`], and reconnects.
//!
//! Reconnects follow `docs/protocol.md`: after 1 s to 60 s with full jitter. The client does not reconnect after close code
//! 4001, 4002 or 1008, or when the upgrade is refused permanently (400, 401 or 403).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::agent::Agent;
use super::ledger::Ledger;
use super::stopped;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const SUBPROTOCOL: &str = "driver-tracker.v1";
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const WELCOME_WITHIN: Duration = Duration::from_secs(10);
const SEND_WITHIN: Duration = Duration::from_secs(10);
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// A socket without any incoming frame for this time is dead. The service pings every 20 s.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
const LEAST_WAIT_S: f64 = 1.0;
const LONGEST_WAIT_S: f64 = 60.0;

/// Measures the wall time since the run began.
#[derive(Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(&self) -> Duration {
        self.0.elapsed()
    }

    /// Returns the instant of the time `at`, at most an hour from now.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        let far = Duration::from_secs(3600);
        self.0.checked_add(at).map_or_else(|| Instant::now() + far, |instant| instant.min(Instant::now() + far))
    }
}

/// How a session ended.
enum End {
    /// The driver left by itself.
    Left,
    /// The service refused the driver permanently. The client does not reconnect.
    Banned,
    /// The connection was lost. The client reconnects after the wait that the service requested, or after a backoff.
    Lost { welcomed: bool },
}

/// See the module.
pub(super) struct Client {
    pub(super) agent: Agent,
    pub(super) ws_url: String,
    pub(super) token: String,
    pub(super) clock: Clock,
    pub(super) ledger: Arc<Ledger>,
    /// When true, the driver goes off duty and leaves.
    pub(super) stop: watch::Receiver<bool>,
    /// The wait before the first connect. It spreads the first connects of the fleet.
    pub(super) first_wait: Duration,
    pub(super) seed: u64,
}

impl Client {
    /// Runs until the driver has left, the service refuses the driver permanently, or its recording is over.
    pub(super) async fn run(mut self) {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut attempt = 0;
        let begin = self.clock.instant(self.agent.starts_at().max(self.first_wait));
        if begin > Instant::now() && self.stopped_while(sleep_until(begin)).await {
            return;
        }
        loop {
            let end = self.session().await;
            self.agent.session_lost(self.clock.now());
            let End::Lost { welcomed } = end else { return };
            attempt = if welcomed { 0 } else { attempt + 1 };
            let requested = self.agent.take_reconnect_after();
            let wait = requested.unwrap_or_else(|| backoff(attempt, &mut rng)).min(Duration::from_secs(600));
            if self.stopped_while(sleep(wait)).await {
                return;
            }
        }
    }

    /// Returns true as soon as the run stops, or false when the future completes first.
    async fn stopped_while(&mut self, future: impl Future<Output = ()>) -> bool {
        tokio::select! {
            () = future => false,
            () = stopped(&mut self.stop) => true,
        }
    }

    async fn session(&mut self) -> End {
        let mut socket = match timeout(CONNECT_WITHIN, self.connect()).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return self.connect_failed(&error),
            Err(_) => {
                self.ledger.error("connect: timed out");
                return End::Lost { welcomed: false };
            }
        };
        let end = self.exchange_frames(&mut socket).await;
        if !matches!(end, End::Lost { .. }) {
            let _ = timeout(CLOSE_WITHIN, socket.close(None)).await;
        }
        end
    }

    async fn connect(&self) -> Result<Socket, Error> {
        let mut request = self.ws_url.as_str().into_client_request()?;
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", self.token))?;
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
        Ok(tokio_tungstenite::connect_async_with_config(request, None, true).await?.0)
    }

    fn connect_failed(&self, error: &Error) -> End {
        let (kind, banned) = match error {
            Error::Http(response) => {
                let status = response.status();
                let refused =
                    matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
                (format!("connect: {}", status.as_u16()), refused)
            }
            Error::Io(error) => (format!("connect: {}", error.kind()), false),
            Error::Protocol(error) => (format!("connect: {error}"), true),
            _ => ("connect: failed".to_owned(), false),
        };
        self.ledger.error(&kind);
        if banned { End::Banned } else { End::Lost { welcomed: false } }
    }

    async fn exchange_frames(&mut self, socket: &mut Socket) -> End {
        let opened = self.clock.now();
        let mut last_seen = opened;
        let mut leaving = false;
        loop {
            let now = self.clock.now();
            if self.agent.is_done(now) {
                return End::Left;
            }
            if self.send_all(socket).await.is_err() {
                return self.lost("socket: cannot send");
            }
            let dead_at = if self.agent.in_session() { last_seen + SILENCE_LIMIT } else { opened + WELCOME_WITHIN };
            let wake = self.clock.instant(self.agent.deadline(now).min(dead_at));
            tokio::select! {
                () = stopped(&mut self.stop), if !leaving => {
                    leaving = true;
                    self.agent.leave(self.clock.now());
                }
                message = socket.next() => {
                    last_seen = self.clock.now();
                    match message {
                        Some(Ok(Message::Text(text))) => self.agent.on_text(last_seen, &text),
                        Some(Ok(Message::Close(frame))) => return self.closed(frame.map(|frame| frame.code)),
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return self.lost("socket: lost"),
                    }
                }
                () = sleep_until(wake) => {
                    let now = self.clock.now();
                    if now >= dead_at {
                        return self.lost(if self.agent.in_session() { "socket: silent" } else { "socket: no welcome" });
                    }
                    self.agent.on_time(now);
                }
            }
        }
    }

    async fn send_all(&mut self, socket: &mut Socket) -> Result<(), ()> {
        let frames = self.agent.take_outgoing();
        if frames.is_empty() {
            return Ok(());
        }
        let sending = async {
            for frame in frames {
                socket.feed(Message::text(frame)).await?;
            }
            socket.flush().await
        };
        match timeout(SEND_WITHIN, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }

    fn closed(&self, code: Option<CloseCode>) -> End {
        let code = code.map_or(1005, u16::from);
        self.ledger.error(&format!("closed: {code}"));
        match code {
            1008 | 4001 | 4002 => End::Banned,
            _ => End::Lost { welcomed: self.agent.in_session() },
        }
    }

    fn lost(&self, kind: &str) -> End {
        self.ledger.error(kind);
        End::Lost { welcomed: self.agent.in_session() }
    }
}

/// Returns a wait of 1 s to 60 s: the minimum, plus a random part of a span that doubles with every failed attempt.
fn backoff(attempt: u32, rng: &mut impl Rng) -> Duration {
    let span_s = (LEAST_WAIT_S * 2f64.powi(attempt.min(16) as i32)).min(LONGEST_WAIT_S - LEAST_WAIT_S);
    Duration::from_secs_f64(LEAST_WAIT_S + span_s * rng.random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_is_one_second_to_a_minute_and_has_jitter() {
        let mut rng = StdRng::seed_from_u64(1);
        let waits: Vec<f64> = (0..40).map(|attempt| backoff(attempt, &mut rng).as_secs_f64()).collect();
        assert!(waits.iter().all(|wait| (1.0..=60.0).contains(wait)), "{waits:?}");
        assert!(waits[0] <= 2.0 && waits[10..].iter().any(|wait| *wait > 30.0), "{waits:?}");
        assert!(waits[10..].windows(2).any(|pair| (pair[0] - pair[1]).abs() > 5.0), "{waits:?}");
    }
}
