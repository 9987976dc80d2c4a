//! `ConnectionWatchdog`: ends a connection whose peer accepts no bytes, and a connection on which no request completes.
//! It works from outside the actor, because such a peer freezes the actor.
//!
//! A session's actor runs only while its socket accepts what it writes: a peer that stops reading also stops the
//! actor's timers (actix-web#2441). The watchdog therefore wraps the connection itself, between the server and the
//! socket, where every byte passes. It needs no extra descriptor and no thread, and no timer while the peer reads.
//!
//! It sends no close frame: a peer that takes no bytes would not get it. The socket is reset, so that the
//! kernel drops what waits in it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a peer may leave waiting what was written to it: not less, since a phone may have no network for a while. The
/// kernel gets the same timeout, and acts at its next probe of a window that stays closed, or when nothing answers any more.
const TAKE_WITHIN: Duration = Duration::from_secs(15);
/// A peer that accepts this many bytes within that time is slow, not stuck.
const ENOUGH: usize = 16 * 1024;
/// How long a connection may be open without a request in flight and nothing sent: from the last byte of a response to the end of
/// the next head. The server's own limits (5 s without a byte, 10 s for the first head) do not cover the head of a second
/// request that never ends.
const REQUEST_WITHIN: Duration = Duration::from_secs(20);
/// The kernel's send buffer for a peer. The kernel doubles the value for its own overhead. A larger buffer does not
/// help frames.
const SEND_BUFFER: usize = 64 * 1024;

/// The state that a connection's watchdog shares with requests and sessions; cheap to clone.
#[derive(Clone, Default)]
pub struct ConnectionWatchdog {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Requests that have no response yet.
    in_flight: AtomicU32,
    /// A session has taken the connection over.
    is_session: AtomicBool,
    timed_out: AtomicBool,
    /// The peer has closed its side.
    left: AtomicBool,
}

/// A request that has no response yet; until dropped.
pub struct InFlight(Arc<Shared>);

impl ConnectionWatchdog {
    /// A request has been received; it is in flight until the guard is dropped.
    pub fn request(&self) -> InFlight {
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.shared.clone())
    }

    /// Hands the connection to a session. The session watches its own silence: frames follow, and no requests.
    pub fn leave_to_session(&self) {
        self.shared.is_session.store(true, Ordering::Relaxed);
    }

    /// Whether the connection was reset because its peer accepted no bytes.
    pub fn has_timed_out(&self) -> bool {
        self.shared.timed_out.load(Ordering::Relaxed)
    }

    /// Whether the peer has closed its side of the connection, so that no client waits for an answer.
    pub fn has_left(&self) -> bool {
        self.shared.left.load(Ordering::Relaxed)
    }

    fn waits_for_request(&self) -> bool {
        !self.shared.is_session.load(Ordering::Relaxed) && self.shared.in_flight.load(Ordering::Relaxed) == 0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A write that the peer has not accepted.
struct Blocked {
    until: Pin<Box<Sleep>>,
    taken: usize,
}

/// A socket with its watchdog.
pub struct Watched {
    socket: TcpStream,
    watchdog: ConnectionWatchdog,
    blocked: Option<Blocked>,
    idle: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// Wraps a socket that was just accepted.
    pub fn new(socket: TcpStream) -> Self {
        let options = socket2::SockRef::from(&socket);
        // Each option only ends a connection sooner. A kernel that refuses one is served without it.
        let _ = options.set_tcp_user_timeout(Some(TAKE_WITHIN));
        let _ = options.set_tcp_nodelay(true);
        let _ = options.set_send_buffer_size(SEND_BUFFER);
        Self { socket, watchdog: ConnectionWatchdog::default(), blocked: None, idle: None }
    }

    /// The handle for requests and sessions.
    pub fn watchdog(&self) -> ConnectionWatchdog {
        self.watchdog.clone()
    }

    /// Makes the kernel drop what it holds for the peer as soon as the socket is dropped.
    fn cut(&self, why: &'static str) -> io::Error {
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        io::Error::new(io::ErrorKind::TimedOut, why)
    }

    fn time_out(&self, error: io::Error) -> io::Error {
        self.watchdog.shared.timed_out.store(true, Ordering::Relaxed);
        error
    }

    /// Checks the result of a write of `offered` bytes.
    fn judge_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        offered: usize,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                // A response is being sent: the connection is not idle. This holds for a request that was answered at
                // once, and for a long response.
                self.idle = None;
                let taken = self.blocked.as_ref().map_or(0, |blocked| blocked.taken) + bytes;
                if bytes >= offered || taken >= ENOUGH {
                    self.blocked = None;
                } else if let Some(blocked) = &mut self.blocked {
                    blocked.taken = taken;
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending => {
                let start = || Blocked { until: Box::pin(sleep(TAKE_WITHIN)), taken: 0 };
                ready!(self.blocked.get_or_insert_with(start).until.as_mut().poll(cx));
                Poll::Ready(Err(self.time_out(self.cut("the peer takes nothing"))))
            }
            // The kernel's timeout for the same peer.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                Poll::Ready(Err(self.time_out(error)))
            }
            failed => failed,
        }
    }

    /// Ends a connection on which no request completes.
    fn judge_silence(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.watchdog.waits_for_request() {
            self.idle = None;
            return Ok(());
        }
        let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(REQUEST_WITHIN)));
        match idle.as_mut().poll(cx) {
            Poll::Ready(()) => Err(self.cut("no request came")),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.judge_silence(cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
        let ended = match &read {
            Poll::Ready(Ok(())) => buffer.filled().len() == before && buffer.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if ended {
            this.watchdog.shared.left.store(true, Ordering::Relaxed);
        }
        match read {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                Poll::Ready(Err(this.time_out(error)))
            }
            other => other,
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.judge_write(cx, written, bytes.len())
    }

    /// The server flushes after every write: the wait for the next request begins here.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.judge_silence(cx)?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

/// The clock of these tests is paused. It advances whenever the runtime waits only for a timer. So fifteen seconds pass
/// at once, long before the kernel's own timeout.
#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::{Instant, pause};

    /// Both ends of a connection, the served one first. The kernel of the other one buffers little.
    async fn pair() -> (Watched, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = tokio::net::TcpSocket::new_v4().unwrap();
        peer.set_recv_buffer_size(4096).unwrap();
        let (peer, served) = tokio::join!(peer.connect(listener.local_addr().unwrap()), listener.accept());
        (Watched::new(served.unwrap().0), peer.unwrap())
    }

    /// Reads for longer than a connection may be silent; `None` when the connection stays open.
    async fn read_on(socket: &mut Watched) -> Option<io::Result<u8>> {
        tokio::time::timeout(REQUEST_WITHIN * 3, socket.read_u8()).await.ok()
    }

    /// Answers each byte at once, so that it is never seen in flight.
    async fn answer_for_ever(socket: &mut Watched) -> io::Result<Infallible> {
        loop {
            socket.read_u8().await?;
            drop(socket.watchdog().request());
            socket.write_all(b"!").await?;
            socket.flush().await?;
        }
    }

    async fn write_for_ever(socket: &mut Watched) -> io::Error {
        let bytes = vec![0; 64 * 1024];
        loop {
            if let Err(error) = socket.write_all(&bytes).await {
                return error;
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_cut_off_and_its_socket_reset() {
        let (mut socket, mut peer) = pair().await;
        socket.watchdog().leave_to_session();
        pause();
        let began = Instant::now();
        assert_eq!(write_for_ever(&mut socket).await.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= TAKE_WITHIN && began.elapsed() < TAKE_WITHIN * 2);
        assert!(socket.watchdog().has_timed_out());
        drop(socket);
        let mut rest = Vec::new();
        assert_eq!(peer.read_to_end(&mut rest).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_peer_that_takes_a_little_is_cut_off_and_one_that_takes_more_is_served() {
        for (bytes, is_cut_off) in [(500, true), (100_000, false)] {
            let (mut socket, mut peer) = pair().await;
            socket.watchdog().leave_to_session();
            pause();
            let reading = async {
                let mut buffer = vec![0; bytes];
                while peer.read_exact(&mut buffer).await.is_ok() {
                    sleep(Duration::from_secs(1)).await;
                }
            };
            tokio::select! {
                error = write_for_ever(&mut socket) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
                () = reading => {}
                () = sleep(Duration::from_secs(60)) => {}
            }
            assert_eq!(socket.watchdog().has_timed_out(), is_cut_off, "{bytes} bytes a second");
            tokio::time::resume();
        }
    }

    #[tokio::test]
    async fn a_connection_without_a_whole_request_ends_whatever_trickles_in() {
        let (mut socket, mut peer) = pair().await;
        pause();
        let began = Instant::now();
        let trickling = async {
            while peer.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        let reading = async {
            loop {
                if let Err(error) = socket.read_u8().await {
                    return error;
                }
            }
        };
        let error = tokio::select! { error = reading => error, () = trickling => panic!("the peer gave up") };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= REQUEST_WITHIN && began.elapsed() < REQUEST_WITHIN * 2);
        assert!(!socket.watchdog().has_timed_out(), "it was not because the peer took nothing");
    }

    #[tokio::test]
    async fn a_connection_on_which_responses_go_out_lives_whether_short_ones_or_one_that_is_long() {
        /// The bytes that the peer reads back, in all.
        const ANSWERS: usize = 20;
        let (mut socket, mut peer) = pair().await;
        pause();
        let asking = async {
            for _ in 0..ANSWERS {
                peer.write_all(b"?").await?;
                sleep(REQUEST_WITHIN / 5).await;
            }
            peer.read_exact(&mut [0; ANSWERS]).await
        };
        tokio::select! { asked = asking => assert!(asked.is_ok(), "{asked:?}"), ended = answer_for_ever(&mut socket) => panic!("{ended:?}") }
        for _ in 0..ANSWERS {
            assert!(tokio::time::timeout(REQUEST_WITHIN / 5, socket.read_u8()).await.is_err(), "cut off in a response");
            socket.write_all(b"more").await.unwrap();
        }
        assert!(read_on(&mut socket).await.is_some_and(|read| read.is_err()), "left open after it");
    }

    #[tokio::test]
    async fn a_request_in_flight_and_a_session_may_be_silent() {
        let (mut socket, _peer) = pair().await;
        pause();
        let watchdog = socket.watchdog();
        let in_flight = watchdog.request();
        assert!(read_on(&mut socket).await.is_none(), "cut off with a request in flight");
        drop(in_flight);
        assert!(read_on(&mut socket).await.is_some_and(|read| read.is_err()), "left open after it");
        let (mut socket, _peer) = pair().await;
        socket.watchdog().leave_to_session();
        assert!(read_on(&mut socket).await.is_none(), "cut off within a session");
    }
}
